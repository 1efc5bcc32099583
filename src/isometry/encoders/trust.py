"""Refusing model folders that would run code of their own, before any library reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isometry.encoders.digest import module_folders, read_json
from isometry.errors import InputError

_TRUSTED = ("sentence_transformers.", "isometry.encoders.")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")


def refuse_foreign_code(folder: str | Path) -> None:
    """Refuse a model folder that would run code of its own, unpickle weights, or lead out of itself.

    Raises:
        InputError: names the file and what it asks for, or what is not JSON.
    """
    folder = Path(folder)
    for place in module_folders(folder):
        for file in sorted(place.glob("*.json")):
            if file.name == "modules.json" or file.name.startswith("router"):
                _check_classes(folder, read_json(file))
            elif "config" in file.name:
                _check_settings(file, read_json(file))
        pickled = sorted(file.name for pattern in _PICKLES for file in place.glob(pattern))
        if pickled and not any(place.glob("*.safetensors")):
            raise InputError(f"'{place / pickled[0]}' holds pickled weights; convert the model to safetensors first")
        if (place / "adapter_config.json").is_file():
            raise InputError(f"'{place}' holds an adapter without its base model; merge the two and save them first")


def _check_classes(folder: Path, listing: Any) -> None:
    """Every module class named in modules.json or a router's own listing."""
    modules = listing if isinstance(listing, list) else []
    names = [module.get("type") for module in modules]
    if isinstance(listing, dict):
        names += list(listing.get("types", {}).values())
    for name in names:
        if not str(name).startswith(_TRUSTED):
            raise InputError(
                f"'{folder}' asks for the class '{name}', which is neither of sentence-transformers nor of Isometry; "
                "models that bring their own code are refused"
            )


def _check_settings(file: Path, settings: Any) -> None:
    if isinstance(settings, list):
        for item in settings:
            _check_settings(file, item)
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key == "auto_map" and value:
            raise InputError(f"'{file}' asks to run code of its own (auto_map); such models are refused")
        if key == "trust_remote_code" and value:
            raise InputError(f"'{file}' asks for trust_remote_code; such models are refused")
        if key.lstrip("_") == "attn_implementation" and "/" in str(value):
            raise InputError(f"'{file}' asks for a kernel from the network ({value}); such models are refused")
        _check_settings(file, value)

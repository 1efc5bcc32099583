"""Records to vectors. `load_encoder()` gives the bundled text encoder; torch is imported when it is called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isometry.encoders.load import load_encoder

if TYPE_CHECKING:
    from isometry.encoders.late_encoder import LateEncoder
    from isometry.encoders.sentence_encoder import SentenceEncoder
    from isometry.encoders.token_encoder import TokenEncoder

__all__ = ["LateEncoder", "SentenceEncoder", "TokenEncoder", "load_encoder"]


_FILES = {"LateEncoder": "late_encoder", "SentenceEncoder": "sentence_encoder", "TokenEncoder": "token_encoder"}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"isometry.encoders.{_FILES[name]}"), name)
    raise AttributeError(f"module 'isometry.encoders' has no attribute '{name}'")

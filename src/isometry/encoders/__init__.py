"""Records to vectors. `load_encoder()` gives the bundled text encoder; torch is imported when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isometry.encoders.load import load_encoder

if TYPE_CHECKING:
    from isometry.encoders.sentence_encoder import SentenceEncoder

__all__ = ["SentenceEncoder", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "SentenceEncoder":
        from isometry.encoders.sentence_encoder import SentenceEncoder

        return SentenceEncoder
    raise AttributeError(f"module 'isometry.encoders' has no attribute '{name}'")

"""Isometry learns, compresses, stores, searches and evaluates embeddings.

`import isometry` is light; torch and other heavy parts are imported by the room that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isometry.errors import IsometryError
from isometry.types import Encoder, EncoderDescription, Hit, SearchResult

if TYPE_CHECKING:
    from isometry.search.collection import Collection

__version__ = "0.1.0"
__all__ = ["Collection", "Encoder", "EncoderDescription", "Hit", "IsometryError", "SearchResult", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Collection":
        from isometry.search.collection import Collection

        return Collection
    raise AttributeError(f"module 'isometry' has no attribute '{name}'")

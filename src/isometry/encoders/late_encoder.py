"""Models that were trained for late interaction, through sentence-transformers' `MultiVectorEncoder`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from isometry.encoders.tokens import clean
from isometry.errors import InputError
from isometry.types import EncoderDescription, VectorSets


class LateEncoder:
    """A loaded `MultiVectorEncoder`; made by `load_encoder`. One call at a time: its tokenizer cannot be shared.

    Lengths, query expansion, skipped tokens and prompts are the model's own.

    Args:
        folder: the model.
        device: as torch spells it.
        name, digest: for `describe`.
    Raises: InputError for a folder that cannot be read.
    """

    precision = "float32"

    def __init__(self, folder: Path, device: str, name: str, digest: str) -> None:
        from sentence_transformers import MultiVectorEncoder

        try:
            self.model: Any = MultiVectorEncoder(str(folder), device=device, local_files_only=True).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise InputError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        self._lock = threading.Lock()
        prompts = {key: value or "" for key, value in self.model.prompts.items()}
        limit = self.model.max_seq_length
        self._description = EncoderDescription(
            name=name,
            digest=digest,
            dimension=int(self.model.get_embedding_dimension() or 0),
            normalized=any(type(module).__name__ == "Normalize" for module in self.model),
            max_tokens=int(limit) if limit is not None and limit < 1 << 24 else None,
            query_prompt=prompts.get("query", ""),
            document_prompt=prompts.get("document", ""),
            multi_vector=True,
        )

    def describe(self) -> EncoderDescription:
        return self._description

    def encode(self, inputs: Iterable[str], batch_size: int = 32, show_progress_bar: bool | None = None) -> VectorSets:
        """Documents to their vectors. Raises InputError for one text in place of a list, or a text without a vector."""
        return self._encode(self.model.encode_document, inputs, batch_size, show_progress_bar)

    def encode_queries(
        self, texts: Iterable[str], batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> VectorSets:
        """Queries to their vectors."""
        return self._encode(self.model.encode_query, texts, batch_size, show_progress_bar)

    def _encode(self, encode: Any, texts: Iterable[str], batch_size: int, show: bool | None) -> VectorSets:
        if isinstance(texts, str | bytes):
            raise InputError("encode takes a list of texts and was given one text: put it into a list")
        cleaned = []
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {type(text).__name__}, not a string; give '' for an empty text")
            cleaned.append(clean(text))
        with self._lock:
            found = encode(cleaned, batch_size=batch_size, show_progress_bar=bool(show), convert_to_numpy=True)
        parts = []
        for number, values in enumerate(found, 1):
            if len(values) == 0:
                raise InputError(f"the model leaves no token of text {number}; leave it out")
            parts.append(VectorSets(np.asarray(values, np.float32), np.array([0, len(values)])))
        return VectorSets.joined(parts, self._description.dimension)

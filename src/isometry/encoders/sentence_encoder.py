"""Texts to vectors through a sentence-transformers model, in batches sorted by length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from isometry.errors import InputError
from isometry.types import EncoderDescription

WINDOW = 4096


class SentenceEncoder:
    """A loaded model; made by `load_encoder`.

    Attributes:
        truncated: texts cut to the model's `max_tokens` so far.
    """

    def __init__(self, model: Any, description: EncoderDescription) -> None:
        self.model = model
        self._description = description
        self.truncated = 0

    def describe(self) -> EncoderDescription:
        return self._description

    def encode(self, inputs: Iterable[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Documents (n texts, a sequence or an iterator) to float32 `(n, d)`."""
        return self._encode(inputs, self._description.document_prompt)

    def encode_queries(self, texts: Iterable[str]) -> np.ndarray:
        """Queries (q texts) to float32 `(q, d)`, with the model's own query prompt."""
        return self._encode(texts, self._description.query_prompt)

    def _encode(self, inputs: Iterable[str], prompt: str) -> np.ndarray:
        if isinstance(inputs, str | bytes):
            raise InputError("encode takes a list of texts and got one text: put it in a list")
        blocks = [self._window(texts, prompt) for texts in _windows(inputs)]
        return np.concatenate(blocks) if blocks else np.empty((0, self._description.dimension), np.float32)

    def _window(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        limit = self._description.max_tokens
        tokenizer = self.model.tokenizer
        ids = tokenizer([prompt + text for text in texts], truncation=False, padding=False, verbose=False)["input_ids"]
        lengths = np.array([len(i) for i in ids])
        if limit is not None:
            self.truncated += int((lengths > limit).sum())
        order = np.argsort(-lengths, kind="stable")
        out = np.empty((len(texts), self._description.dimension), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                features = self.model.preprocess([texts[row] for row in rows], prompt=prompt or None)
                out[rows] = self.model(features)["sentence_embedding"].float().numpy()
        return out


def _windows(inputs: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(inputs)
    while window := list(islice(stream, WINDOW)):
        yield window

"""Texts, and images where the model takes them, to vectors: in batches of like length, a bounded window at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isometry.encoders.images import open_image
from isometry.errors import InputError
from isometry.types import EncoderDescription

# Texts held and sorted at once. Sorting more of them saves no padding that matters.
WINDOW = 4096
# A batch holds at most this many tokens per unit of `batch_size`.
_TOKENS = 32


class Engine(Protocol):
    """What computes: `BertEngine` or `ModelEngine`."""

    layers: int | None

    def prepare(self, texts: Sequence[str], prompt: str) -> tuple[Sequence[Any], np.ndarray, np.ndarray]: ...

    def vectors(self, inputs: Any, query: bool, prompt: str) -> np.ndarray: ...

    def token_vectors(self, inputs: Any, prompt: str, special: bool = True) -> list[Tensor]: ...


class SentenceEncoder:
    """A loaded encoder; made by `load_encoder`. May be shared between threads.

    Attributes:
        truncated: texts that were cut to the model's `max_tokens` so far.
        most_tokens_cut: the most tokens that one text lost; estimated for the part of a very long text that was never
            tokenized.
        precision: 'float32' or 'bfloat16'.
    """

    def __init__(self, engine: Engine, description: EncoderDescription, precision: str) -> None:
        self._engine = engine
        self._description = description
        self._lock = threading.Lock()
        self.precision = precision
        self.truncated = 0
        self.most_tokens_cut = 0

    @property
    def layers(self) -> int | None:
        """Transformer layers, of which `load_encoder(..., layers=n)` keeps the first; None where it cannot."""
        return self._engine.layers

    def describe(self) -> EncoderDescription:
        """What the vectors depend on; the precision, which moves them by less than noise, is no part of it."""
        return self._description

    def encode(self, inputs: Iterable[Any], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Documents to vectors, in the order given.

        Args:
            inputs: n texts, or n images where the model takes them (see `encode_images`); a sequence or an iterator, of
                which at most 4,096 are held at a time. An empty text is legal.
            batch_size: size of a batch, in texts of 32 tokens: of long texts a batch holds fewer.
            show_progress_bar: a bar on stderr.
        Returns: float32 `(n, d)`.
        Raises:
            InputError: one text instead of a list, or something that is no text.
        """
        first, inputs = _peek(inputs)
        if first is not None and not isinstance(first, str):
            return self.encode_images(inputs, batch_size, show_progress_bar)
        return self._encode(inputs, False, batch_size, show_progress_bar)

    def encode_queries(
        self, texts: Iterable[str], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """Queries (q texts) to float32 `(q, d)`, with the model's own prompt for queries."""
        return self._encode(texts, True, batch_size, show_progress_bar)

    def encode_images(
        self, images: Iterable[Any], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """Images (PIL images, encoded bytes or paths) to float32 `(n, d)`, half of `batch_size` at a time.

        Raises:
            InputError: the model takes no images. RecordError: which one is no readable picture.
        """
        if "image" not in self._description.modalities:
            raise InputError(f"encoder '{self._description.name}' takes texts, not images")
        stream, size, rows = iter(images), max(1, batch_size // 2), _Rows(self._description.dimension)
        with _bar(images, show_progress_bar) as bar, torch.inference_mode():
            while batch := list(islice(stream, size)):
                opened = [open_image(image, rows.count + number) for number, image in enumerate(batch, 1)]
                rows.append(self._finish(self._engine.vectors(opened, False, "")))
                bar.update(len(batch))
        return rows.whole()

    def encode_stream(self, batches: Iterable[Sequence[str]], batch_size: int = 64) -> Iterator[np.ndarray]:
        """Batches of documents to one `(n_i, d)` array each, as they are asked for."""
        for texts in batches:
            yield self.encode(texts, batch_size)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens that `encode` reads of the texts together, special tokens and the document prompt included."""
        return int(self._engine.prepare(list(texts), self._description.document_prompt)[1].sum())

    def encode_tokens(
        self, texts: Iterable[str], batch_size: int = 64, *, special: bool = True, query: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Documents to one vector of length one per token, for late interaction.

        Args:
            special: with the tokens that the tokenizer adds; without them a text of nothing else keeps its first.
            query: the texts are queries.
        Returns: values float32 `(sum n_i, d)` and offsets int64 `(n + 1)`.
        """
        prompt = self._description.query_prompt if query else self._description.document_prompt
        found: list[np.ndarray] = []
        with torch.inference_mode():
            for window in _windows(texts):
                held: list[np.ndarray] = [np.empty(0)] * len(window)
                for rows, inputs in self._batches(window, prompt, batch_size):
                    for row, states in zip(rows, self._engine.token_vectors(inputs, prompt, special), strict=True):
                        cut = states[:, : self._description.dimension]
                        held[row] = torch.nn.functional.normalize(cut, dim=1).numpy()
                found += held
        offsets = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(values) for values in found], out=offsets[1:])
        empty = np.empty((0, self._description.dimension), np.float32)
        return np.concatenate(found) if found else empty, offsets

    def _encode(self, texts: Iterable[str], query: bool, batch_size: int, show: bool | None) -> np.ndarray:
        prompt = self._description.query_prompt if query else self._description.document_prompt
        rows = _Rows(self._description.dimension)
        with _bar(texts, show) as bar, torch.inference_mode():
            for window in _windows(texts):
                out = rows.extend(len(window))
                for chosen, inputs in self._batches(window, prompt, batch_size):
                    out[chosen] = self._finish(self._engine.vectors(inputs, query, prompt))
                    bar.update(len(chosen))
        return rows.whole()

    def _batches(self, texts: list[str], prompt: str, batch_size: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Row numbers and inputs of like length, shortest first, within the token budget."""
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1 (given: {batch_size})")
        inputs, lengths, lost = self._engine.prepare(texts, prompt)
        with self._lock:
            self.truncated += int((lost > 0).sum())
            self.most_tokens_cut = max(self.most_tokens_cut, int(lost.max(initial=0)))
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            # as sorted, the last of a batch is its longest: what a padded batch costs is that length times its rows
            padded = lengths[order[start:]] * np.arange(1, len(order) - start + 1)
            stop = start + max(1, int(np.searchsorted(padded, batch_size * _TOKENS, side="right")))
            rows = order[start:stop]
            yield rows, [inputs[row] for row in rows]
            start = stop

    def _finish(self, vectors: np.ndarray) -> np.ndarray:
        dimension = self._description.dimension
        if vectors.shape[1] == dimension:
            return vectors
        cut = vectors[:, :dimension]
        if not self._description.normalized:
            return cut
        return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)


class _Rows:
    """A float32 `(n, d)` array that grows in place, for inputs whose number is not known beforehand."""

    def __init__(self, dimension: int) -> None:
        self._held = np.empty((0, dimension), np.float32)
        self.count = 0

    def extend(self, rows: int) -> np.ndarray:
        """Room for that many more rows, to be filled before the next call."""
        self._held.resize((self.count + rows, self._held.shape[1]), refcheck=False)
        self.count += rows
        return self._held[self.count - rows :]

    def append(self, vectors: np.ndarray) -> None:
        self.extend(len(vectors))[:] = vectors

    def whole(self) -> np.ndarray:
        return self._held


def _peek(inputs: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first input, None where there is none, and the inputs still whole."""
    if isinstance(inputs, str | bytes | Path):
        raise InputError("encode takes a list of texts and was given one text: put it into a list")
    if hasattr(inputs, "__len__"):
        return next((_plain(item) for item in inputs), None), inputs
    stream = iter(inputs)
    first = next(stream, None)
    return _plain(first), _chained(first, stream) if first is not None else stream


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _plain(item: Any) -> Any:
    """Values of Arrow arrays as Python has them."""
    return item.as_py() if hasattr(item, "as_py") else item


def _windows(texts: Iterable[Any]) -> Iterator[list[str]]:
    if isinstance(texts, str | bytes):
        raise InputError("encode takes a list of texts and was given one text: put it into a list")
    stream = map(_plain, texts)
    seen = 0
    while window := list(islice(stream, WINDOW)):
        for number, text in enumerate(window, seen + 1):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {type(text).__name__}, not a string; give '' for an empty text")
        seen += len(window)
        yield window


def _bar(inputs: Iterable[Any], show: bool | None) -> Any:
    from tqdm import tqdm

    total = len(inputs) if isinstance(inputs, Sized) else None
    return tqdm(total=total, unit="text", disable=not show)

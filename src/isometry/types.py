"""Shapes, results and protocols that the rooms share. Imports nothing of ours.

Letters in shape notes: n rows, d dimensions, q queries, k results, t tokens, b bytes.
Vectors are float32, C-contiguous, `(n, d)`. Several vectors per item: `(values (sum n_i, d), offsets (n + 1) int64)`.
Scores are always higher-is-closer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class EncoderDescription:
    """What made a vector: two encoders with the same fingerprint give vectors of the same space.

    Args:
        name: how to load it again: a hub name, a folder, or 'default'.
        digest: hash over weights and the configuration that changes vectors (hex).
        dimension: length of a vector.
        modalities: what it takes, of 'text' and 'image'.
        normalized: whether vectors have length one.
        max_tokens: longer texts are cut here; None where there is no limit.
        query_prompt / document_prompt: text put in front.
        multi_vector: one vector per token instead of one per record.
    """

    name: str
    digest: str
    dimension: int
    modalities: tuple[str, ...] = ("text",)
    normalized: bool = True
    max_tokens: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    multi_vector: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """16 hex characters over everything but the name: a renamed folder keeps its fingerprint."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "modalities": list(self.modalities), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderDescription:
        known = {key: value for key, value in values.items() if key != "fingerprint"}
        return cls(**{**known, "modalities": tuple(known.get("modalities", ("text",)))})


class VectorSets(NamedTuple):
    """Several vectors for each of n items: values float32 `(sum n_i, d)` and offsets int64 `(n + 1)`."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def items(self) -> int:
        return len(self.offsets) - 1

    def take(self, chosen: np.ndarray) -> VectorSets:
        """The sets of chosen items `(m,)`, in that order, copied together."""
        sizes = self.offsets[chosen + 1] - self.offsets[chosen]
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        at = np.repeat(self.offsets[chosen] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return VectorSets(self.values[at], offsets)

    def spans(self, most: int) -> Iterator[tuple[int, int]]:
        """Runs of items [first, last) that together have at most `most` vectors, or one item with more."""
        first = 0
        while first < self.items:
            last = int(np.searchsorted(self.offsets, self.offsets[first] + most, side="right")) - 1
            last = max(first + 1, last)
            yield first, last
            first = last

    @classmethod
    def joined(cls, parts: Sequence[VectorSets], dimension: int) -> VectorSets:
        """Items of several parts, one after the other."""
        values = [part.values for part in parts] or [np.empty((0, dimension), np.float32)]
        sizes = [np.diff(part.offsets) for part in parts] or [np.empty(0, np.int64)]
        return cls(np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64))


@runtime_checkable
class Encoder(Protocol):
    """Records to vectors; `sentence_transformers.SentenceTransformer` has this `encode` as it is."""

    def encode(self, inputs: Sequence[Any], batch_size: int = ..., show_progress_bar: bool | None = ...) -> np.ndarray:
        """Inputs (n texts, or images where the encoder takes them) to float32 `(n, d)`."""
        ...


@runtime_checkable
class DescribedEncoder(Encoder, Protocol):
    """An encoder that says what it is, so that a collection can refuse the vectors of another."""

    def describe(self) -> EncoderDescription:
        """Name, digest, dimension and what else decides the space of its vectors."""
        ...


@runtime_checkable
class Index(Protocol):
    """Finds nearest vectors. Always rebuildable from the store, never the record of truth."""

    def build(self, vectors: np.ndarray) -> Index:
        """Take vectors `(n, d)` (or codes `(n, b)` where the index says so); returns itself."""
        ...

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries `(q, d)` to `(scores (q, k) float32, rows (q, k) int64)`, best first, equal scores by lower row.

        `allowed` is a boolean mask `(n,)`: only rows where it is true may come back. Where fewer than k rows are
        allowed, the tail is padded with row -1 and score -inf.
        """
        ...


@runtime_checkable
class Compressor(Protocol):
    """A scikit-learn estimator from vectors `(n, d)` float32 to codes `(n, b)` uint8."""

    def fit(self, X: np.ndarray, y: Any = None) -> Compressor:
        """Learn from vectors `(n, d)`; returns itself."""
        ...

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Vectors `(n, d)` to codes `(n, b)` uint8."""
        ...

    def inverse_transform(self, codes: np.ndarray) -> np.ndarray:
        """Codes `(n, b)` to the float32 vectors `(n, d)` they stand for."""
        ...

    @property
    def bytes_per_vector(self) -> int:
        """b, with norms and factors kept per vector; what all vectors share is not in it."""
        ...

    def scorer(self, queries: np.ndarray) -> Scorer:
        """Queries `(q, d)` to a function from codes `(m, b)` to asymmetric scores `(q, m)` float32."""
        ...


class Scorer(Protocol):
    """Codes `(m, b)` to scores `(q, m)` float32 against the queries it was made for."""

    def __call__(self, codes: np.ndarray) -> np.ndarray: ...


class Progress(Protocol):
    """Called with items done and the total (None while unknown); returning False asks to stop cleanly."""

    def __call__(self, done: int, total: int | None) -> bool | None: ...


@dataclass(frozen=True)
class Hit:
    """One found record: id, score (higher is closer) and its attributes."""

    id: str
    score: float
    record: dict[str, Any] = field(default_factory=dict)
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True)
class SearchResult:
    """Answer to one query.

    Attributes:
        query: what was asked (text, or a description of a vector or image query).
        hits: best first.
        total: records that match the filter (vector, hybrid) or filter and words (text).
        plan: which strategy ran, with what each stage cost.
        milliseconds: wall time inside the collection.
    """

    query: str | None
    hits: list[Hit]
    total: int
    plan: dict[str, Any]
    milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of `isometry search --json` and of the server."""
        hits = []
        for hit in self.hits:
            row: dict[str, Any] = {"id": hit.id, "score": hit.score, "record": hit.record}
            if hit.explanation is not None:
                row["explanation"] = hit.explanation
            hits.append(row)
        return {
            "query": self.query,
            "hits": hits,
            "total": self.total,
            "plan": self.plan,
            "milliseconds": round(self.milliseconds, 3),
        }

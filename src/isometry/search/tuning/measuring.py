"""Recall, latency, memory and disk of candidates, on one set of records and queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from isometry.search.building import fit_sample
from isometry.search.indexes import AdaptiveIndex, CodeIndex, FlatIndex
from isometry.search.plan import SearchPlan
from isometry.search.tuning.candidates import Candidate

ROUNDS = 3
ROW_BYTES = (
    9  # what a collection holds in memory for every record besides an index: its row number, and whether it lives
)


@dataclass(frozen=True)
class Measured:
    """What one candidate gave.

    Attributes:
        rows, queries: it was measured on.
        recall: mean share of the exact k best, with its 95 % interval.
        p50_ms, p95_ms: of encoding and searching one query; search_p50_ms, search_p95_ms: without the encoding.
        bytes_per_vector: of the index in memory, codebooks included.
        ram_mb, disk_mb: of the whole collection.
        build_seconds: processor time to build it (for all records that were measured).
    """

    candidate: Candidate
    rows: int
    queries: int
    recall: float
    interval: tuple[float, float]
    p50_ms: float
    p95_ms: float
    search_p50_ms: float
    search_p95_ms: float
    bytes_per_vector: float
    ram_mb: float
    disk_mb: float
    build_seconds: float

    def to_dict(self) -> dict[str, Any]:
        found = {**vars(self), "candidate": self.candidate.to_dict(), "interval": list(self.interval)}
        return {"label": self.candidate.label, **found}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Measured:
        values = {name: value for name, value in content.items() if name != "label"}
        candidate = Candidate.from_dict(values["candidate"])
        return cls(**{**values, "candidate": candidate, "interval": tuple(values["interval"])})


@dataclass(frozen=True)
class Bench:
    """What candidates of one cut of the encoder are measured on.

    Args:
        vectors: float32 `(n, d)` as this cut makes them.
        queries: `(q, d)`.
        truth: rows `(q, k)` of the exact best by the collection's own vectors.
        encode_ms: `(q,)` milliseconds to encode each query, zeros for given vectors.
        records: of the whole collection, which sizes are scaled to.
        other_bytes: on disk besides vectors and index.
    """

    vectors: np.ndarray
    queries: np.ndarray
    truth: np.ndarray
    encode_ms: np.ndarray
    records: int
    other_bytes: int

    def measure(self, chosen: Sequence[Candidate]) -> list[Measured]:
        """Candidates that share what has to be built, which is built once."""
        began = time.process_time()
        made = _build(chosen[0].plan, self.vectors)
        spent = time.process_time() - began
        return [self._one(candidate, _set(made, candidate.plan), spent) for candidate in chosen]

    def _one(self, candidate: Candidate, index: Any, build_seconds: float) -> Measured:
        n, k = len(self.vectors), self.truth.shape[1]
        memo: dict[str, Any] = {}
        options = {"memo": memo} if isinstance(index, AdaptiveIndex) else {}
        found = np.empty_like(self.truth)
        spent = np.empty((ROUNDS, len(self.queries)))
        index.search_with_plan(self.queries[:1], k, None, **options)
        for turn in range(ROUNDS):
            for number in range(len(self.queries)):
                began = time.perf_counter()
                _, rows, _ = index.search_with_plan(self.queries[number : number + 1], k, None, **options)
                spent[turn, number] = 1000 * (time.perf_counter() - began)
                found[number] = rows[0]
        search = np.median(spent, axis=0)
        whole = search + self.encode_ms
        each = np.array([len(np.intersect1d(a, b)) / k for a, b in zip(found, self.truth, strict=True)])
        compressor = getattr(index, "compressor", None)
        shared = int(getattr(compressor, "shared_bytes", 0))
        held = sum(array.nbytes for array in index.arrays().values())
        kept = 0 if isinstance(index, FlatIndex) else shared + held / n * self.records
        memory = shared + index.bytes_in_memory / n * self.records
        disk = self.other_bytes + self.records * (4 * self.vectors.shape[1] + 8) + kept
        p50, p95, search_p50, search_p95 = (
            round(float(np.quantile(times, share)), 4) for times in (whole, search) for share in (0.5, 0.95)
        )
        return Measured(
            candidate, n, len(self.queries), float(each.mean()), _interval(each), p50, p95, search_p50, search_p95,
            round(memory / self.records, 2), (memory + ROW_BYTES * self.records) / 1e6, disk / 1e6,
            round(build_seconds, 3),
        )  # fmt: skip


def exact_best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows `(q, k)` of float32 brute force."""
    return FlatIndex().build(vectors).search(queries, k)[1]


def encoding_times(encode: Callable[[list[str]], np.ndarray], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `(q, d)` of queries encoded one by one, as they come in, and the milliseconds that each took `(q,)`."""
    encode([texts[0]])
    vectors, spent = [], np.empty(len(texts))
    for number, text in enumerate(texts):
        began = time.perf_counter()
        vectors.append(encode([text])[0])
        spent[number] = 1000 * (time.perf_counter() - began)
    return np.ascontiguousarray(vectors, np.float32), spent


def _build(plan: SearchPlan, vectors: np.ndarray) -> Any:
    if plan.index == "exact":
        return FlatIndex().build(vectors)
    if plan.code is not None:
        return CodeIndex(clone(plan.code).fit(fit_sample([vectors], plan.fit_rows))).build(vectors)
    links = plan.links if plan.index == "graph" else 0
    return AdaptiveIndex(links=links, build_breadth=plan.build_breadth, cells=plan.cells, recall=plan.recall).build(
        vectors
    )


def _set(index: Any, plan: SearchPlan) -> Any:
    """What was built, with the plan's search parameters."""
    if isinstance(index, CodeIndex):
        index.shortlist = plan.shortlist
    elif isinstance(index, AdaptiveIndex) and index.recall != plan.recall:
        return index.aimed(plan.recall)
    return index


def _interval(each: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over queries, with a fixed seed."""
    draw = np.random.default_rng(0).integers(len(each), size=(1000, len(each)))
    low, high = np.quantile(each[draw].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)

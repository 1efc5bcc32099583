"""A retrieval run with its intervals, and two runs compared query by query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.evaluation.metrics import RetrievalScores
from isometry.evaluation.statistics import Comparison, bootstrap_interval, holm, paired_bootstrap


@dataclass(frozen=True)
class RetrievalResult:
    """One system on one data set.

    Attributes:
        name: the system.
        data: the data set and split.
        scores: values per query.
        intervals: metric to (mean, low, high), 95 % bootstrap over queries.
    """

    name: str
    data: str
    scores: RetrievalScores
    intervals: dict[str, tuple[float, float, float]]

    @classmethod
    def of(cls, name: str, data: str, scores: RetrievalScores, seed: int = 0) -> RetrievalResult:
        """Intervals over queries; a single query has none, and its value stands for both ends."""
        names = list(scores.values)
        values = np.stack([scores.values[metric] for metric in names], axis=1)
        if len(values) == 1:
            mean = low = high = values[0]
        else:
            mean, low, high = bootstrap_interval(values, seed)
        intervals = {metric: (float(mean[i]), float(low[i]), float(high[i])) for i, metric in enumerate(names)}
        return cls(name, data, scores, intervals)

    def to_dict(self) -> dict[str, Any]:
        """The 'metrics' part of the `eval` JSON and what belongs to it."""
        return {
            "metrics": {
                name: {"value": mean, "interval": [low, high]} for name, (mean, low, high) in self.intervals.items()
            },
            "queries": len(self.scores.queries),
            "queries_without_relevant": self.scores.left_out,
            "unjudged@10": self.scores.unjudged,
        }


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two runs: effect = first minus second, with p corrected over the metrics by Holm."""

    metric: str
    comparison: Comparison
    p_holm: float

    def to_dict(self) -> dict[str, Any]:
        effect, low, high, p = self.comparison
        return {"effect": effect, "interval": [low, high], "p": p, "p_holm": self.p_holm}


def compare_runs(first: RetrievalResult, second: RetrievalResult, seed: int = 0) -> list[MetricComparison]:
    """Paired tests of every metric that both have, over the same queries.

    Raises:
        InputError: other queries, or no metric in common, or fewer than 2 queries.
    """
    if first.scores.queries != second.scores.queries:
        raise InputError(
            f"'{first.name}' and '{second.name}' were judged on other queries: a paired test needs the same"
        )
    shared = [metric for metric in first.scores.values if metric in second.scores.values]
    if not shared or len(first.scores.queries) < 2:
        raise InputError("a paired test needs a metric in common and at least 2 queries")
    found = [paired_bootstrap(first.scores.values[name], second.scores.values[name], seed) for name in shared]
    corrected = holm([one.p for one in found])
    return [MetricComparison(*row) for row in zip(shared, found, corrected, strict=True)]


def exact_rankings(queries: np.ndarray, batches: Iterable[tuple[Sequence[str], np.ndarray]], k: int) -> list[list[str]]:
    """The k closest documents of each query by cosine, over documents that come in batches.

    Args:
        queries: `(q, d)`.
        batches: (ids, vectors `(b, d)`); only the best k per query are kept from batch to batch.
    Returns:
        q lists of at most k ids, best first, equal scores in the order of the documents.
    """
    unit = _unit(queries)
    scores = np.empty((len(unit), 0), dtype=np.float32)
    rows = np.empty((len(unit), 0), dtype=np.int64)
    ids: list[str] = []
    for names, vectors in batches:
        if np.shape(vectors) != (len(names), unit.shape[1]):
            raise ShapeError(
                f"{len(names)} documents have vectors of shape {np.shape(vectors)}, not (., {unit.shape[1]})"
            )
        new = unit @ _unit(vectors).T
        places = np.broadcast_to(np.arange(len(ids), len(ids) + len(names)), new.shape)
        ids.extend(names)
        scores, rows = np.concatenate([scores, new], axis=1), np.concatenate([rows, places], axis=1)
        # rows rise from left to right, so a stable sort leaves equal scores in the order of the documents
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return [[ids[row] for row in line] for line in rows]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ShapeError(f"finite vectors of shape (n, d) are needed, not {vectors.shape}")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)

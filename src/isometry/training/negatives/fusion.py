"""Teacher scores for candidate lists: BM25 beside dense similarities, fused.

Paper 42's teacher is such a pipeline with a reranker behind it; any scorer's numbers can be fused the same way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from isometry.errors import ShapeError


class Bm25:
    """Okapi BM25 over lower-cased words: IDF * f (k1 + 1) / (f + k1 (1 - b + b len / mean len)).

    IDF = ln(1 + (n - df + .5) / (df + .5)), never negative.
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        self.k1, self.b = k1, b
        counts = [Counter(_words(text)) for text in documents]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        mean = lengths.mean() if len(lengths) else 1.0
        self._norm = k1 * (1 - b + b * lengths / max(mean, 1e-9))
        self._rows: dict[str, list[int]] = {}
        self._frequencies: dict[str, list[int]] = {}
        for row, count in enumerate(counts):
            for word, frequency in count.items():
                self._rows.setdefault(word, []).append(row)
                self._frequencies.setdefault(word, []).append(frequency)
        self._size = len(counts)

    def scores(self, query: str) -> np.ndarray:
        """One query to scores of all documents `(n,)` float32; a word the query repeats counts each time."""
        total = np.zeros(self._size)
        for word in _words(query):
            rows = self._rows.get(word)
            if rows is None:
                continue
            frequency = np.array(self._frequencies[word], dtype=np.float64)
            idf = math.log(1 + (self._size - len(rows) + 0.5) / (len(rows) + 0.5))
            total[rows] += idf * frequency * (self.k1 + 1) / (frequency + self._norm[rows])
        return total.astype(np.float32)


def reciprocal_rank_fusion(*scores: np.ndarray, constant: float = 60.0) -> np.ndarray:
    """Score matrices `(q, n)` of several systems to sum over systems of 1 / (constant + rank), rank from 1."""
    _check_shapes(scores)
    total = np.zeros(scores[0].shape)
    for matrix in scores:
        order = np.argsort(-matrix, axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, matrix.shape[1] + 1)[None, :], axis=1)
        total += 1.0 / (constant + ranks)
    return total.astype(np.float32)


def standardised_sum(*scores: np.ndarray) -> np.ndarray:
    """Score matrices `(q, n)` to the mean of their z-scores per query: teachers differ in scale."""
    _check_shapes(scores)
    total = np.zeros(scores[0].shape)
    for matrix in scores:
        centred = matrix - matrix.mean(axis=1, keepdims=True)
        total += centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9)
    return (total / len(scores)).astype(np.float32)


def _check_shapes(scores: Sequence[np.ndarray]) -> None:
    if not scores or any(matrix.ndim != 2 or matrix.shape != scores[0].shape for matrix in scores):
        raise ShapeError(f"fusion takes score matrices of one shape (q, n); got {[m.shape for m in scores]}")


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()

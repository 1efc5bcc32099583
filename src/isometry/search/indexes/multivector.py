"""Several vectors for each item: exact MaxSim, or candidates by one-vector encodings and exact scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.compression import FixedDimensionalEncoding
from isometry.compression.fixed_dimensional import check_tokens
from isometry.errors import InputError, ShapeError
from isometry.search.indexes._inputs import check_allowed
from isometry.search.indexes.flat import FlatIndex
from isometry.search.kernels.exact import top_k
from isometry.search.kernels.maxsim import carve, max_similarity


class MultiVectorIndex:
    """Top-k items by the sum over query tokens of the best inner product with the item's tokens.

    Without an encoding every allowed item is scored: exact. With one (paper 32), an inner product search over the
    items' fixed dimensional encodings gives `shortlist` candidates, which are scored exactly.

    Args:
        encoding: fitted FixedDimensionalEncoding, or None for exact search.
        shortlist: candidates scored exactly, at least k.
        carving: cosine above which query tokens are merged before candidates are scored (0.7 in the paper); None keeps
        all
            and keeps scores exact.
        candidates: an index over encodings, by default exact `FlatIndex`.
    """

    def __init__(
        self,
        encoding: FixedDimensionalEncoding | None = None,
        *,
        shortlist: int = 200,
        carving: float | None = None,
        candidates: Any = None,
    ) -> None:
        if shortlist < 1:
            raise InputError(f"shortlist is {shortlist}; give at least 1.")
        self.encoding = encoding
        self.shortlist = shortlist
        self.carving = carving
        self.candidates = candidates if candidates is not None else FlatIndex()
        self.last_plan: dict[str, Any] = {}

    def build(self, values: np.ndarray, offsets: np.ndarray) -> MultiVectorIndex:
        """Take token vectors (sum t_i, d) float32 with offsets (n + 1). Raises: ShapeError."""
        if values.ndim != 2:
            raise ShapeError(f"token vectors have shape {values.shape}; give (tokens, dimension).")
        self._values, self._offsets = check_tokens(values, offsets, values.shape[1])
        if self.encoding is not None:
            self.candidates.build(self.encoding.encode_documents(self._values, self._offsets))
        return self

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def search(
        self, values: np.ndarray, offsets: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries as (token vectors, offsets (q + 1)) to (scores (q, k) float32, rows (q, k) int64), best first."""
        if k < 1:
            raise InputError(f"k is {k!r}; ask for at least 1 result.")
        values, offsets = check_tokens(values, offsets, self._values.shape[1])
        allowed = check_allowed(allowed, len(self))
        rows_allowed = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        wanted = max(k, self.shortlist)
        narrowed = self.encoding is not None and len(rows_allowed) > wanted
        if narrowed and self.encoding is not None:
            _, found = self.candidates.search(self.encoding.encode_queries(values, offsets), wanted, allowed)
        count = len(offsets) - 1
        scores, rows = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
        scored = 0
        for i in range(count):
            query = values[offsets[i] : offsets[i + 1]]
            chosen = np.sort(found[i][found[i] >= 0]) if narrowed else rows_allowed
            if len(query) == 0 or len(chosen) == 0:
                continue
            tokens, local = self._gathered(chosen)
            asked = query if self.carving is None else carve(query, self.carving)
            best = max_similarity(asked, tokens, local)
            full = best > -np.inf
            scores[i], rows[i] = top_k(best[full], chosen[full], k)
            scored += len(chosen)
        self.last_plan = {"stage": "encodings" if narrowed else "all items", "candidates": scored}
        return scores, rows

    def _gathered(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and offsets of ascending `rows`."""
        if len(rows) == len(self):
            return self._values, self._offsets
        sizes = self._offsets[rows + 1] - self._offsets[rows]
        local = np.concatenate([[0], np.cumsum(sizes)])
        at = np.repeat(self._offsets[rows] - local[:-1], sizes) + np.arange(local[-1])
        return self._values[at], local

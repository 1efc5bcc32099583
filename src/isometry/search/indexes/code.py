"""Codes in memory, float vectors on disk: coarse scan, shortlist, exact scores (the serving of paper 19)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.compression import CodeEstimator, ContrastivePQ, ProductQuantizer, RecurrentBinary, SignBinarizer
from isometry.errors import InputError, ShapeError
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.kernels.exact import exact_scorer, top_k

_BLOCK = 8192
_QUERY_PLANES = 4


class CodeIndex:
    """Approximate top-k: codes are scanned in memory, the best `shortlist` rows are scored exactly from the floats.

    Bit codes (`SignBinarizer`, `RecurrentBinary`) go through the bit-counting kernels with the query rounded to four
    signed planes, product codes of one byte a part through table look-ups, any other fitted compressor through its own
    `scorer`, block by block. Scores are those of `FlatIndex`; only which rows reach the shortlist is approximate.

    Args:
        compressor: a fitted compressor of `isometry.compression`.
        shortlist: rows scored exactly for each query, at least k.

    Attributes:
        last_plan: stage, rows scanned, candidates, bytes touched in memory and on disk.
    """

    def __init__(self, compressor: CodeEstimator, *, shortlist: int = 100) -> None:
        if shortlist < 1:
            raise InputError(f"shortlist is {shortlist}; give at least 1.")
        self.compressor = compressor
        self.shortlist = shortlist
        self.last_plan: dict[str, Any] = {}
        self._arrays: list[np.ndarray] = []
        self._starts = np.zeros(1, np.int64)
        self._codes = np.empty((0, 0), np.uint8)
        self._blocks: np.ndarray | None = None
        self._inverse = np.empty(0, np.float32)

    def build(self, vectors: np.ndarray | Sequence[np.ndarray]) -> CodeIndex:
        """Code float32 vectors (n, d), or a list of such arrays as consecutive rows; the arrays are kept, not copied."""
        arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
        for array in arrays:
            if array.ndim != 2 or array.dtype != np.float32 or array.shape[1] != self.compressor.n_features_in_:
                expected = f"float32 (n, {self.compressor.n_features_in_})"
                raise ShapeError(f"vectors are {array.dtype} of shape {array.shape}; this code takes {expected}.")
        self._arrays = arrays
        self._starts = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
        parts = [self.compressor.transform(a[at : at + _BLOCK]) for a in arrays for at in range(0, len(a), _BLOCK)]
        width = self.compressor.bytes_per_vector
        self._codes = np.concatenate(parts) if parts else np.empty((0, width), np.uint8)
        if isinstance(self.compressor, (SignBinarizer, RecurrentBinary)):
            self._blocks, self._inverse = self._bit_layout(self._codes)
            self._codes = self._codes[:0]
        return self

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of codes and norms; the compressor's own tables are its `shared_bytes`."""
        blocks = 0 if self._blocks is None else self._blocks.nbytes
        return self._codes.nbytes + blocks + self._inverse.nbytes

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        queries = check_queries(queries, self.compressor.n_features_in_, k)
        allowed = check_allowed(allowed, len(self))
        matches = len(self) if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(max(k, self.shortlist), matches)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if wanted == 0 or len(queries) == 0:
            self.last_plan = {"stage": "none", "matches": matches, "scanned": 0, "candidates": 0, "bytes": 0}
            return scores, rows
        if wanted == matches:
            everything = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            found, stage, scanned = np.broadcast_to(everything, (len(queries), matches)), "float32 rows", 0
        elif self._blocks is not None:
            found, scanned = self._bit_stage(queries, wanted, allowed, matches)
            stage = "bit scan"
        elif self._is_product():
            found, stage, scanned = self._product_stage(queries, wanted, allowed), "product code scan", len(self)
        else:
            found, stage, scanned = self._scorer_stage(queries, wanted, allowed), "decoded scan", len(self)
        score = exact_scorer()
        for i, query in enumerate(queries):
            chosen = np.sort(found[i][found[i] >= 0])
            exact = np.empty(len(chosen), np.float32)
            for array, start, stop in zip(self._arrays, self._starts, self._starts[1:], strict=False):
                low, high = np.searchsorted(chosen, (start, stop))
                if high > low:
                    score(array, chosen[low:high] - start, query, exact[low:high])
            scores[i], rows[i] = top_k(exact, chosen, k)
        floats = len(queries) * wanted
        width = self.compressor.bytes_per_vector
        self.last_plan = {
            "stage": stage, "matches": matches, "scanned": scanned, "candidates": floats,
            "bytes": scanned * width + floats * queries.shape[1] * 4,
        }  # fmt: skip
        return scores, rows

    def _bit_layout(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from isometry.search.kernels.bits import block_layout, query_words

        if isinstance(self.compressor, RecurrentBinary):
            planes, inverse = self.compressor.planes(codes)
        else:
            planes, inverse = codes[:, None], np.ones(len(codes), np.float32)
        words = query_words(np.ascontiguousarray(planes).reshape(-1, planes.shape[2]))
        return block_layout(np.ascontiguousarray(words).reshape(len(codes), -1).view(np.uint8)), inverse

    def _bit_stage(
        self, queries: np.ndarray, wanted: int, allowed: np.ndarray | None, matches: int
    ) -> tuple[np.ndarray, int]:
        from isometry.search.kernels.bits import block_layout, plane_top, query_planes, query_words

        assert isinstance(self.compressor, (SignBinarizer, RecurrentBinary)) and self._blocks is not None
        planes = self.compressor.loops + 1 if isinstance(self.compressor, RecurrentBinary) else 1
        values = self.compressor.query_values(queries)
        packed, _ = query_planes(values, _QUERY_PLANES)
        asked = query_words(packed.reshape(-1, packed.shape[2])).reshape(len(queries), _QUERY_PLANES, -1)
        rows, scores = np.empty((len(queries), wanted), np.int64), np.empty((len(queries), wanted), np.float32)
        blocks, inverse, n = self._blocks, self._inverse, len(self)
        mask, masked, chosen = np.ones(1, bool), False, None
        if allowed is not None and 16 * matches < n:
            # So few that copying their codes together costs less than passing over all.
            chosen = np.flatnonzero(allowed)
            strips = blocks[chosen // 64, chosen % 64 // 8, :, chosen % 8]
            blocks, inverse, n = block_layout(np.ascontiguousarray(strips).view(np.uint8)), inverse[chosen], len(chosen)
        elif allowed is not None:
            mask, masked = allowed, True
        plane_top(blocks, n, planes, asked, values.shape[1], inverse, mask, masked, rows, scores)
        return (rows if chosen is None else chosen[rows]), n

    def _product_stage(self, queries: np.ndarray, wanted: int, allowed: np.ndarray | None) -> np.ndarray:
        from isometry.search.kernels.tables import table_top

        assert isinstance(self.compressor, (ProductQuantizer, ContrastivePQ))
        centroids = self.compressor.centroids_
        turned = self.compressor.turned(queries).reshape(len(queries), len(centroids), -1)
        tables = np.ascontiguousarray(np.einsum("qpw,pcw->qpc", turned, centroids), dtype=np.float32)
        rows, scores = np.empty((len(queries), wanted), np.int64), np.empty((len(queries), wanted), np.float32)
        mask = np.ones(1, bool) if allowed is None else allowed
        table_top(self._codes, tables, mask, allowed is not None, rows, scores)
        return rows

    def _is_product(self) -> bool:
        """Whether codes are one byte a part, read by the table kernel."""
        code = self.compressor
        return isinstance(code, ContrastivePQ) or (isinstance(code, ProductQuantizer) and code.bits == 8)

    def _scorer_stage(self, queries: np.ndarray, wanted: int, allowed: np.ndarray | None) -> np.ndarray:
        score = self.compressor.scorer(queries)
        best = np.full((len(queries), wanted), -np.inf, np.float32)
        rows = np.full((len(queries), wanted), -1, np.int64)
        for at in range(0, len(self), _BLOCK):
            scores = score(self._codes[at : at + _BLOCK])
            if allowed is not None:
                scores = np.where(allowed[at : at + _BLOCK], scores, -np.inf)
            ids = np.broadcast_to(np.arange(at, at + scores.shape[1]), scores.shape)
            best, rows = np.concatenate([best, scores], axis=1), np.concatenate([rows, ids], axis=1)
            order = np.argpartition(-best, wanted - 1, axis=1)[:, :wanted]
            best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
        return np.where(np.isneginf(best), -1, rows)

"""Candidates by inner product with long vectors of which only a small code is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.compression import CodeEstimator, ProductQuantizer, SignBinarizer
from isometry.errors import ShapeError
from isometry.search.indexes._inputs import check_allowed, check_queries

_BLOCK = 4096


class EncodingScan:
    """Approximate top-k over vectors that are not kept: the candidates of `MultiVectorIndex`.

    Without a code every vector becomes int8 with a scale of its own (d + 4 bytes), read at memory speed. With a fitted
    `SignBinarizer(rotate=False)` (one bit for a coordinate) or `ProductQuantizer` (PQ-256-8 in paper 32: one byte for
    eight coordinates) its codes are scanned. Scores are those of the codes, up to a constant for each query.

    Args:
        code: a fitted compressor of `isometry.compression`, or None for int8.
    """

    def __init__(self, code: CodeEstimator | None = None) -> None:
        self.code = code
        self.last_plan: dict[str, Any] = {}
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts = np.zeros(1, np.int64)
        self._dimension = 0
        self._blocks: list[np.ndarray] = []

    def coded(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (n, d) float32 to (codes (n, b), scale (n,) float32): what `restore` takes."""
        if self.code is not None:
            return self.code.transform(vectors), np.ones(len(vectors), np.float32)
        from isometry.search.kernels.int8 import quantise

        codes = np.empty(vectors.shape, np.int8)
        scale, bound, length = (np.empty(len(vectors), np.float32) for _ in range(3))
        bad = quantise(np.ascontiguousarray(vectors, np.float32), codes, scale, bound, length)
        if bad >= 0:
            raise ShapeError(f"vector {bad} holds NaN or infinity; encode it again.")
        return codes, scale

    def build(self, vectors: np.ndarray) -> EncodingScan:
        """Code vectors (n, d); they are not kept."""
        return self.restore([self.coded(vectors)], vectors.shape[1])

    def restore(self, parts: Sequence[tuple[np.ndarray, np.ndarray]], dimension: int) -> EncodingScan:
        """Take codes with their scales as consecutive rows; they are kept, not copied, and may be memory-mapped."""
        self._parts, self._dimension = list(parts), dimension
        self._blocks = []
        self._starts = np.concatenate([[0], np.cumsum([len(codes) for codes, _ in parts])]).astype(np.int64)
        if isinstance(self.code, SignBinarizer):
            from isometry.search.kernels.nibbles import nibble_layout

            self._blocks = [nibble_layout(codes) for codes, _ in parts]
            self._parts = [(codes[:0], scale[:0]) for codes, scale in parts]
        return self

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of codes and scales."""
        return sum(codes.nbytes + scale.nbytes for codes, scale in self._parts) + sum(
            blocks.nbytes for blocks in self._blocks
        )

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        queries = check_queries(queries, self._dimension, k)
        allowed = check_allowed(allowed, len(self))
        chosen = np.flatnonzero(allowed) if allowed is not None else None
        rows = np.full((len(queries), k), -1, np.int64)
        best = np.full((len(queries), k), -np.inf, np.float32)
        ids = chosen if chosen is not None else np.arange(len(self))
        for i, query in enumerate(queries):
            if self._blocks:
                found, sums = self._bit_top(query, min(k, len(ids)), allowed, chosen)
                rows[i, : len(found)], best[i, : len(found)] = found, sums
                continue
            scores = self._scores(query, chosen)
            kept = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else np.arange(len(scores))
            kept = kept[np.lexsort((ids[kept], -scores[kept]))]
            rows[i, : len(kept)], best[i, : len(kept)] = ids[kept], scores[kept]
        read = len(queries) * len(ids)
        width = 0 if not self._parts else self._blocks[0].shape[1] // 2 if self._blocks else self._parts[0][0].shape[1]
        self.last_plan = {"stage": "encoding scan", "scanned": read, "bytes": read * (width + 4)}
        return best, rows

    def _bit_top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None, chosen: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows by sums over four bits at a time."""
        from isometry.search.kernels import nibbles

        assert isinstance(self.code, SignBinarizer)
        weights = self.code.query_values(query[None, :])
        weights = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 8)))
        tables = nibbles.nibble_tables(nibbles.sign_entries(weights))
        few = chosen is not None and 16 * len(chosen) < len(self)
        found, scores, ones = [], [], nibbles.row_factors(None)
        for blocks, start, stop in zip(self._blocks, self._starts, self._starts[1:], strict=False):
            n, inside, mask = int(stop - start), None, np.ones(1, bool)
            if few and chosen is not None:  # copying their codes together costs less than passing over all
                low, high = np.searchsorted(chosen, (start, stop))
                inside, n = chosen[low:high] - start, int(high - low)
                blocks = nibbles.nibble_layout(nibbles.nibble_rows(blocks, inside))
            elif allowed is not None:
                mask = allowed[start:stop]
            if n == 0:
                continue
            rows, sums = np.empty((1, k), np.int64), np.empty((1, k), np.float32)
            nibbles.nibble_top(blocks, n, *tables, ones, mask, len(mask) > 1 or not mask[0], rows, sums)
            rows, sums = rows[0][rows[0] >= 0], sums[0][rows[0] >= 0]
            found.append((rows if inside is None else inside[rows]) + start)
            scores.append(sums)
        every, sums = (
            np.concatenate([*found, np.empty(0, np.int64)]),
            np.concatenate([*scores, np.empty(0, np.float32)]),
        )
        order = np.lexsort((every, -sums))[:k]
        return every[order], sums[order]

    def _scores(self, query: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """Of all rows, or of the ascending `chosen` ones."""
        found = []
        score = None if self.code is None else self._code_scorer(query)
        for (codes, scale), start in zip(self._parts, self._starts, strict=False):
            inside = None
            if chosen is not None:
                low, high = np.searchsorted(chosen, (start, start + len(codes)))
                inside = chosen[low:high] - start
            if score is not None:
                found.append(score(codes if inside is None else codes[inside]))
                continue
            from isometry.search.kernels.int8 import approximate, approximate_rows

            out = np.empty(len(codes) if inside is None else len(inside), np.float32)
            if inside is None:
                approximate(codes, query, 0, len(codes), out)
            else:
                approximate_rows(codes, query, inside, out)
            found.append(out * (scale if inside is None else scale[inside]))
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def _code_scorer(self, query: np.ndarray) -> Any:
        code = self.code
        assert code is not None
        if isinstance(code, ProductQuantizer) and code.bits == 8:
            from isometry.search.kernels.tables import table_scores

            tables = code.tables(query[None, :])[0]

            def look_up(codes: np.ndarray) -> np.ndarray:
                out = np.empty(len(codes), np.float32)
                table_scores(np.ascontiguousarray(codes), tables, out)
                return out

            return look_up
        scorer = code.scorer(query[None, :])

        def blocked(codes: np.ndarray) -> np.ndarray:
            parts = [scorer(codes[at : at + _BLOCK])[0] for at in range(0, len(codes), _BLOCK)]
            return np.concatenate(parts) if parts else np.empty(0, np.float32)

        return blocked

"""Codes in memory, float vectors on disk: coarse scan, shortlist, exact scores (the serving of paper 19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isometry.compression import CodeEstimator, ContrastivePQ, ProductQuantizer, RecurrentBinary, SignBinarizer
from isometry.errors import InputError, ShapeError
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.kernels.exact import exact_scorer, top_k

_BLOCK = 8192


class CodeIndex:
    """Approximate top-k: codes are scanned in memory, the best `shortlist` rows are scored exactly from the floats.

    Bit codes (`SignBinarizer`, `RecurrentBinary`) and product codes of 4 bits are scanned as 4-bit digits looked up in
    registers (`kernels.nibbles`), product codes of one byte a part through tables in memory, any other fitted compressor
    through its own `scorer`, block by block; queries stay floats in all of them, up to the rounding of the tables.
    Scores are those of `FlatIndex`; only which rows reach the shortlist is approximate. With `fine` vectors the two stages
    have an embedding each (paper 19): codes choose candidates, the fine vectors order them.

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
        self._factor = np.empty(0, np.uint16)
        self._fine = False

    def build(
        self, vectors: np.ndarray | Sequence[np.ndarray], fine: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> CodeIndex:
        """Code float32 vectors (n, d), or a list of such arrays as consecutive rows; the arrays are kept, not copied.

        `fine` (n, f), likewise: what candidates are scored by, None for the vectors themselves. It may be memory-mapped:
        a search reads the rows of its shortlist only. The coded vectors are then not kept.
        """
        arrays = self._attach(vectors, fine)
        parts = [self.compressor.transform(a[at : at + _BLOCK]) for a in arrays for at in range(0, len(a), _BLOCK)]
        width = self.compressor.bytes_per_vector
        self._codes = np.concatenate(parts) if parts else np.empty((0, width), np.uint8)
        if self._digits():
            from isometry.search.kernels.nibbles import nibble_layout, row_factors

            factor = self.compressor.planes(self._codes)[1] if isinstance(self.compressor, RecurrentBinary) else None
            digits = self._codes[:, :-2] if factor is not None else self._codes
            self._blocks, self._factor = nibble_layout(digits), row_factors(factor)
            self._codes = self._codes[:0]
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` takes: the codes as they are searched."""
        if self._blocks is None:
            return {"codes": self._codes}
        return {"blocks": self._blocks, "factor": self._factor}

    def restore(
        self,
        vectors: np.ndarray | Sequence[np.ndarray],
        arrays: Mapping[str, np.ndarray],
        fine: np.ndarray | Sequence[np.ndarray] | None = None,
    ) -> CodeIndex:
        """As `build` on the same vectors, with the codes it made then, which may be memory-mapped."""
        self._attach(vectors, fine)
        self._blocks, self._factor = arrays.get("blocks"), arrays.get("factor", self._factor)
        self._codes = arrays.get("codes", self._codes)
        return self

    def _attach(
        self, vectors: np.ndarray | Sequence[np.ndarray], fine: np.ndarray | Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        arrays = _listed(vectors, self.compressor.n_features_in_, "vectors are", "this code takes")
        self._arrays = arrays
        if fine is not None:
            parts = [fine] if isinstance(fine, np.ndarray) else list(fine)
            width = parts[0].shape[-1] if parts else 0
            self._arrays = _listed(parts, width, "fine vectors are", "all of them must be")
            if sum(map(len, self._arrays)) != sum(map(len, arrays)):
                raise ShapeError(f"{sum(map(len, self._arrays))} fine vectors for {sum(map(len, arrays))} coded ones.")
        self._fine = fine is not None
        self._starts = np.concatenate([[0], np.cumsum([len(array) for array in self._arrays])]).astype(np.int64)
        return arrays

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of codes and norms; the compressor's own tables are its `shared_bytes`."""
        blocks = 0 if self._blocks is None else self._blocks.nbytes
        return self._codes.nbytes + blocks + self._factor.nbytes

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, *, fine: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1.

        `fine` (q, f): the same queries as the fine vectors want them; needed where the index has fine vectors.
        """
        scores, rows, self.last_plan = self.search_with_plan(queries, k, allowed, fine=fine)
        return scores, rows

    def search_with_plan(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, *, fine: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """As `search`, with what ran; several threads may call it at once."""
        queries = check_queries(queries, self.compressor.n_features_in_, k)
        if (fine is not None) != self._fine:
            raise InputError("fine queries and fine vectors go together: give both or neither.")
        scored = queries
        if fine is not None:
            scored = check_queries(fine, self._arrays[0].shape[1], k)
            if len(scored) != len(queries):
                raise ShapeError(f"{len(scored)} fine queries for {len(queries)} queries; give one each.")
        allowed = check_allowed(allowed, len(self))
        matches = len(self) if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(max(k, self.shortlist), matches)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if wanted == 0 or len(queries) == 0:
            return scores, rows, {"stage": "none", "matches": matches, "scanned": 0, "candidates": 0, "bytes": 0}
        if wanted == matches:
            everything = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            found, stage, scanned = np.broadcast_to(everything, (len(queries), matches)), "float32 rows", 0
        elif self._blocks is not None:
            found, scanned = self._digit_stage(queries, wanted, allowed, matches)
            stage = "digit scan"
        elif self._is_product():
            found, stage, scanned = self._product_stage(queries, wanted, allowed), "product code scan", len(self)
        else:
            found, stage, scanned = self._scorer_stage(queries, wanted, allowed), "decoded scan", len(self)
        score = exact_scorer()
        for i, query in enumerate(scored):
            chosen = np.sort(found[i][found[i] >= 0])
            exact = np.empty(len(chosen), np.float32)
            for array, start, stop in zip(self._arrays, self._starts, self._starts[1:], strict=False):
                low, high = np.searchsorted(chosen, (start, stop))
                if high > low:
                    score(array, chosen[low:high] - start, query, exact[low:high])
            scores[i], rows[i] = top_k(exact, chosen, k)
        floats = len(queries) * wanted
        width = self.compressor.bytes_per_vector
        plan = {
            "stage": stage, "matches": matches, "scanned": scanned, "candidates": floats,
            "bytes": scanned * width + floats * scored.shape[1] * 4,
        }  # fmt: skip
        return scores, rows, plan

    def _digits(self) -> bool:
        """Whether codes are sums over 4-bit digits."""
        code = self.compressor
        return isinstance(code, (SignBinarizer, RecurrentBinary)) or (
            isinstance(code, ProductQuantizer) and code.bits == 4
        )

    def _entries(self, queries: np.ndarray) -> np.ndarray:
        """What each value of each digit adds to the score: (q, digits, 16) float32."""
        from isometry.search.kernels.nibbles import sign_entries

        code = self.compressor
        if isinstance(code, ProductQuantizer):
            turned = code.turned(queries).reshape(len(queries), len(code.centroids_), -1)
            entries = np.einsum("qpw,pcw->qpc", turned, code.centroids_)
            return np.pad(entries, ((0, 0), (0, entries.shape[1] % 2), (0, 0))).astype(np.float32)
        assert isinstance(code, (SignBinarizer, RecurrentBinary))
        weights = code.query_values(queries).reshape(len(queries), -1, _width(code))
        padded = np.pad(weights, ((0, 0), (0, 0), (0, -weights.shape[2] % 8)))
        return sign_entries(padded.reshape(len(queries), -1))

    def _digit_stage(
        self, queries: np.ndarray, wanted: int, allowed: np.ndarray | None, matches: int
    ) -> tuple[np.ndarray, int]:
        from isometry.search.kernels.nibbles import nibble_layout, nibble_rows, nibble_tables, nibble_top, row_factors

        assert self._blocks is not None
        tables, step, base = nibble_tables(self._entries(queries))
        rows, scores = np.empty((len(queries), wanted), np.int64), np.empty((len(queries), wanted), np.float32)
        blocks, factor, n = self._blocks, self._factor, len(self)
        mask, masked, chosen = np.ones(1, bool), False, None
        if allowed is not None and 16 * matches < n:
            # So few that copying their codes together costs less than passing over all.
            chosen = np.flatnonzero(allowed)
            n = len(chosen)
            blocks = nibble_layout(nibble_rows(blocks, chosen))
            if isinstance(self.compressor, RecurrentBinary):
                factor = row_factors(factor.view(np.float16)[chosen])
        elif allowed is not None:
            mask, masked = allowed, True
        nibble_top(blocks, n, tables, step, base, factor, mask, masked, rows, scores)
        return (rows if chosen is None else np.where(rows >= 0, chosen[rows], -1)), n

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


def _listed(vectors: np.ndarray | Sequence[np.ndarray], width: int, what: str, wanted: str) -> list[np.ndarray]:
    """Arrays of float32 rows of that width. Raises: ShapeError."""
    arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    for array in arrays:
        if array.ndim != 2 or array.dtype != np.float32 or array.shape[1] != width:
            raise ShapeError(f"{what} {array.dtype} of shape {array.shape}; {wanted} float32 (n, {width}).")
    return arrays


def _width(code: SignBinarizer | RecurrentBinary) -> int:
    """Bits of one plane."""
    if isinstance(code, SignBinarizer):
        return len(code.magnitude_)
    return code.decoder_.shape[0] // (code.loops + 1)

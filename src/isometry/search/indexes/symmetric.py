"""Recurrent binary codes compared with codes, so that those of older and newer encoders can stand in one index."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.compression import RecurrentBinary
from isometry.errors import InputError
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.kernels.exact import top_k


class SymmetricIndex:
    """Top-k by the cosine of two recurrent binary vectors (paper 18: the symmetric distance). No vectors are kept.

    A scan looks 4-bit digits up in registers (`kernels.nibbles`) and keeps `shortlist` rows, whose cosines are then
    computed exactly from the codes; which rows come that far is approximate by the rounding of the tables. Codes of an
    older `RecurrentBinary` of the same width and loops may stand among them where the newer one was fitted by
    `fit_compatible`.

    Args:
        compressor: the fitted RecurrentBinary that codes the queries.
        shortlist: rows whose cosines are computed exactly, at least k.

    Attributes:
        last_plan: what the latest search did.
    """

    def __init__(self, compressor: RecurrentBinary, *, shortlist: int = 100) -> None:
        if shortlist < 1:
            raise InputError(f"shortlist is {shortlist}; give at least 1.")
        self.compressor = compressor
        self.shortlist = shortlist
        self.last_plan: dict[str, Any] = {}
        self.build_codes(np.empty((0, compressor.bytes_per_vector), np.uint8))

    def build(self, vectors: np.ndarray) -> SymmetricIndex:
        """Code float32 vectors (n, d)."""
        return self.build_codes(self.compressor.transform(vectors))

    def build_codes(self, codes: np.ndarray) -> SymmetricIndex:
        """Take codes (n, bytes_per_vector) uint8. Raises: ShapeError."""
        from isometry.search.kernels.nibbles import nibble_layout, row_factors

        planes, _ = self.compressor.planes(codes)
        lengths = [np.linalg.norm(self._b(planes[at : at + 8192]), axis=1) for at in range(0, len(planes), 8192)]
        self._length = np.concatenate(lengths) if lengths else np.empty(0, np.float32)
        self._blocks = nibble_layout(np.ascontiguousarray(codes[:, :-2]))
        self._factor = row_factors((1 / self._length).astype(np.float16))
        return self

    def __len__(self) -> int:
        return len(self._length)

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the codes and of the lengths of what they stand for; the compressor's tables are `shared_bytes`."""
        return self._blocks.nbytes + self._factor.nbytes + self._length.nbytes

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (cosines (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        from isometry.search.kernels.nibbles import nibble_rows, nibble_tables, nibble_top, sign_entries

        queries = check_queries(queries, self.compressor.n_features_in_, k)
        allowed = check_allowed(allowed, len(self))
        wanted = min(max(k, self.shortlist), len(self) if allowed is None else int(np.count_nonzero(allowed)))
        scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        if wanted and len(queries):
            planes = self.compressor.loops + 1
            asked = self.compressor.values(queries)
            asked /= np.linalg.norm(asked, axis=1, keepdims=True)
            weights = asked[:, None, :] * np.float32(2.0) ** -np.arange(planes, dtype=np.float32)[:, None]
            padded = np.pad(weights, ((0, 0), (0, 0), (0, -asked.shape[1] % 8))).reshape(len(queries), -1)
            found, near = np.empty((len(queries), wanted), np.int64), np.empty((len(queries), wanted), np.float32)
            mask = np.ones(1, bool) if allowed is None else allowed
            tables = nibble_tables(sign_entries(padded))
            nibble_top(self._blocks, len(self), *tables, self._factor, mask, allowed is not None, found, near)
            for i, row in enumerate(found):
                chosen = np.sort(row[row >= 0])
                codes = nibble_rows(self._blocks, chosen).reshape(len(chosen), planes, -1)
                scores[i], rows[i] = top_k(self._b(codes) @ asked[i] / self._length[chosen], chosen, k)
        self.last_plan = {"stage": "symmetric digit scan", "scanned": len(self), "candidates": wanted * len(queries)}
        return scores, rows

    def _b(self, planes: np.ndarray) -> np.ndarray:
        """Bit planes (n, u + 1, bytes) to b (n, m) float32."""
        width = self.compressor.decoder_.shape[0] // planes.shape[1]
        signs = np.unpackbits(np.ascontiguousarray(planes), axis=2, count=width).astype(np.float32) * 2 - 1
        return np.einsum("npm,p->nm", signs, np.float32(2.0) ** -np.arange(planes.shape[1], dtype=np.float32))

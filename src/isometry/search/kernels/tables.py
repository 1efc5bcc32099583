"""Scan over product codes by table look-up, with top-k and filter inside the loop. Needs numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.bits import heap_replace


@njit(nogil=True, cache=True)
def table_top(
    codes: np.ndarray, tables: np.ndarray, allowed: np.ndarray, masked: bool, rows: np.ndarray, scores: np.ndarray
) -> None:
    """Largest sums of table entries; equal sums by lower row.

    codes (n, parts) uint8; tables (q, parts, 256) float32: inner products of each part of a query with the centroids.
    rows, scores (q, k): the answer, in no order, rows -1 and scores -inf where fewer match.
    """
    n, parts = codes.shape
    rows[:] = -1
    scores[:] = -np.inf
    for q in range(len(tables)):
        floor = scores[q, 0]
        for row in range(n):
            if masked and not allowed[row]:
                continue
            a = np.float32(0)
            b = np.float32(0)
            for part in range(0, parts - 1, 2):
                a += tables[q, part, codes[row, part]]
                b += tables[q, part + 1, codes[row, part + 1]]
            if parts % 2:
                a += tables[q, parts - 1, codes[row, parts - 1]]
            if a + b > floor:
                heap_replace(scores[q], rows[q], a + b, row)
                floor = scores[q, 0]


@njit(nogil=True, cache=True)
def table_scores(codes: np.ndarray, tables: np.ndarray, out: np.ndarray) -> None:
    """Sums of table entries of every row: codes (n, parts) uint8, tables (parts, 256) float32, into out (n,)."""
    n, parts = codes.shape
    for row in range(n):
        a = np.float32(0)
        b = np.float32(0)
        for part in range(0, parts - 1, 2):
            a += tables[part, codes[row, part]]
            b += tables[part + 1, codes[row, part + 1]]
        if parts % 2:
            a += tables[parts - 1, codes[row, parts - 1]]
        out[row] = a + b

"""The exact best of a list of rows in one call: first stage, bounds, float32 scores and order. Needs numba.

What `FlatIndex` does in steps for any number of rows, parts and threads, for the case that decides how fast a selective
filter is answered: one query, one array of vectors, few rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.bits import heap_replace
from isometry.search.kernels.int8 import approximate_rows, exact_scores, heap_push
from isometry.search.kernels.prefetch import AHEAD, address, prefetch_row

_DIRECT = 16  # for so few rows beyond 2k the first stage reads more than it saves


@njit(nogil=True, cache=True)
def mask_rows(mask: np.ndarray, most: int) -> np.ndarray:
    """The places (m,) int64 where a bool mask (n,) is true, ascending; the first `most` + 1 where there are more."""
    rows = np.empty(min(most + 1, len(mask)) + 8, np.int64)
    words = mask[: len(mask) >> 3 << 3].view(np.uint64)
    whole = len(words) >> 3 << 3
    found = 0
    for block in range(0, whole, 8):  # a cache line at a time: most hold nothing where it matters
        held = words[block]
        for word in range(block + 1, block + 8):
            held |= words[word]
        if held != 0:
            for word in range(block, block + 8):
                if words[word] != 0:
                    for place in range(word << 3, (word + 1) << 3):
                        rows[found] = place
                        found += mask[place]
                    if found > most:
                        return rows[: most + 1]
    for place in range(whole << 3, len(mask)):
        if mask[place] and found <= most:
            rows[found] = place
            found += 1
    return rows[:found]


@njit(nogil=True, cache=True)
def near_rows(
    codes: np.ndarray, scale: np.ndarray, bound: np.ndarray, rows: np.ndarray, query: np.ndarray, k: int
) -> np.ndarray:
    """Those of `rows` (m,) ascending that can be among the k best; none for a query (d,) that is not finite.

    codes, scale, bound: of `kernels.int8`.
    """
    m = len(rows)
    square = 0.0
    for j in range(len(query)):
        square += float(query[j]) * float(query[j])
    if not np.isfinite(square):
        return rows[:0]
    if m <= 2 * k + _DIRECT:
        return rows
    norm = np.float32(np.sqrt(square) * (1 + 1e-6) + 1e-37)
    scales, bounds = address(scale), address(bound)
    upper, lowers = np.empty(m, np.float32), np.full(k, -np.inf, np.float32)
    approximate_rows(codes, query, rows, upper)
    for i in range(m):
        if i + AHEAD < m:
            prefetch_row(scales, rows[i + AHEAD], 4)
            prefetch_row(bounds, rows[i + AHEAD], 4)
        row = rows[i]
        score, room = upper[i] * scale[row], norm * bound[row]
        upper[i] = score + room
        if score - room > lowers[0]:
            heap_push(lowers, score - room)
    near = np.empty(m, np.int64)
    count = 0
    for i in range(m):
        near[count] = rows[i]
        count += upper[i] >= lowers[0]
    return near[:count]


@njit(nogil=True, cache=True)
def best_of_rows(
    values: np.ndarray, codes: np.ndarray, scale: np.ndarray, bound: np.ndarray, rows: np.ndarray, query: np.ndarray,
    scores: np.ndarray, found: np.ndarray,
) -> int:  # fmt: skip
    """Top-k of `rows` (m,) ascending into `scores` (k,) and `found` (k,), best first, equal scores by lower row.

    values: float32 (n, d); the rest as in `near_rows`. Padded with -inf and -1. Returns how many rows were scored in
    float32; 0 for a query that is not finite.
    """
    k = len(scores)
    near = near_rows(codes, scale, bound, rows, query, k)
    exact = np.empty(len(near), np.float32)
    exact_scores(values, near, query, exact)
    scores[:] = -np.inf
    found[:] = -1
    for i in range(len(near)):
        if exact[i] > scores[0] or found[0] < 0:
            heap_replace(scores, found, exact[i], near[i])
    for end in range(k - 1, 0, -1):  # the worst of what is left goes to its end
        score, row = scores[0], found[0]
        heap_replace(scores[:end], found[:end], scores[end], found[end])
        scores[end], found[end] = score, row
    return len(near)

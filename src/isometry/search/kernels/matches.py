"""The exact best of a list of rows in one call: first stage, bounds, float32 scores and order. Needs numba.

What `FlatIndex` does in steps for any number of rows, parts and threads, for the case that decides how fast a selective
filter is answered: one query, one array of vectors, few rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.bits import heap_replace
from isometry.search.kernels.int8 import approximate_rows, exact_scores, heap_push


@njit(nogil=True, cache=True)
def mask_rows(mask: np.ndarray, count: int) -> np.ndarray:
    """The places (count,) int64 where a bool mask (n,) is true, ascending; eight at a time where none is."""
    rows = np.empty(count, np.int64)
    whole = len(mask) >> 3
    words = mask[: whole << 3].view(np.uint64)
    found = 0
    for word in range(whole):
        if words[word] != 0:
            for place in range(word << 3, (word + 1) << 3):
                if mask[place]:
                    rows[found] = place
                    found += 1
    for place in range(whole << 3, len(mask)):
        if mask[place]:
            rows[found] = place
            found += 1
    return rows


@njit(nogil=True, cache=True)
def best_of_rows(
    values: np.ndarray, codes: np.ndarray, scale: np.ndarray, bound: np.ndarray, rows: np.ndarray, query: np.ndarray,
    norm: np.float32, scores: np.ndarray, found: np.ndarray,
) -> int:  # fmt: skip
    """Top-k of `rows` (m,) ascending into `scores` (k,) and `found` (k,), best first, equal scores by lower row.

    values, codes, scale, bound: of `kernels.int8`. norm: at least |query|. Padded with -inf and -1. Returns how many rows
    were scored in float32.
    """
    m = len(rows)
    first, lowers = np.empty(m, np.float32), np.full(len(scores), -np.inf, np.float32)
    approximate_rows(codes, query, rows, first)
    for i in range(m):
        score = first[i] * scale[rows[i]]
        lower = score - norm * bound[rows[i]]
        first[i] = score + norm * bound[rows[i]]
        if lower > lowers[0]:
            heap_push(lowers, lower)
    near = np.empty(m, np.int64)
    count = 0
    for i in range(m):
        if first[i] >= lowers[0]:
            near[count] = rows[i]
            count += 1
    exact = np.empty(count, np.float32)
    exact_scores(values, near[:count], query, exact)
    scores[:] = -np.inf
    found[:] = -1
    for i in range(count):
        if exact[i] > scores[0] or found[0] < 0:
            heap_replace(scores, found, exact[i], near[i])
    order = np.argsort(-scores, kind="mergesort")
    sorted_scores, sorted_rows = scores[order], found[order]
    # equal scores stand in any order in a heap: put them in the order of their rows
    for i in range(1, len(order)):
        j = i
        while j > 0 and sorted_scores[j - 1] == sorted_scores[j] and sorted_rows[j - 1] > sorted_rows[j] >= 0:
            sorted_rows[j - 1], sorted_rows[j] = sorted_rows[j], sorted_rows[j - 1]
            j -= 1
    scores[:], found[:] = sorted_scores, sorted_rows
    return count

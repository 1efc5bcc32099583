"""Best-first walks over a neighbour graph whose rows are held as int8. Needs numba.

`neighbours` (n, width) int32 is padded with -1. A row's score is scale[row] * <codes[row], query>. Results are a heap of
`breadth` rows with the worst at its root; the walk ends when the best row not yet expanded is worse than that root.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.bits import heap_replace
from isometry.search.kernels.prefetch import AHEAD, address, prefetch_row

_REASSOCIATE = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, fastmath=_REASSOCIATE)
def row_score(codes: np.ndarray, scale: np.ndarray, query: np.ndarray, row: int) -> np.float32:
    """Score of one row."""
    total = np.float32(0)
    for j in range(codes.shape[1]):
        total += np.float32(codes[row, j]) * query[j]
    return total * scale[row]


@njit(nogil=True, cache=True)
def seen(visited: np.ndarray, row: int) -> bool:
    """Whether the row was met before; it is marked now. `visited` holds a bit a row in uint64 words."""
    word, bit = row >> 6, np.uint64(1) << np.uint64(row & 63)
    if visited[word] & bit:
        return True
    visited[word] |= bit
    return False


@njit(nogil=True, cache=True)
def push(scores: np.ndarray, rows: np.ndarray, size: int, score: float, row: int) -> None:
    """Add to a heap of `size` with the best at its root; there is room."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if scores[parent] >= score:
            break
        scores[i], rows[i] = scores[parent], rows[parent]
        i = parent
    scores[i], rows[i] = score, row


@njit(nogil=True, cache=True)
def pop(scores: np.ndarray, rows: np.ndarray, size: int) -> None:
    """Remove the root of a heap of `size`."""
    last = size - 1
    score, row = scores[last], rows[last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last and scores[child + 1] > scores[child]:
            child += 1
        if scores[child] <= score:
            break
        scores[i], rows[i] = scores[child], rows[child]
        i = child
    scores[i], rows[i] = score, row


@njit(nogil=True, cache=True)
def walk(
    neighbours: np.ndarray, codes: np.ndarray, scale: np.ndarray, query: np.ndarray, entries: np.ndarray,
    allowed: np.ndarray, masked: bool, most: int, rows: np.ndarray, scores: np.ndarray,
) -> int:  # fmt: skip
    """Every row is walked through, only allowed ones are results (the plain in-filter search).

    most: rows scored at most. rows, scores (breadth,): the results, in no order, padded with -1 and -inf. Returns how
    many rows were scored; at least `most` where the walk was cut off.
    """
    visited = np.zeros((len(codes) >> 6) + 1, np.uint64)
    rows[:] = -1
    scores[:] = -np.inf
    open_scores, open_rows = np.empty(1024, np.float32), np.empty(1024, np.int32)
    size, scored = 0, 0
    for entry in entries:
        if seen(visited, entry):
            continue
        score = row_score(codes, scale, query, entry)
        scored += 1
        push(open_scores, open_rows, size, score, entry)
        size += 1
        if (not masked or allowed[entry]) and score > scores[0]:
            heap_replace(scores, rows, score, entry)
    fresh = np.empty(neighbours.shape[1], np.int32)
    width, base, scales, links = codes.shape[1], address(codes), address(scale), address(neighbours)
    while size > 0:
        if open_scores[0] < scores[0] or scored >= most:
            break
        row = open_rows[0]
        pop(open_scores, open_rows, size)
        size -= 1
        count = 0
        for j in range(neighbours.shape[1]):
            near = neighbours[row, j]
            if near < 0:
                break
            if not seen(visited, near):
                fresh[count] = near
                count += 1
                prefetch_row(base, near, width)
                prefetch_row(scales, near, 4)
        if size > 0:
            prefetch_row(links, open_rows[0], 4 * neighbours.shape[1])
        scored += count
        if size + count > len(open_scores):
            open_scores = np.concatenate((open_scores, np.empty_like(open_scores)))
            open_rows = np.concatenate((open_rows, np.empty_like(open_rows)))
        for j in range(count):
            near = fresh[j]
            score = row_score(codes, scale, query, near)
            if score > scores[0]:
                push(open_scores, open_rows, size, score, near)
                size += 1
                if not masked or allowed[near]:
                    heap_replace(scores, rows, score, near)
    return scored


@njit(nogil=True, cache=True)
def probe(
    order: np.ndarray, starts: np.ndarray, cells: np.ndarray, codes: np.ndarray, scale: np.ndarray, query: np.ndarray,
    allowed: np.ndarray, masked: bool, rows: np.ndarray, scores: np.ndarray,
) -> int:  # fmt: skip
    """Allowed rows of order[starts[c] : starts[c + 1]] of each of `cells` are scored; results as in `walk`. Returns how
    many were scored."""
    rows[:] = -1
    scores[:] = -np.inf
    scored, width, base, scales = 0, codes.shape[1], address(codes), address(scale)
    waiting = np.empty(AHEAD, np.int64)  # asked for from memory, scored when as many more were
    for cell in cells:
        for i in range(starts[cell], starts[cell + 1]):
            row = order[i]
            if masked and not allowed[row]:
                continue
            place = scored % AHEAD
            if scored >= AHEAD:
                held = waiting[place]
                score = row_score(codes, scale, query, held)
                if score > scores[0]:
                    heap_replace(scores, rows, score, held)
            prefetch_row(base, row, width)
            prefetch_row(scales, row, 4)
            waiting[place] = row
            scored += 1
    for place in range(min(scored, AHEAD)):
        score = row_score(codes, scale, query, waiting[place])
        if score > scores[0]:
            heap_replace(scores, rows, score, waiting[place])
    return scored

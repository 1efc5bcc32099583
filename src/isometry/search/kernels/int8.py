"""First stage of exact search: int8 rows whose distance to the float32 rows is known, so that nothing is lost.

A row x is stored as c = round(x / s) with s = max|x| / 127, and with a number `bound` such that for every query q the
float32 score of `exact_scores` differs from the first-stage score by at most |q| * bound. `bound` is |x - s c|
(Cauchy-Schwarz) plus the rounding of both sums, 4 (d + 16) u (|x| + |x - s c|) with u = 2^-24: twice what the standard
error analysis of inner products asks for. A row is dropped only if its upper bound lies below the k-th largest lower
bound.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.prefetch import AHEAD, address, prefetch_row

_REASSOCIATE = {"reassoc", "contract", "nsz", "arcp"}
_AHEAD_BYTES = 12_288  # of a scan in order; measured: 34 GB/s without, 52 with, where numbers are whole


@njit(nogil=True, cache=True)
def exact_scores(values: np.ndarray, rows: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    """The routine of `kernels.exact`, compiled: same bits."""
    dimension, base = values.shape[1], address(values)
    whole = dimension - dimension % 16
    sums = np.empty(16, np.float32)
    for i in range(len(rows)):
        if i + 2 < len(rows):
            prefetch_row(base, rows[i + 2], 4 * dimension)
        row = rows[i]
        sums[:] = np.float32(0)
        for start in range(0, whole, 16):
            for lane in range(16):
                sums[lane] += values[row, start + lane] * query[start + lane]
        for lane in range(dimension - whole):
            sums[lane] += values[row, whole + lane] * query[whole + lane]
        half = 8
        while half > 0:
            for lane in range(half):
                sums[lane] += sums[lane + half]
            half //= 2
        out[i] = sums[0]


@njit(nogil=True, cache=True)
def quantise(values: np.ndarray, codes: np.ndarray, scale: np.ndarray, bound: np.ndarray, length: np.ndarray) -> int:
    """Rows (n, d) float32 to codes (n, d) int8 and scale, bound, length (n,) float32; returns the first row that is
    not finite, or -1. `length` is at least |s c|."""
    n, dimension = values.shape
    rounding = 4.0 * (dimension + 16) * 2.0**-24
    for i in range(n):
        largest = np.float32(0)
        for j in range(dimension):
            if not np.isfinite(values[i, j]):
                return i
            largest = max(largest, abs(values[i, j]))
        step = np.float32(largest / np.float32(127))
        inverse = 1.0 / step if step > 1e-36 else 0.0
        error = 0.0
        norm = 0.0
        for j in range(dimension):
            x = float(values[i, j])
            c = np.rint(x * inverse)
            c = min(127.0, max(-127.0, c))
            codes[i, j] = np.int8(c)
            error += (x - step * c) ** 2
            norm += (step * c) ** 2
        error = np.sqrt(error)
        norm = np.sqrt(norm)
        scale[i] = step
        bound[i] = np.float32((error + rounding * (norm + 2.0 * error)) * (1.0 + 1e-6) + 1e-37)
        length[i] = np.float32(norm * (1.0 + 1e-6) + 1e-37)
    return -1


@njit(nogil=True, cache=True)
def heap_push(heap: np.ndarray, value: np.float32) -> None:
    """Replace the smallest of a min-heap by a larger value."""
    k = len(heap)
    i = 0
    while True:
        child = 2 * i + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value


@njit(nogil=True, cache=True, fastmath=_REASSOCIATE)
def approximate(codes: np.ndarray, query: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Products of rows [start, stop) of codes (n, d) int8 with query (d,) float32 into out (stop - start,)."""
    dimension = codes.shape[1]
    for i in range(start, stop):
        total = np.float32(0)
        for j in range(dimension):
            total += np.float32(codes[i, j]) * query[j]
        out[i - start] = total


@njit(nogil=True, cache=True)
def whole_query(query: np.ndarray, out: np.ndarray) -> tuple[np.float32, np.float32]:
    """A query (d,) float32 as whole numbers (d,) int16 times a scale: returns the scale, 0 for a query too small to be
    written so, and at least |query - scale out|. Products with int8 codes fit 32 bits."""
    largest, dimension = 0.0, len(query)
    for j in range(dimension):
        largest = max(largest, abs(float(query[j])))
    scale = np.float32(largest / min(32767, 2**31 // (128 * dimension) - 1))
    if scale < 1e-30:
        return np.float32(0), np.float32(0)
    error, step = 0.0, np.float64(scale)
    for j in range(dimension):
        x = np.float64(query[j])
        c = np.rint(x / step)
        out[j] = np.int16(c)
        error += (x - step * c) ** 2
    return scale, np.float32(np.sqrt(error) * (1 + 1e-6) + 1e-37)


@njit(nogil=True, cache=True)
def approximate_whole(
    codes: np.ndarray, query: np.ndarray, scale: np.float32, start: int, stop: int, out: np.ndarray
) -> None:
    """As `approximate` with the numbers of `whole_query`: as fast as memory is read, where rows are asked for ahead."""
    dimension, base = codes.shape[1], address(codes)
    ahead = max(1, _AHEAD_BYTES // dimension)
    for i in range(start, stop):
        prefetch_row(base, i + ahead, dimension)
        total = np.int32(0)
        for j in range(dimension):
            total += np.int32(codes[i, j]) * np.int32(query[j])
        out[i - start] = np.float32(np.int32(total)) * scale  # named so, the sum is kept in 32 bits: twice as fast


@njit(nogil=True, cache=True, fastmath=_REASSOCIATE)
def approximate_rows(codes: np.ndarray, query: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """As `approximate` for chosen rows (m,) into out (m,)."""
    dimension, base = codes.shape[1], address(codes)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            prefetch_row(base, rows[i + AHEAD], dimension)
        row = rows[i]
        total = np.float32(0)
        for j in range(dimension):
            total += np.float32(codes[row, j]) * query[j]
        out[i] = total


@njit(nogil=True, cache=True)
def raise_floor(
    products: np.ndarray,
    scale: np.ndarray,
    bound: np.ndarray,
    allowed: np.ndarray,
    masked: bool,
    norm: np.float32,
    slack: np.float32,
    heap: np.ndarray,
) -> None:
    """Turn products (m,) into scores in place and keep the k largest lower bounds in the min-heap; a score is wrong by at
    most norm bound + slack."""
    for i in range(len(products)):
        score = products[i] * scale[i]
        products[i] = score
        if masked and not allowed[i]:
            continue
        lower = score - (norm * bound[i] + slack)
        if lower > heap[0]:
            heap_push(heap, lower)


@njit(nogil=True, cache=True)
def collect(
    scores: np.ndarray,
    bound: np.ndarray,
    allowed: np.ndarray,
    masked: bool,
    norm: np.float32,
    slack: np.float32,
    floor: np.float32,
    found: np.ndarray,
) -> int:
    """Positions whose upper bound reaches `floor`, into `found` (m,); returns how many."""
    count = 0
    for i in range(len(scores)):
        if scores[i] + (norm * bound[i] + slack) >= floor and not (masked and not allowed[i]):
            found[count] = i
            count += 1
    return count


@njit(nogil=True, cache=True)
def filter_block(
    products: np.ndarray,
    ids: np.ndarray,
    begin: int,
    scale: np.ndarray,
    bound: np.ndarray,
    length: np.ndarray,
    allowed: np.ndarray,
    masked: bool,
    query_scale: np.ndarray,
    query_norm: np.ndarray,
    query_error: np.ndarray,
    heaps: np.ndarray,
    rows: np.ndarray,
    uppers: np.ndarray,
    counts: np.ndarray,
) -> int:
    """One block of a batched first stage.

    products (m, q) int32 are code products of the rows `ids` (m,) with q queries; keeps in `heaps` (q, k) the
    largest lower bounds and in `rows`, `uppers` (q, room) the rows whose upper bound reached the floor of the moment.
    Starts at row `begin`; returns the row where it ran out of room after tidying up, or m when it is done.
    """
    m, queries = products.shape
    room = rows.shape[1]
    margin = np.empty(queries, np.float32)
    for i in range(begin, m):
        if masked and not allowed[i]:
            continue
        s, b, long = scale[i], bound[i], length[i]
        best = np.float32(-np.inf)
        for q in range(queries):
            upper = np.float32(products[i, q]) * (s * query_scale[q]) + query_norm[q] * b + query_error[q] * long
            margin[q] = upper - heaps[q, 0]
            best = max(best, margin[q])
        if not best >= 0:
            continue
        for q in range(queries):
            if counts[q] == room:
                kept = 0
                for c in range(room):
                    if uppers[q, c] >= heaps[q, 0]:
                        rows[q, kept] = rows[q, c]
                        uppers[q, kept] = uppers[q, c]
                        kept += 1
                counts[q] = kept
                if 4 * kept > 3 * room:
                    return i
        for q in range(queries):
            if margin[q] >= 0:
                spread = query_norm[q] * b + query_error[q] * long
                score = np.float32(products[i, q]) * (s * query_scale[q])
                rows[q, counts[q]] = ids[i]
                uppers[q, counts[q]] = score + spread
                counts[q] += 1
                if score - spread > heaps[q, 0]:
                    heap_push(heaps[q], score - spread)
    return m

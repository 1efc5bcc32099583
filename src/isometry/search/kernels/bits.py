"""Scans over binary codes by bit counting, with top-k and filter inside the loop. Needs numba.

Codes are laid out in strips of 8 rows, word after word, 8 strips to a block of 64 rows: `blocks` (ceil(n / 64), 8,
words, 8) uint64, padded with zeros. Reading is strictly sequential, a block stays in the nearest cache while several
queries pass over it, and the 8 rows of a strip are independent lanes, so nothing is summed across a vector register.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from isometry.search.kernels.prefetch import address, prefetch_row

ROWS = 64
_GROUP = 4
_AHEAD_BYTES = 12_288


@intrinsic
def _strip_distances(typingctx, blocks, at, query, word, words, out, lane):  # type: ignore[no-untyped-def]
    """Differing bits of words query[word : word + words] and the strip at blocks[at], 8 sums into out[lane : lane + 8].

    blocks, query and out are flat uint64 arrays. Written as vector code because the loop vectoriser misses so short a
    loop; it is generic LLVM code and compiles for every processor.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        from numba.np.arrayobj import make_array

        whole = ir.IntType(64)
        vector = ir.VectorType(whole, 8)

        def data(position):  # type: ignore[no-untyped-def]
            return make_array(signature.args[position])(context, builder, arguments[position]).data

        source, asked, target = data(0), data(2), data(5)
        at, word, words, lane = (arguments[i] for i in (1, 3, 4, 6))
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), "llvm.ctpop.v8i64")
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * 8))
        with cgutils.for_range(builder, words, intp=whole) as loop:
            place = builder.gep(source, [builder.add(at, builder.mul(loop.index, ir.Constant(whole, 8)))])
            bits = builder.load(builder.bitcast(place, vector.as_pointer()))
            bits.align = 8
            one = builder.load(builder.gep(asked, [builder.add(word, loop.index)]))
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
            everywhere = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)
            differing = builder.call(count, [builder.xor(bits, everywhere)])
            builder.store(builder.add(builder.load(total), differing), total)
        store = builder.store(builder.load(total), builder.bitcast(builder.gep(target, [lane]), vector.as_pointer()))
        store.align = 8
        return context.get_dummy_value()

    return types.void(blocks, types.int64, query, types.int64, types.int64, out, types.int64), generate


def block_layout(codes: np.ndarray) -> np.ndarray:
    """Packed bits (n, bytes) uint8 to blocks (ceil(n / 64), 8, words, 8) uint64."""
    n, width = codes.shape
    words = -(-width // 8)
    padded = np.zeros((-(-n // ROWS) * ROWS, words * 8), np.uint8)
    padded[:n, :width] = codes
    return np.ascontiguousarray(padded.view(np.uint64).reshape(-1, 8, 8, words).transpose(0, 1, 3, 2))


def query_words(codes: np.ndarray) -> np.ndarray:
    """Packed bits (q, bytes) uint8 to words (q, words) uint64."""
    words = -(-codes.shape[1] // 8)
    padded = np.zeros((len(codes), words * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


@njit(nogil=True, cache=True)
def hamming_top(
    blocks: np.ndarray, n: int, queries: np.ndarray, allowed: np.ndarray, masked: bool, rows: np.ndarray,
    distances: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Nearest rows by Hamming distance of each query; equal distances by lower row.

    A distance has only bits + 1 values, so counting replaces a heap: `counts` (q, bits + 2) int64, zero at the start,
    holds how many rows were met at each distance up to the limit, and the limit falls as soon as k are known below it.
    A later row at the limit loses its tie and is never written.

    rows, distances (q, room): scratch with room >= 2 k, then the first k columns are the answer; rows -1 where fewer
    match.
    """
    room = rows.shape[1]
    k = room // 2
    most = counts.shape[1] - 1
    limit = np.full(len(queries), most, np.int64)
    filled = np.zeros(len(queries), np.int64)
    within = np.zeros(len(queries), np.int64)
    words = queries.shape[1]
    flat, asked = blocks.reshape(-1), queries.reshape(-1)
    out = np.empty(64, np.uint64)
    base, size = address(blocks), 64 * 8 * words
    ahead = max(1, _AHEAD_BYTES // size)
    for first in range(0, len(blocks), _GROUP):
        for q in range(len(queries)):
            for b in range(first, min(first + _GROUP, len(blocks))):
                if q == 0:
                    prefetch_row(base, b + ahead, size)
                for strip in range(8):
                    _strip_distances(flat, (b * 8 + strip) * words * 8, asked, q * words, words, out, strip * 8)
                least = out[0]
                for lane in range(64):
                    least = min(least, out[lane])
                if least >= limit[q]:
                    continue
                last = min(64, n - b * 64)
                for lane in range(last):
                    distance = np.int64(out[lane])
                    row = b * 64 + lane
                    if distance >= limit[q] or (masked and not allowed[row]):
                        continue
                    if filled[q] == room:
                        filled[q] = _tidy(rows[q], distances[q], limit[q], k, counts[q])
                    rows[q, filled[q]] = row
                    distances[q, filled[q]] = distance
                    filled[q] += 1
                    counts[q, distance] += 1
                    within[q] += 1
                    while within[q] - counts[q, limit[q]] >= k and limit[q] > 0:
                        within[q] -= counts[q, limit[q]]
                        limit[q] -= 1
    for q in range(len(queries)):
        kept = filled[q]
        for i in range(1, kept):
            row, distance = rows[q, i], distances[q, i]
            j = i
            while j > 0 and distances[q, j - 1] > distance:
                rows[q, j], distances[q, j] = rows[q, j - 1], distances[q, j - 1]
                j -= 1
            rows[q, j], distances[q, j] = row, distance
        for i in range(kept, k):
            rows[q, i] = -1
            distances[q, i] = most


@njit(nogil=True, cache=True)
def _tidy(rows: np.ndarray, distances: np.ndarray, limit: int, k: int, counts: np.ndarray) -> int:
    """Keep, in order, every row below the limit and the first ones at it, k together; returns how many."""
    below = 0
    for distance in range(limit):
        below += counts[distance]
    at_limit = k - below
    kept = 0
    for i in range(len(rows)):
        if distances[i] < limit or (distances[i] == limit and at_limit > 0):
            if distances[i] == limit:
                at_limit -= 1
            rows[kept], distances[kept] = rows[i], distances[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def heap_replace(scores: np.ndarray, rows: np.ndarray, score: float, row: int) -> None:
    """Put a better entry in the place of the worst; of equal scores the higher row is the worse."""
    k = len(scores)
    i = 0
    while True:
        child = 2 * i + 1
        if child >= k:
            break
        right = child + 1
        if right < k and (
            scores[right] < scores[child] or (scores[right] == scores[child] and rows[right] > rows[child])
        ):
            child = right
        if scores[child] > score or (scores[child] == score and rows[child] < row):
            break
        scores[i], rows[i] = scores[child], rows[child]
        i = child
    scores[i], rows[i] = score, row

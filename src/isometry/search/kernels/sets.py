"""MaxSim between sets of vectors, compiled. Needs numba.

`exact_maxsim` defines the score: each inner product adds its rounded products in ascending order of the coordinates,
the best of a document for each query vector is kept, and these are added from the first query vector to the last, all
in float32. It gives the same bits for every batch and selection of documents. `bound_maxsim` turns int8 products into
bounds on that score.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LANES = 16


def turned(query: np.ndarray) -> np.ndarray:
    """A query's vectors (t, d) as `exact_maxsim` reads them: (d, t rounded up to 16), zeros behind."""
    held = np.zeros((query.shape[1], -(-len(query) // _LANES) * _LANES), np.float32)
    held[:, : len(query)] = query.T
    return held


@njit(nogil=True, cache=True)
def exact_maxsim(values: np.ndarray, offsets: np.ndarray, query: np.ndarray, asked: int, out: np.ndarray) -> None:
    """Documents (values (sum t_i, d), offsets (n + 1)) and a `turned` query of `asked` vectors to scores (n,) float32.

    Four document vectors are taken at once, so that their sums do not wait for each other. A document without vectors
    scores -inf.
    """
    dimension, padded = query.shape
    sums = np.empty((4, padded), np.float32)
    best = np.empty(padded, np.float32)
    sums_0, sums_1, sums_2, sums_3 = sums[0], sums[1], sums[2], sums[3]
    for item in range(len(offsets) - 1):
        start, stop = offsets[item], offsets[item + 1]
        if start == stop:
            out[item] = -np.inf
            continue
        best[:] = -np.inf
        for token in range(start, stop, 4):
            row_0, row_1 = values[token], values[min(token + 1, stop - 1)]
            row_2, row_3 = values[min(token + 2, stop - 1)], values[min(token + 3, stop - 1)]
            sums[:] = np.float32(0)
            for j in range(dimension):
                x_0, x_1, x_2, x_3 = row_0[j], row_1[j], row_2[j], row_3[j]
                side = query[j]
                for q in range(padded):
                    y = side[q]
                    sums_0[q] += x_0 * y
                    sums_1[q] += x_1 * y
                    sums_2[q] += x_2 * y
                    sums_3[q] += x_3 * y
            for q in range(padded):
                best[q] = max(best[q], sums_0[q], sums_1[q], sums_2[q], sums_3[q])
        total = np.float32(0)
        for q in range(asked):
            total += best[q]
        out[item] = total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def bound_maxsim(
    products: np.ndarray, offsets: np.ndarray, scale: np.ndarray, bound: np.ndarray, length: np.ndarray,
    query_scale: np.ndarray, query_norm: np.ndarray, query_error: np.ndarray, lower: np.ndarray, upper: np.ndarray,
) -> None:  # fmt: skip
    """Code products (sum t_i, q) int32 of documents' vectors with a query's to bounds on each score (n,) float32.

    scale, bound, length (sum t_i,) are those of `kernels.int8.quantise`; query_norm is at least |x| and query_error at
    least the distance of a query vector from its code.
    """
    asked = len(query_scale)
    low, high = np.empty(asked, np.float32), np.empty(asked, np.float32)
    for item in range(len(offsets) - 1):
        low[:] = np.float32(-1e30)
        high[:] = np.float32(-1e30)
        for token in range(offsets[item], offsets[item + 1]):
            row = products[token]
            s, b, long = scale[token], bound[token], length[token]
            for q in range(asked):
                score = np.float32(row[q]) * (s * query_scale[q])
                spread = query_norm[q] * b + query_error[q] * long
                low[q] = max(low[q], score - spread)
                high[q] = max(high[q], score + spread)
        below, above = np.float64(0), np.float64(0)
        for q in range(asked):
            below += low[q]
            above += high[q]
        slack = 2.4e-7 * (asked + 8) * (abs(below) + abs(above)) + 1e-30
        lower[item] = np.float32(below - slack)
        upper[item] = np.float32(above + slack)

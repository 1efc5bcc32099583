"""The one routine that defines the score of a query and a row, and the order of equal scores.

A float32 inner product depends on the order of its additions, so two libraries, or one library at two batch sizes,
disagree in the last bits and then on ties. Here a score is always computed in one order: the products `x_j * q_j` are
rounded to float32 and added into 16 running sums (j modulo 16, ascending j), and the sums are folded in halves 16 -> 8
-> 4 -> 2 -> 1. No fused multiply-add, no float64. The numba version and the numpy version give the same bits on every
machine, for every batch size, selection of rows and number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LANES = 16


def exact_scores_numpy(values: np.ndarray, rows: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    """Scores of `values[rows]` (n, d) float32 against `query` (d,) into `out` (m,) float32, in plain numpy."""
    dimension = values.shape[1]
    steps = -(-dimension // LANES)
    for start in range(0, len(rows), 4096):
        chosen = rows[start : start + 4096]
        products = np.zeros((len(chosen), steps * LANES), np.float32)
        np.multiply(values[chosen], query, out=products[:, :dimension])
        lanes = products.reshape(len(chosen), steps, LANES)
        sums = lanes[:, 0].copy()
        for step in range(1, steps):
            sums += lanes[:, step]
        while sums.shape[1] > 1:
            half = sums.shape[1] // 2
            sums = sums[:, :half] + sums[:, half:]
        out[start : start + len(chosen)] = sums[:, 0]


def exact_scorer() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """`exact_scores_numpy`, or the compiled routine with the same bits where numba is installed."""
    try:
        from isometry.search.kernels.int8 import exact_scores
    except ImportError:
        return exact_scores_numpy
    return exact_scores


def top_k(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of `scores` (m,) with `rows` (m,), best first, equal scores by lower row; padded with -inf and -1."""
    order = np.lexsort((rows, -scores))[:k]
    best = np.full(k, -np.inf, np.float32)
    where = np.full(k, -1, np.int64)
    best[: len(order)] = scores[order]
    where[: len(order)] = rows[order]
    return best, where

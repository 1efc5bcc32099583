"""Inner loops of the fixed dimensional encodings. Needs numba."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def fill_blocks(
    sides: np.ndarray, small: np.ndarray, offsets: np.ndarray, repetitions: int, k_sim: int, width: int, shared: bool,
    order: np.ndarray, bits: np.ndarray, mean: bool, fill: bool, out: np.ndarray,
) -> None:  # fmt: skip
    """Sums (or means) of projected tokens by bucket into out (n, repetitions * 2^k_sim * width), zero at the start.

    sides (t, repetitions * k_sim): products with the directions; small (t, repetitions * width), or (t, width) where
    every repetition shares the tokens as they are; order (2^k_sim,): position of a bucket's block; bits (2^k_sim,): how
    many bits of a number are set.
    """
    buckets = 1 << k_sim
    counts = np.empty(buckets, np.int64)
    firsts = np.empty(buckets, np.int64)
    used = np.empty(buckets, np.int64)
    for item in range(len(offsets) - 1):
        start, stop = offsets[item], offsets[item + 1]
        if stop == start:
            continue
        for r in range(repetitions):
            counts[:] = 0
            base = r * buckets * width
            column = 0 if shared else r * width
            for t in range(start, stop):
                bucket = 0
                for j in range(k_sim):
                    if sides[t, r * k_sim + j] > 0:
                        bucket |= 1 << j
                if counts[bucket] == 0:
                    firsts[bucket] = t
                counts[bucket] += 1
                at = base + order[bucket] * width
                for j in range(width):
                    out[item, at + j] += small[t, column + j]
            if not mean:
                continue
            many = 0
            for bucket in range(buckets):
                if counts[bucket] > 0:
                    used[many] = bucket
                    many += 1
                if counts[bucket] > 1:
                    at = base + order[bucket] * width
                    for j in range(width):
                        out[item, at + j] /= counts[bucket]
            if not fill or many == buckets:
                continue
            for bucket in range(buckets):
                if counts[bucket] > 0:
                    continue
                best, nearest = 64, 0
                for i in range(many):
                    differing = bits[used[i] ^ bucket]
                    if differing < best:
                        best, nearest = differing, used[i]
                        if best == 1:
                            break
                at = base + order[bucket] * width
                for j in range(width):
                    out[item, at + j] = small[firsts[nearest], column + j]


@njit(nogil=True, cache=True)
def count_sketch(wide: np.ndarray, slots: np.ndarray, signs: np.ndarray, out: np.ndarray) -> None:
    """Add every coordinate of wide (n, w), times its sign, to its slot of out (n, f)."""
    for i in range(len(wide)):
        for j in range(len(slots)):
            if wide[i, j] != 0:
                out[i, slots[j]] += signs[j] * wide[i, j]

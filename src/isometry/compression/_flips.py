"""Flipping single bits of additive codes where that brings the reconstruction nearer. Needs numba."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def flip_bits(signs: np.ndarray, X: np.ndarray, decoder: np.ndarray, products: np.ndarray, sweeps: int) -> None:
    """Iterated conditional modes on signs (n, bits) in place, so that |X - signs @ decoder| falls.

    X (n, d), decoder (bits, d), products = decoder @ decoder.T, all float32. A row ends after `sweeps` passes over its
    bits or a pass without a flip; its result does not depend on the other rows.
    """
    bits, d = decoder.shape
    rest = np.empty(d, np.float32)
    along = np.empty(bits, np.float32)
    for row in range(len(signs)):
        for k in range(d):
            rest[k] = X[row, k]
        for j in range(bits):
            for k in range(d):
                rest[k] -= signs[row, j] * decoder[j, k]
        for j in range(bits):
            total = np.float32(0)
            for k in range(d):
                total += decoder[j, k] * rest[k]
            along[j] = total
        for _ in range(sweeps):
            flipped = False
            for j in range(bits):
                # |rest + 2 s_j D_j|^2 - |rest|^2 = 4 (s_j <D_j, rest> + |D_j|^2)
                if signs[row, j] * along[j] + products[j, j] < 0:
                    change = 2 * signs[row, j]
                    signs[row, j] = -signs[row, j]
                    for i in range(bits):
                        along[i] += change * products[j, i]
                    flipped = True
            if not flipped:
                break

# mypy: allow-untyped-defs
"""Covariances from scales and quaternions, and the gradient back, one Gaussian after the other."""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled


@compiled
def _rotation(q, row, r):
    w, x, y, z = np.float64(q[row, 0]), np.float64(q[row, 1]), np.float64(q[row, 2]), np.float64(q[row, 3])
    length = np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    r[0, 0], r[0, 1], r[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    r[1, 0], r[1, 1], r[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    r[2, 0], r[2, 1], r[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return w, x, y, z, length


@compiled
def covariances(log_scales, quaternions, out):
    """R diag(s)^2 R^T of every Gaussian into `out (n, 6)`: xx, xy, xz, yy, yz, zz."""
    r = np.empty((3, 3))
    for i in range(len(log_scales)):
        _rotation(quaternions, i, r)
        a, b, c = np.exp(2.0 * log_scales[i, 0]), np.exp(2.0 * log_scales[i, 1]), np.exp(2.0 * log_scales[i, 2])
        k = 0
        for p in range(3):
            for q in range(p, 3):
                out[i, k] = a * r[p, 0] * r[q, 0] + b * r[p, 1] * r[q, 1] + c * r[p, 2] * r[q, 2]
                k += 1


@compiled
def shapes_backward(log_scales, quaternions, d_covariances, d_log_scales, d_quaternions):
    """Gradients by covariances `(n, 6)` to those by log scales and (unnormalised) quaternions."""
    r, d = np.empty((3, 3)), np.empty((3, 3))
    for i in range(len(log_scales)):
        w, x, y, z, length = _rotation(quaternions, i, r)
        g = d_covariances[i]
        xx, xy, xz, yy, yz, zz = g[0], 0.5 * g[1], 0.5 * g[2], g[3], 0.5 * g[4], g[5]
        for k in range(3):
            s = np.exp(np.float64(log_scales[i, k]))
            a, b, c = r[0, k] * s, r[1, k] * s, r[2, k] * s
            # derivative by R diag(s), then by s, then by R
            ha = 2 * (xx * a + xy * b + xz * c)
            hb = 2 * (xy * a + yy * b + yz * c)
            hc = 2 * (xz * a + yz * b + zz * c)
            d_log_scales[i, k] = (ha * r[0, k] + hb * r[1, k] + hc * r[2, k]) * s
            d[0, k], d[1, k], d[2, k] = ha * s, hb * s, hc * s
        dw = 2 * (-z * d[0, 1] + y * d[0, 2] + z * d[1, 0] - x * d[1, 2] - y * d[2, 0] + x * d[2, 1])
        dx = 2 * (
            y * d[0, 1] + z * d[0, 2] + y * d[1, 0] - 2 * x * d[1, 1] - w * d[1, 2] + z * d[2, 0] + w * d[2, 1]
            - 2 * x * d[2, 2]
        )  # fmt: skip
        dy = 2 * (
            -2 * y * d[0, 0] + x * d[0, 1] + w * d[0, 2] + x * d[1, 0] + z * d[1, 2] - w * d[2, 0] + z * d[2, 1]
            - 2 * y * d[2, 2]
        )  # fmt: skip
        dz = 2 * (
            -2 * z * d[0, 0] - w * d[0, 1] + x * d[0, 2] + w * d[1, 0] - 2 * z * d[1, 1] + y * d[1, 2] + x * d[2, 0]
            + y * d[2, 1]
        )  # fmt: skip
        along = dw * w + dx * x + dy * y + dz * z
        d_quaternions[i, 0] = (dw - along * w) / length
        d_quaternions[i, 1] = (dx - along * x) / length
        d_quaternions[i, 2] = (dy - along * y) / length
        d_quaternions[i, 3] = (dz - along * z) / length

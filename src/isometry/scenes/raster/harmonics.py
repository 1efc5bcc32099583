# mypy: allow-untyped-defs
"""View-dependent colour from real spherical harmonics, degrees 0 to 3 (a file's fourth degree is left out).

Constants and order of the reference 3DGS; the colour is max(0, 0.5 + sum of basis times coefficient).
"""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled


@compiled
def basis(x, y, z, degree, out):
    """The (degree + 1)^2 basis values in unit direction (x, y, z), into `out`."""
    out[0] = 0.28209479177387814
    if degree > 0:
        out[1] = -0.4886025119029199 * y
        out[2] = 0.4886025119029199 * z
        out[3] = -0.4886025119029199 * x
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        out[4] = 1.0925484305920792 * x * y
        out[5] = -1.0925484305920792 * y * z
        out[6] = 0.31539156525252005 * (2.0 * zz - xx - yy)
        out[7] = -1.0925484305920792 * x * z
        out[8] = 0.5462742152960396 * (xx - yy)
        if degree > 2:
            out[9] = -0.5900435899266435 * y * (3.0 * xx - yy)
            out[10] = 2.890611442640554 * x * y * z
            out[11] = -0.4570457994644658 * y * (4.0 * zz - xx - yy)
            out[12] = 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy)
            out[13] = -0.4570457994644658 * x * (4.0 * zz - xx - yy)
            out[14] = 1.445305721320277 * z * (xx - yy)
            out[15] = -0.5900435899266435 * x * (xx - 3.0 * yy)


@compiled
def basis_slopes(x, y, z, degree, out):
    """Derivatives of `basis` by x, y and z, into `out (16, 3)`."""
    out[:] = 0.0
    if degree > 0:
        out[1, 1] = -0.4886025119029199
        out[2, 2] = 0.4886025119029199
        out[3, 0] = -0.4886025119029199
    if degree > 1:
        a, b, c = 1.0925484305920792, 0.31539156525252005, 0.5462742152960396
        out[4, 0], out[4, 1] = a * y, a * x
        out[5, 1], out[5, 2] = -a * z, -a * y
        out[6, 0], out[6, 1], out[6, 2] = -2 * b * x, -2 * b * y, 4 * b * z
        out[7, 0], out[7, 2] = -a * z, -a * x
        out[8, 0], out[8, 1] = 2 * c * x, -2 * c * y
    if degree > 2:
        d, e, f, g, h = 0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277
        xx, yy, zz = x * x, y * y, z * z
        out[9, 0], out[9, 1] = -6 * d * x * y, -3 * d * (xx - yy)
        out[10, 0], out[10, 1], out[10, 2] = e * y * z, e * x * z, e * x * y
        out[11, 0], out[11, 1], out[11, 2] = 2 * f * x * y, -f * (4 * zz - xx - 3 * yy), -8 * f * y * z
        out[12, 0], out[12, 1], out[12, 2] = -6 * g * x * z, -6 * g * y * z, 3 * g * (2 * zz - xx - yy)
        out[13, 0], out[13, 1], out[13, 2] = -f * (4 * zz - 3 * xx - yy), 2 * f * x * y, -8 * f * x * z
        out[14, 0], out[14, 1], out[14, 2] = 2 * h * x * z, -2 * h * y * z, h * (xx - yy)
        out[15, 0], out[15, 1] = -3 * d * (xx - yy), 6 * d * x * y


@compiled
def colours(means, harmonics, rotations, eye, degree, out):
    """Colours `(n, 3)` seen from `eye (3,)`, into `out`; `rotations (n, 3, 3)` turns the harmonics, or has length 0."""
    values = np.empty(16, np.float32)
    turned = len(rotations) > 0
    for i in range(len(means)):
        x, y, z = means[i, 0] - eye[0], means[i, 1] - eye[1], means[i, 2] - eye[2]
        length = np.sqrt(x * x + y * y + z * z) + np.float32(1e-12)
        x, y, z = x / length, y / length, z / length
        if turned:
            r = rotations[i]
            x, y, z = (
                r[0, 0] * x + r[1, 0] * y + r[2, 0] * z,
                r[0, 1] * x + r[1, 1] * y + r[2, 1] * z,
                r[0, 2] * x + r[1, 2] * y + r[2, 2] * z,
            )
        basis(x, y, z, degree, values)
        for c in range(3):
            total = np.float32(0.5)
            for k in range((degree + 1) ** 2):
                total += values[k] * harmonics[i, k, c]
            out[i, c] = max(total, np.float32(0.0))


@compiled
def colours_backward(means, harmonics, eye, degree, d_colours, d_harmonics, d_means):
    """Adds the gradients of `colours` (unturned) to `d_harmonics` and `d_means`."""
    values = np.empty(16, np.float64)
    slopes = np.empty((16, 3), np.float64)
    for i in range(len(means)):
        dx, dy, dz = means[i, 0] - eye[0], means[i, 1] - eye[1], means[i, 2] - eye[2]
        length = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-12
        x, y, z = dx / length, dy / length, dz / length
        basis(x, y, z, degree, values)
        basis_slopes(x, y, z, degree, slopes)
        gx, gy, gz = 0.0, 0.0, 0.0
        for c in range(3):
            total = 0.5
            for k in range((degree + 1) ** 2):
                total += values[k] * harmonics[i, k, c]
            if total <= 0.0:
                continue
            d = d_colours[i, c]
            for k in range((degree + 1) ** 2):
                d_harmonics[i, k, c] += d * values[k]
                weight = d * harmonics[i, k, c]
                gx += weight * slopes[k, 0]
                gy += weight * slopes[k, 1]
                gz += weight * slopes[k, 2]
        along = gx * x + gy * y + gz * z
        d_means[i, 0] += (gx - along * x) / length
        d_means[i, 1] += (gy - along * y) / length
        d_means[i, 2] += (gz - along * z) / length

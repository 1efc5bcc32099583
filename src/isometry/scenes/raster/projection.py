# mypy: allow-untyped-defs
"""3D Gaussians to 2D ones on the picture, and the gradient back.

Conventions of the reference: covariance J W Sigma W^T J^T + 0.3 I, near plane 0.2, x/z and y/z clamped to 1.3 times the
half field of view inside J. Departs from it: a Gaussian reaches as far as its alpha stays above 1/255 instead of three
standard deviations, so that tiles never cut a visible tail.
"""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled
from isometry.scenes.files.cameras import Camera

LOW_PASS = 0.3
NEAR = 0.2
ALPHA_MIN = 1.0 / 255.0


def camera_row(camera: Camera, near: float = NEAR) -> np.ndarray:
    """What the kernels need of a camera, `(21,)` float64: R, t, fx, fy, cx, cy, size, limits of x and y, near."""
    x_limit = 1.3 * max(camera.cx, camera.width - camera.cx) / camera.fx
    y_limit = 1.3 * max(camera.cy, camera.height - camera.cy) / camera.fy
    return np.concatenate(
        [camera.rotation.ravel(), camera.translation,
         [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height, x_limit, y_limit, near]]
    )  # fmt: skip


@compiled
def project(means, covariances, opacities, cam, centres, conics, depths, reach, boxes):
    """Fills centres `(n, 2)`, conics `(n, 3)`, depths `(n,)`, reach `(n,)` (largest q drawn) and boxes `(n, 4)` int32.

    A box holds first and last pixel, x0 y0 x1 y1; one that is not drawn has x1 < x0.
    """
    fx, fy, cx, cy, width, height = cam[12], cam[13], cam[14], cam[15], cam[16], cam[17]
    for i in range(len(means)):
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = 0, 0, -1, -1
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        z = cam[6] * a + cam[7] * b + cam[8] * c + cam[11]
        depths[i] = z
        if not z > cam[20] or opacities[i] * 255.0 <= 1.0:
            continue
        x = cam[0] * a + cam[1] * b + cam[2] * c + cam[9]
        y = cam[3] * a + cam[4] * b + cam[5] * c + cam[10]
        u, v = fx * x / z + cx, fy * y / z + cy
        tx = min(cam[18], max(-cam[18], x / z))
        ty = min(cam[19], max(-cam[19], y / z))
        # M = J W, two rows of three
        j0, j2, k1, k2 = fx / z, -fx * tx / z, fy / z, -fy * ty / z
        m00, m01, m02 = j0 * cam[0] + j2 * cam[6], j0 * cam[1] + j2 * cam[7], j0 * cam[2] + j2 * cam[8]
        m10, m11, m12 = k1 * cam[3] + k2 * cam[6], k1 * cam[4] + k2 * cam[7], k1 * cam[5] + k2 * cam[8]
        xx, xy, xz = covariances[i, 0], covariances[i, 1], covariances[i, 2]
        yy, yz, zz = covariances[i, 3], covariances[i, 4], covariances[i, 5]
        s0, s1, s2 = m00 * xx + m01 * xy + m02 * xz, m00 * xy + m01 * yy + m02 * yz, m00 * xz + m01 * yz + m02 * zz
        r0, r1, r2 = m10 * xx + m11 * xy + m12 * xz, m10 * xy + m11 * yy + m12 * yz, m10 * xz + m11 * yz + m12 * zz
        p = s0 * m00 + s1 * m01 + s2 * m02 + 0.3
        q = s0 * m10 + s1 * m11 + s2 * m12
        r = r0 * m10 + r1 * m11 + r2 * m12 + 0.3
        det = p * r - q * q
        if not det > 0.0 or not np.isfinite(det):
            continue
        level = 2.0 * np.log(255.0 * opacities[i])
        hx, hy = np.sqrt(level * p), np.sqrt(level * r)
        if u + hx < 0 or v + hy < 0 or u - hx > width or v - hy > height:
            continue
        centres[i, 0], centres[i, 1] = u, v
        conics[i, 0], conics[i, 1], conics[i, 2] = r / det, -q / det, p / det
        reach[i] = level
        boxes[i, 0] = max(0, int(np.floor(max(u - hx, 0.0))))
        boxes[i, 1] = max(0, int(np.floor(max(v - hy, 0.0))))
        boxes[i, 2] = min(int(width) - 1, int(np.floor(min(u + hx, width))))
        boxes[i, 3] = min(int(height) - 1, int(np.floor(min(v + hy, height))))


@compiled
def project_backward(means, covariances, cam, conics, boxes, gradients, d_means, d_covariances):
    """Adds to `d_means (n, 3)` and `d_covariances (n, 6)` what `gradients (n, 10)` of the blending says.

    Columns of `gradients`: centre x, centre y, conic a, b, c, opacity, red, green, blue, depth.
    """
    fx, fy = cam[12], cam[13]
    for i in range(len(means)):
        if boxes[i, 2] < boxes[i, 0]:
            continue
        g = gradients[i]
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = cam[0] * a + cam[1] * b + cam[2] * c + cam[9]
        y = cam[3] * a + cam[4] * b + cam[5] * c + cam[10]
        z = cam[6] * a + cam[7] * b + cam[8] * c + cam[11]
        tx = min(cam[18], max(-cam[18], x / z))
        ty = min(cam[19], max(-cam[19], y / z))
        j0, j2, k1, k2 = fx / z, -fx * tx / z, fy / z, -fy * ty / z
        m00, m01, m02 = j0 * cam[0] + j2 * cam[6], j0 * cam[1] + j2 * cam[7], j0 * cam[2] + j2 * cam[8]
        m10, m11, m12 = k1 * cam[3] + k2 * cam[6], k1 * cam[4] + k2 * cam[7], k1 * cam[5] + k2 * cam[8]
        # d cov2 = - K G K with G the symmetric gradient of the conic K
        ka, kb, kc = float(conics[i, 0]), float(conics[i, 1]), float(conics[i, 2])
        ga, gb, gc = g[2], 0.5 * g[3], g[4]
        t00, t01 = ka * ga + kb * gb, ka * gb + kb * gc
        t10, t11 = kb * ga + kc * gb, kb * gb + kc * gc
        h00, h01, h11 = -(t00 * ka + t01 * kb), -(t00 * kb + t01 * kc), -(t10 * kb + t11 * kc)
        # d Sigma = M^T H M
        u0, u1, u2 = h00 * m00 + h01 * m10, h00 * m01 + h01 * m11, h00 * m02 + h01 * m12
        v0, v1, v2 = h01 * m00 + h11 * m10, h01 * m01 + h11 * m11, h01 * m02 + h11 * m12
        d_covariances[i, 0] += m00 * u0 + m10 * v0
        d_covariances[i, 1] += m00 * u1 + m10 * v1 + m01 * u0 + m11 * v0
        d_covariances[i, 2] += m00 * u2 + m10 * v2 + m02 * u0 + m12 * v0
        d_covariances[i, 3] += m01 * u1 + m11 * v1
        d_covariances[i, 4] += m01 * u2 + m11 * v2 + m02 * u1 + m12 * v1
        d_covariances[i, 5] += m02 * u2 + m12 * v2
        # d M = 2 H M Sigma, then d J = d M W^T
        xx, xy, xz = covariances[i, 0], covariances[i, 1], covariances[i, 2]
        yy, yz, zz = covariances[i, 3], covariances[i, 4], covariances[i, 5]
        e0, e1, e2 = u0 * xx + u1 * xy + u2 * xz, u0 * xy + u1 * yy + u2 * yz, u0 * xz + u1 * yz + u2 * zz
        f0, f1, f2 = v0 * xx + v1 * xy + v2 * xz, v0 * xy + v1 * yy + v2 * yz, v0 * xz + v1 * yz + v2 * zz
        d_j0 = 2 * (e0 * cam[0] + e1 * cam[1] + e2 * cam[2])
        d_j2 = 2 * (e0 * cam[6] + e1 * cam[7] + e2 * cam[8])
        d_k1 = 2 * (f0 * cam[3] + f1 * cam[4] + f2 * cam[5])
        d_k2 = 2 * (f0 * cam[6] + f1 * cam[7] + f2 * cam[8])
        inverse = 1.0 / z
        dx = g[0] * fx * inverse
        dy = g[1] * fy * inverse
        dz = g[9] - (g[0] * fx * x + g[1] * fy * y) * inverse * inverse
        dz -= (d_j0 * fx + d_k1 * fy) * inverse * inverse
        if tx == x / z:
            dx -= d_j2 * fx * inverse * inverse
            dz += 2 * d_j2 * fx * x * inverse**3
        else:
            dz += d_j2 * fx * tx * inverse * inverse
        if ty == y / z:
            dy -= d_k2 * fy * inverse * inverse
            dz += 2 * d_k2 * fy * y * inverse**3
        else:
            dz += d_k2 * fy * ty * inverse * inverse
        d_means[i, 0] += cam[0] * dx + cam[3] * dy + cam[6] * dz
        d_means[i, 1] += cam[1] * dx + cam[4] * dy + cam[7] * dz
        d_means[i, 2] += cam[2] * dx + cam[5] * dy + cam[8] * dz

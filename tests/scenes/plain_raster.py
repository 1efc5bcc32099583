"""The rasteriser as its equations read, in float64, one Gaussian after the other over the whole picture."""

from __future__ import annotations

import numpy as np

C = (0.28209479177387814, 0.4886025119029199, 1.0925484305920792, 0.31539156525252005, 0.5462742152960396)


def plain_basis(d, degree):
    x, y, z = d
    b = [C[0]]
    if degree > 0:
        b += [-C[1] * y, C[1] * z, -C[1] * x]
    if degree > 1:
        b += [C[2] * x * y, -C[2] * y * z, C[3] * (2 * z * z - x * x - y * y), -C[2] * x * z, C[4] * (x * x - y * y)]
    if degree > 2:
        b += [-0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
        b += [-0.4570457994644658 * y * (4 * z * z - x * x - y * y)]
        b += [0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        b += [-0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y)]
        b += [-0.5900435899266435 * x * (x * x - 3 * y * y)]
    return np.array(b)


def plain_render(p, camera, background):
    """p: dict of float64 arrays named as in Gaussians. Gives colour, depth, rest and ids."""
    n = len(p["means"])
    h, w = camera.height, camera.width
    ys, xs = np.mgrid[:h, :w] + 0.5
    colour, depth, rest = np.zeros((h, w, 3)), np.zeros((h, w)), np.ones((h, w))
    alive = np.ones((h, w), bool)
    best, ids = np.zeros((h, w)), np.full((h, w), -1)
    weights = np.zeros((n, h, w))
    cams = p["means"] @ camera.rotation.T + camera.translation
    for i in np.argsort(cams[:, 2], kind="stable"):
        x, y, z = cams[i]
        if z <= 0.2:
            continue
        q = p["quaternions"][i] / np.linalg.norm(p["quaternions"][i])
        a, b, c, d = q
        R = np.array(
            [
                [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
            ]
        )
        S = R @ np.diag(np.exp(2 * p["log_scales"][i])) @ R.T
        lx = 1.3 * max(camera.cx, w - camera.cx) / camera.fx
        ly = 1.3 * max(camera.cy, h - camera.cy) / camera.fy
        tx, ty = np.clip(x / z, -lx, lx), np.clip(y / z, -ly, ly)
        J = np.array([[camera.fx / z, 0, -camera.fx * tx / z], [0, camera.fy / z, -camera.fy * ty / z]])
        M = J @ camera.rotation
        K = np.linalg.inv(M @ S @ M.T + 0.3 * np.eye(2))
        dx, dy = xs - (camera.fx * x / z + camera.cx), ys - (camera.fy * y / z + camera.cy)
        o = 1 / (1 + np.exp(-p["logits"][i]))
        alpha = np.minimum(0.99, o * np.exp(-0.5 * (K[0, 0] * dx**2 + 2 * K[0, 1] * dx * dy + K[1, 1] * dy**2)))
        use = (alpha >= 1 / 255) & alive
        stops = use & (rest * (1 - alpha) < 1e-4)
        alive &= ~stops
        use &= ~stops
        wgt = np.where(use, alpha * rest, 0)
        direction = p["means"][i] - camera.position
        degree = int(np.sqrt(p["harmonics"].shape[1])) - 1
        rgb = np.maximum(0, 0.5 + plain_basis(direction / np.linalg.norm(direction), degree) @ p["harmonics"][i])
        colour += wgt[..., None] * rgb
        depth += wgt * z
        weights[i] = wgt
        ids[wgt > best] = i
        best = np.maximum(best, wgt)
        rest = np.where(use, rest * (1 - alpha), rest)
    return colour + rest[..., None] * np.asarray(background), depth, rest, ids, weights

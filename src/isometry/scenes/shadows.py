"""Shadows as in paper 1: the objects are splatted as depth from the light, and every Gaussian's centre is tested.

The map's size, the bias and the filter are choices of ours; the paper does not give them.
"""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.cameras import Camera, look_at
from isometry.scenes.raster import splat


def light_camera(means: np.ndarray, light: np.ndarray, size: int) -> Camera:
    """A view from the light that holds all points."""
    centre = (means.min(axis=0) + means.max(axis=0)) / 2.0
    reach = float(np.linalg.norm(means - centre, axis=1).max()) * 1.05 + 1e-6
    distance = float(np.linalg.norm(light - centre))
    if distance <= reach * 1.01:
        field = 150.0
    else:
        field = 2 * float(np.degrees(np.arcsin(reach / distance)))
    up = np.array([1.0, 0.0, 0.0]) if abs((light - centre)[1]) > 0.9 * distance else np.array([0.0, 1.0, 0.0])
    return look_at(light, centre, up=up, width=size, height=size, field_of_view=field, name="light")


def lit_shares(
    means: np.ndarray,
    covariances: np.ndarray,
    opacities: np.ndarray,
    light: np.ndarray,
    *,
    casts: np.ndarray | None = None,
    exposure: np.ndarray | None = None,
    size: int = 256,
    bias: float = 0.01,
) -> np.ndarray:
    """How much light reaches every Gaussian's centre, `(n,)` float32 within 0..1.

    Args:
        casts: which Gaussians throw shadows, `(n,)` bool; None for all. What stands still has its own captured shadows.
        exposure: share of light that still things let through already, `(n,)`; a shadow adds nothing where it is 0.
        size: of the square depth map.
        bias: share of the casters' size that a Gaussian may lie behind them unshadowed.
    """
    n = len(means)
    casts = np.ones(n, bool) if casts is None else casts
    if casts.shape != (n,):
        raise InputError(f"{n} Gaussians need as many marks of who throws a shadow, not {casts.shape}")
    lit = np.ones(n, np.float32)
    if not casts.any():
        return lit
    camera = light_camera(means[casts], np.asarray(light, np.float64), size)
    grey = np.zeros((int(casts.sum()), 3), np.float32)
    seen = splat(means[casts], covariances[casts], opacities[casts], grey, camera, near=1e-3)
    weight, depth = 1.0 - seen.rest, seen.expected_depth
    slack = bias * float(np.ptp(means[casts], axis=0).max())
    local = means @ camera.rotation.T.astype(np.float32) + camera.translation.astype(np.float32)
    ahead = local[:, 2] > 1e-3
    z = np.where(ahead, local[:, 2], 1.0)
    column = np.floor(camera.fx * local[:, 0] / z + camera.cx)
    row = np.floor(camera.fy * local[:, 1] / z + camera.cy)
    inside = ahead & (column >= 1) & (row >= 1) & (column < size - 1) & (row < size - 1)
    r, c = row[inside].astype(np.int64), column[inside].astype(np.int64)
    blocked = np.zeros(len(r), np.float32)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            behind = z[inside] > depth[r + dr, c + dc] + slack
            blocked += np.where(behind, weight[r + dr, c + dc], 0.0) / 9.0
    lit[inside] -= blocked if exposure is None else blocked * exposure[inside]
    return np.clip(lit, 0.0, 1.0)

"""Signed distance to what does not move, on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from isometry.scenes.cage import mark_boxes
from isometry.scenes.gaussians import Gaussians

_NODES = 16_000_000
_REACH = 1.5


@dataclass(frozen=True)
class StillGrid:
    """Distances in scene units at nodes origin + index * cell: positive outside, negative inside.

    Attributes:
        distances: `(i, j, k)` float32.
        origin: `(3,)` float32.
        cell: spacing.
    """

    distances: np.ndarray
    origin: np.ndarray
    cell: float

    @staticmethod
    def none() -> StillGrid:
        """Nothing stands still."""
        return StillGrid(np.zeros((1, 1, 1), np.float32), np.zeros(3, np.float32), 1.0)


def still_grid(gaussians: Gaussians, *, cell: float, margin: int = 4, opacity: float = 0.3) -> StillGrid:
    """The grid around Gaussians that stand still: distance to the nearest one, negative where closed off inside.

    A Gaussian counts as the box of 1.5 standard deviations along its own axes: flat ones close a surface.

    Args:
        cell: spacing in scene units; a wall thinner than two cells has no inside, only two faces. Where that takes more
            nodes than memory and time allow, a hundredth of the Gaussians on either side of every axis is left outside,
            and if that is not enough, the spacing grows (the grid's `cell` says so).
        margin: empty cells around.
        opacity: fainter Gaussians do not count.
    """
    solid = gaussians.select(gaussians.opacities >= opacity)
    if not len(solid):
        return StillGrid.none()
    points = solid.means.astype(np.float64)
    spread = _REACH * np.sqrt(solid.covariances()[:, [0, 3, 5]].astype(np.float64))
    spread = np.minimum(spread, 3 * margin * cell)
    low, high = (points - spread).min(axis=0) - margin * cell, (points + spread).max(axis=0) + margin * cell
    if np.prod(np.ceil((high - low) / cell) + 1) > _NODES:
        low, high = np.percentile(points, 1, axis=0) - margin * cell, np.percentile(points, 99, axis=0) + margin * cell
        while np.prod(np.ceil((high - low) / cell) + 1) > _NODES:
            cell *= 1.1
        within = np.asarray(((points > low) & (points < high)).all(axis=1))
        solid, points, spread = solid.select(within), points[within], spread[within]
    shape = np.ceil((high - low) / cell).astype(np.int64) + 1
    touched = np.zeros(shape, np.uint8)
    first = np.clip(np.floor((points - spread - low) / cell).astype(np.int64), 0, shape - 1)
    last = np.clip(np.ceil((points + spread - low) / cell).astype(np.int64), 0, shape - 1)
    mark_boxes(first, last, touched)
    close = ndimage.binary_dilation(touched, iterations=2)
    distances = np.full(shape, 2 * cell, np.float32)
    nodes = np.argwhere(close)
    distances[close] = _to_discs(low + nodes * cell, solid)
    shell = close & (distances < 0.6 * cell)
    inside = ndimage.binary_fill_holes(shell) & ~shell
    distances[inside] *= -1
    return StillGrid(distances, low.astype(np.float32), float(cell))


def _to_discs(places: np.ndarray, gaussians: Gaussians) -> np.ndarray:
    """Distance of places `(m, 3)` to the boxes of 1.5 standard deviations of the nearest Gaussians."""
    tree = cKDTree(gaussians.means)
    half = _REACH * gaussians.scales.astype(np.float32)
    rotations = gaussians.rotations()
    count = min(4, len(gaussians))
    found = np.empty(len(places), np.float32)
    for start in range(0, len(places), 100_000):
        part = places[start : start + 100_000]
        near = tree.query(part, k=count)[1].reshape(len(part), count)
        offset = (part[:, None, :] - gaussians.means[near]).astype(np.float32)
        local = np.einsum("mkij,mki->mkj", rotations[near], offset)
        outside = np.maximum(np.abs(local) - half[near], 0)
        found[start : start + 100_000] = np.linalg.norm(outside, axis=2).min(axis=1)
    return found

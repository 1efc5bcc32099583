"""Signed distance to what does not move, on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from isometry.errors import InputError
from isometry.scenes.gaussians import Gaussians

_NODES = 16_000_000


@dataclass(frozen=True)
class StillGrid:
    """Distances in scene units at nodes origin + index * cell: positive outside, negative inside.

    Attributes:
        distances: `(i, j, k)` float32. origin: `(3,)` float32. cell: spacing.
    """

    distances: np.ndarray
    origin: np.ndarray
    cell: float

    @staticmethod
    def none() -> StillGrid:
        """Nothing stands still."""
        return StillGrid(np.zeros((1, 1, 1), np.float32), np.zeros(3, np.float32), 1.0)


def still_grid(gaussians: Gaussians, *, cell: float, margin: int = 4, opacity: float = 0.3) -> StillGrid:
    """The grid around Gaussians that stand still: distance to the nearest centre, negative where closed off inside.

    Args:
        cell: spacing in scene units; a surface must be sampled more densely than this to be closed.
        margin: cells around. opacity: fainter Gaussians do not count.
    """
    solid = gaussians.opacities >= opacity
    if not solid.any():
        return StillGrid.none()
    points = gaussians.means[solid].astype(np.float64)
    low, high = points.min(axis=0) - margin * cell, points.max(axis=0) + margin * cell
    shape = np.ceil((high - low) / cell).astype(np.int64) + 1
    if shape.prod() > _NODES:
        raise InputError(
            f"a collision grid of {cell:g} over {(high - low).max():g} has {int(shape.prod()):,} nodes; at most "
            f"{_NODES:,} are built: use a larger collision cell"
        )
    at = np.rint((points - low) / cell).astype(np.int64)
    shell = np.zeros(shape, bool)
    shell[tuple(at.T)] = True
    inside = ndimage.binary_fill_holes(shell) & ~shell
    # only nodes within the margin of the shell need the exact distance; the rest is far away
    close = ndimage.binary_dilation(shell, iterations=margin) | inside
    distances = np.full(shape, margin * cell, np.float32)
    nodes = np.argwhere(close)
    found, _ = cKDTree(points).query(low + nodes * cell)
    distances[close] = found
    distances[inside] *= -1
    return StillGrid(distances, low.astype(np.float32), float(cell))

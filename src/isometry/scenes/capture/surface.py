"""Gaussians that cover a triangle mesh or stand for a point cloud."""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError
from isometry.scenes.gaussians import SH_C0, Gaussians, quaternions_of


def from_mesh(
    vertices: np.ndarray, colours: np.ndarray, triangles: np.ndarray, count: int, *, seed: int = 0
) -> Gaussians:
    """`count` flat Gaussians spread evenly by area over triangles, as wide as the spacing, a tenth as thick.

    Args:
        vertices: `(v, 3)`.
        colours: of the vertices `(v, 3)` within 0..1.
        triangles: `(t, 3)` numbers of vertices.

    Raises:
        InputError: no triangle has an area.
    """
    rng = np.random.default_rng(seed)
    corners = np.asarray(vertices, np.float64)[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    if not len(triangles) or not areas.sum() > 0:
        raise InputError("the mesh has no triangle with an area: nothing to cover with Gaussians")
    # one stratified draw: every run of triangles gets its share of the area, within one
    places = (np.arange(count) + rng.random(count)) / count * areas.sum()
    chosen = np.searchsorted(np.cumsum(areas), places, side="right").clip(0, len(areas) - 1)
    u, v = rng.random((2, count))
    fold = u + v > 1
    u[fold], v[fold] = 1 - u[fold], 1 - v[fold]
    weights = np.stack([1 - u - v, u, v], axis=1)
    points = np.einsum("nk,nka->na", weights, corners[chosen])
    shades = np.einsum("nk,nka->na", weights, np.asarray(colours, np.float64)[triangles[chosen]])
    normal = normals[chosen] / (2 * areas[chosen, None])
    first = corners[chosen, 1] - corners[chosen, 0]
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-300)
    rotations = np.stack([first, np.cross(normal, first), normal], axis=2)
    spacing = np.sqrt(areas.sum() / count)
    scales = np.tile(spacing * np.array([0.6, 0.6, 0.06]), (count, 1))
    harmonics = ((shades - 0.5) / SH_C0)[:, None, :]
    return Gaussians(points, np.log(scales), quaternions_of(rotations), np.full(count, 3.0), harmonics)

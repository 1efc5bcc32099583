# mypy: allow-untyped-defs
"""A tetrahedral cage around an object: occupied cells of a lattice, filled inside, six Kuhn tetrahedra a cell.

Paper 1, section 4 of its note: the paper goes over sparse voxels, marching cubes and a mesher; the lattice here is a
choice of ours, with positive volumes by construction and no dependency. `cage_from_mesh` takes the tetrahedra of any
mesher, after a check for slivers and winding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from isometry.errors import InputError
from isometry.scenes._numba import compiled
from isometry.scenes.gaussians import Gaussians

_CELLS = 40_000_000
SMALLEST_QUALITY = 0.02
_AXES = np.array(list(itertools.permutations(range(3))))
_ODD = np.array([np.linalg.det(np.eye(3)[list(axes)]) < 0 for axes in _AXES])


@dataclass(frozen=True)
class Cage:
    """Tetrahedra sorted by colour: two of one colour never share a vertex, so each colour can be solved at once.

    Attributes:
        vertices: at rest `(v, 3)` float64.
        tets: `(m, 4)` int32, det [x1-x0, x2-x0, x3-x0] > 0.
        colours: where each colour starts in `tets`, `(c + 1,)` int64.
        cell: edge of a lattice cell, or the mean edge of a mesh, in scene units.
        filled: lattice cells inside that no Gaussian touched.
        pieces: connected parts.
    """

    vertices: np.ndarray
    tets: np.ndarray
    colours: np.ndarray
    cell: float
    filled: int = 0
    pieces: int = 1
    _lattice: Any = field(default=None, repr=False)

    @property
    def rest_volumes(self) -> np.ndarray:
        """Volumes `(m,)` in cubed scene units, all positive."""
        return _volumes(self.vertices, self.tets)

    @cached_property
    def surface(self) -> np.ndarray:
        """Outer triangles `(f, 3)` int32, for previews: the cage can be drawn or written as a mesh."""
        faces = self.tets[:, [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]]].reshape(-1, 3)
        _, first, counts = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
        return faces[first[counts == 1]]

    @cached_property
    def filled_cells(self) -> np.ndarray:
        """Lower corners of the lattice cells that were filled, `(filled, 3)`; empty for a mesh."""
        if self._lattice is None:
            return np.zeros((0, 3))
        origin, _, _, _, inside = self._lattice
        return origin + np.argwhere(inside) * self.cell

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which points `(n, 3)` lie in cells that were filled, `(n,)` bool; none of them for a mesh."""
        found = np.zeros(len(points), bool)
        if self._lattice is not None:
            origin, _, _, _, inside = self._lattice
            cell = np.floor((np.asarray(points, np.float64) - origin) / self.cell).astype(np.int64)
            there = ((cell >= 0) & (cell < inside.shape)).all(axis=1)
            found[there] = inside[tuple(cell[there].T)]
        return found

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tetrahedron `(n,)` int32 and barycentric weights `(n, 4)` float64 of points `(n, 3)`.

        A point outside gets the nearest cell, and weights below zero say how far out it lies.
        """
        points = np.asarray(points, np.float64)
        if self._lattice is None:
            return self._locate_in_mesh(points)
        origin, cells, number, tet_of, _ = self._lattice
        place = (points - origin) / self.cell
        cell = np.floor(place).astype(np.int64)
        inside = ((cell >= 0) & (cell < cells.shape)).all(axis=1)
        clipped = np.clip(cell, 0, np.array(cells.shape) - 1)
        found = np.where(inside, number[tuple(clipped.T)], -1)
        lost = found < 0
        if lost.any():
            corners = np.argwhere(cells)
            nearest = cKDTree(corners + 0.5).query(place[lost])[1]
            cell[lost] = corners[nearest]
            found[lost] = number[tuple(corners[nearest].T)]
        fraction = place - cell
        order = np.argsort(-fraction, axis=1, kind="stable")
        kind = _kind_of(order)
        f = np.take_along_axis(fraction, order, axis=1)
        weights = np.stack([1 - f[:, 0], f[:, 0] - f[:, 1], f[:, 1] - f[:, 2], f[:, 2]], axis=1)
        weights[_ODD[kind]] = weights[_ODD[kind]][:, [0, 2, 1, 3]]
        return tet_of[found, kind].astype(np.int32), weights

    def _locate_in_mesh(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        corners = self.vertices[self.tets]
        count = min(24, len(self.tets))
        _, candidates = cKDTree(corners.mean(axis=1)).query(points, k=count)
        candidates = np.asarray(candidates).reshape(len(points), count)
        inverse = np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))
        best, weights = np.full(len(points), -np.inf), np.zeros((len(points), 4))
        tets = np.zeros(len(points), np.int32)
        for k in range(count):
            t = candidates[:, k]
            b = np.einsum("nij,nj->ni", inverse[t], points - corners[t, 0])
            b = np.concatenate([1 - b.sum(axis=1, keepdims=True), b], axis=1)
            better = b.min(axis=1) > best
            best[better], weights[better], tets[better] = b.min(axis=1)[better], b[better], t[better]
        return tets, weights


def build_cage(
    gaussians: Gaussians,
    *,
    cell: float | None = None,
    vertices: int = 1500,
    reach: float = 2.0,
    opacity: float = 0.1,
    fill: bool = True,
) -> Cage:
    """The lattice cage of an object.

    Args:
        cell: edge of a cell in scene units; None picks the one that gives about `vertices` vertices.
        reach: how many standard deviations of a Gaussian must lie inside (each side of its box).
        opacity: fainter Gaussians do not shape the cage.
        fill: also take the cells that are closed off inside.

    Raises:
        InputError: an empty selection, only faint Gaussians, or a cell so small that memory would not do.
    """
    if not len(gaussians):
        raise InputError("a cage needs Gaussians and the selection is empty")
    solid = gaussians.opacities >= opacity
    if not solid.any():
        raise InputError(f"none of the {len(gaussians)} Gaussians has an opacity of {opacity} or more: nothing to cage")
    means = gaussians.means[solid].astype(np.float64)
    spread = reach * np.sqrt(np.maximum(gaussians.covariances()[solid][:, [0, 3, 5]].astype(np.float64), 0))
    spread = np.minimum(spread, 4 * np.median(spread, axis=0) + 1e-12)  # a few giants must not blow the cage up
    low, high = (means - spread).min(axis=0), (means + spread).max(axis=0)
    size = float((high - low).max())
    if not size > 0:
        raise InputError("all Gaussians of the selection lie in one point: nothing to cage")
    if cell is not None:
        if not cell > 0:
            raise InputError(f"a cage cell must be larger than 0 and is {cell}")
        return _lattice(means, spread, low, high, cell, fill)
    small, large = size / 256, size / 2
    cage = None
    for _ in range(12):
        middle = math.sqrt(small * large)
        cage = _lattice(means, spread, low, high, middle, fill)
        if abs(len(cage.vertices) - vertices) < 0.1 * vertices:
            break
        small, large = (middle, large) if len(cage.vertices) > vertices else (small, middle)
    assert cage is not None
    return cage


def cage_from_mesh(vertices: np.ndarray, tets: np.ndarray, *, smallest_quality: float = SMALLEST_QUALITY) -> Cage:
    """A cage of tetrahedra from any mesher; turned-over ones are put right, slivers refused.

    Args:
        smallest_quality: lowest allowed of `qualities`.

    Raises:
        InputError: bad numbers, or slivers: how many and the worst.
    """
    vertices, tets = np.asarray(vertices, np.float64), np.asarray(tets, np.int32).copy()
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all() or not len(vertices):
        raise InputError(f"cage vertices must be finite (v, 3) and are {vertices.shape}")
    if tets.ndim != 2 or tets.shape[1] != 4 or not len(tets) or tets.min() < 0 or tets.max() >= len(vertices):
        raise InputError(f"cage tetrahedra must be (m, 4) numbers of the {len(vertices)} vertices")
    volumes = _volumes(vertices, tets)
    tets[volumes < 0] = tets[volumes < 0][:, [0, 2, 1, 3]]
    lengths, quality = _edges(vertices, tets), qualities(vertices, tets)
    bad = quality < smallest_quality
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(tets)} tetrahedra are slivers (worst quality {quality.min():.2g}, allowed "
            f"{smallest_quality}); mesh it again with a stricter quality, or use the lattice"
        )
    used = np.unique(tets)
    renumber = np.full(len(vertices), -1, np.int32)
    renumber[used] = np.arange(len(used))
    order, starts = _colour(renumber[tets], len(used))
    return Cage(vertices[used], renumber[tets][order], starts, float(lengths.mean()))


def qualities(vertices: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """6 sqrt(2) volume / (longest edge)^3 of each tetrahedron `(m,)`: 1 for a regular one, near 0 for a sliver."""
    longest = np.maximum(_edges(vertices, tets).max(axis=1), 1e-300)
    good: np.ndarray = 6 * math.sqrt(2) * np.abs(_volumes(vertices, tets)) / longest**3
    return good


def _edges(vertices: np.ndarray, tets: np.ndarray) -> np.ndarray:
    ends = vertices[tets[:, [0, 0, 0, 1, 1, 2]]] - vertices[tets[:, [1, 2, 3, 2, 3, 3]]]
    lengths: np.ndarray = np.linalg.norm(ends, axis=2)
    return lengths


def _lattice(means: np.ndarray, spread: np.ndarray, low: np.ndarray, high: np.ndarray, cell: float, fill: bool) -> Cage:
    shape = np.ceil((high - low) / cell - 1e-9).astype(np.int64) + 2
    if shape.prod() > _CELLS:
        raise InputError(
            f"cells of {cell:g} over an object of {(high - low).max():g} are {int(shape.prod()):,}; "
            f"at most {_CELLS:,} are built: use a larger cell"
        )
    origin = (low + high) / 2 - shape * cell / 2
    first = np.clip(np.floor((means - spread - origin) / cell).astype(np.int64), 0, shape - 1)
    last = np.clip(np.floor((means + spread - origin) / cell).astype(np.int64), 0, shape - 1)
    cells = np.zeros(shape, np.uint8)
    mark_boxes(first, last, cells)
    full = ndimage.binary_fill_holes(cells) if fill else cells.astype(bool)
    inside = full & ~cells.astype(bool)
    _, pieces = ndimage.label(full)
    corners = np.argwhere(full)
    number = np.full(shape, -1, np.int64)
    number[full] = np.arange(len(corners))
    # six tetrahedra a cell along the paths from corner 000 to corner 111; odd paths are listed the other way round
    steps = np.zeros((6, 4, 3), np.int64)
    for k, axes in enumerate(_AXES):
        path = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(np.eye(3, dtype=np.int64)[axes], axis=0)])
        steps[k] = path[[0, 2, 1, 3]] if _ODD[k] else path
    nodes = corners[:, None, None, :] + steps
    flat = (nodes[..., 0] * (shape[1] + 1) + nodes[..., 1]) * (shape[2] + 1) + nodes[..., 2]
    used, tets = np.unique(flat.ravel(), return_inverse=True)
    tets = tets.reshape(-1, 4).astype(np.int32)
    grid = np.stack(np.unravel_index(used, shape + 1), axis=1)
    order, starts = _colour(tets, len(used))
    place = np.empty(len(tets), np.int64)
    place[order] = np.arange(len(tets))
    lattice = (origin, full, number, place.reshape(-1, 6), inside)
    return Cage(origin + grid * cell, tets[order], starts, float(cell), int(inside.sum()), int(pieces), lattice)


def _kind_of(order: np.ndarray) -> np.ndarray:
    code = order[:, 0] * 3 + order[:, 1]
    table = np.zeros(9, np.int64)
    table[_AXES[:, 0] * 3 + _AXES[:, 1]] = np.arange(6)
    return table[code]


def _volumes(vertices: np.ndarray, tets: np.ndarray) -> np.ndarray:
    corners = vertices[tets]
    return np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6.0


def _colour(tets: np.ndarray, vertices: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.empty(len(tets), np.int64)
    if _greedy(tets, np.zeros(vertices, np.uint64), found) < 0:
        raise InputError("a vertex of the cage belongs to more than 64 tetrahedra; mesh it more evenly")
    order = np.argsort(found, kind="stable")
    return order, np.searchsorted(found[order], np.arange(found.max() + 2))


@compiled
def _greedy(tets, taken, colours):
    for t in range(len(tets)):
        used = taken[tets[t, 0]] | taken[tets[t, 1]] | taken[tets[t, 2]] | taken[tets[t, 3]]
        colour = 0
        while colour < 64 and (used >> np.uint64(colour)) & np.uint64(1):
            colour += 1
        if colour == 64:
            return -1
        colours[t] = colour
        for k in range(4):
            taken[tets[t, k]] |= np.uint64(1) << np.uint64(colour)
    return 0


@compiled
def mark_boxes(first, last, cells):
    """Sets the cells of boxes first..last (both `(n, 3)`, inclusive) to 1."""
    for n in range(len(first)):
        for i in range(first[n, 0], last[n, 0] + 1):
            for j in range(first[n, 1], last[n, 1] + 1):
                for k in range(first[n, 2], last[n, 2] + 1):
                    cells[i, j, k] = 1

"""Does an object stand on anything? What was cut out of a capture often touches nothing, and would fall at the first tick."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from isometry.scenes.physics.still import StillGrid
from isometry.scenes.physics.world import Body

_STEPS = 500


def drops(
    bodies: Sequence[Body], still: StillGrid, plane: tuple[float, float, float, float] | None, up: np.ndarray
) -> list[float]:
    """How far each body falls at rest until it meets the floor or what stands still, in scene units.

    0 for one that touches them already (within one radius of its contact balls), or another body that does; infinity
    where nothing is below.
    """
    falls = [_fall(body, still, plane, up) for body in bodies]
    trees = [cKDTree(body.points) if len(body.points) else None for body in bodies]
    waiting = [n for n, way in enumerate(falls) if way > 0]
    while True:  # what lies on something that rests does so too
        held = [n for n in waiting if any(falls[k] == 0 and _touch(n, k, bodies, trees) for k in range(len(bodies)))]
        if not held:
            return falls
        for n in held:
            falls[n] = 0.0
            waiting.remove(n)


def _fall(body: Body, still: StillGrid, plane: tuple[float, float, float, float] | None, up: np.ndarray) -> float:
    if not len(body.points):
        return 0.0
    points, near = np.asarray(body.points, np.float64), 2.0 * body.radius
    lowest = []
    if still.distances.size > 1:
        size = (np.array(still.distances.shape) - 1) * still.cell
        lowest.append(min(float((still.origin + size * np.array(c)) @ up) for c in np.ndindex(2, 2, 2)))
    if plane is not None and np.dot(plane[:3], up) > 0.05:
        lowest.append(float((points @ up).min()) - float(_above(points, plane).min() / np.dot(plane[:3], up)))
    if not lowest:
        return math.inf
    reach = max(0.0, float((points @ up).max()) - min(lowest)) + near
    for way in np.linspace(0.0, reach, min(_STEPS, 2 + int(reach / max(body.radius, 1e-9)))):
        here = points - way * up
        if plane is not None and _above(here, plane).min() <= near:
            return float(way)
        if still.distances.size > 1 and _outside(here, still).min() <= near:
            return float(way)
    return math.inf


def _touch(one: int, other: int, bodies: Sequence[Body], trees: list) -> bool:
    if one == other or trees[one] is None or trees[other] is None:
        return False
    near = 2.0 * (bodies[one].radius + bodies[other].radius)
    return bool(trees[other].query(bodies[one].points, distance_upper_bound=near)[0].min() <= near)


def sentences(names: Sequence[str], falls: Sequence[float]) -> list[str]:
    """What to tell a person about bodies that do not rest."""
    said = []
    for name, way in zip(names, falls, strict=True):
        if math.isinf(way):
            said.append(
                f"'{name}' touches nothing and nothing is below it: it falls out of sight; give scene.json a 'plane', or set "
                "gravity to 0"
            )
        elif way > 0:
            said.append(
                f"'{name}' touches nothing: it falls {way:.2g} m at first; what it stood on may have gone with it"
            )
    return said


def _above(points: np.ndarray, plane: tuple[float, float, float, float]) -> np.ndarray:
    height: np.ndarray = points @ np.asarray(plane[:3], np.float64) - plane[3]
    return height


def _outside(points: np.ndarray, still: StillGrid) -> np.ndarray:
    at = ((points - still.origin) / still.cell).T
    return np.asarray(ndimage.map_coordinates(still.distances, at, order=1, mode="constant", cval=np.inf))

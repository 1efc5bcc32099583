# mypy: allow-untyped-defs
"""Where training starts when a capture has no sparse points: places whose patches agree between photographs.

Ours: the reference starts from COLMAP's points or from a random cloud. A random cloud costs a laptop's short schedule
most of its steps, so single pixels are swept through depths and the depths that neighbouring photographs agree on stay.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.errors import InputError
from isometry.scenes._numba import compiled
from isometry.scenes.capture.photos import Photo
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians, from_points

_DEPTHS = 64
_NEIGHBOURS = 6


def focus(cameras: list[Camera]) -> tuple[np.ndarray, float]:
    """The point nearest to all lines of sight `(3,)`, and the cameras' median distance from it.

    Where the cameras look the same way (or away from it) a point in front of them takes its place.
    """
    positions = np.stack([camera.position for camera in cameras])
    ahead = np.stack([camera.rotation[2] for camera in cameras])
    spread = float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max())
    if not spread > 1e-9 * max(1.0, float(np.abs(positions).max())):
        raise InputError("all cameras stand in one place: depth cannot be found; take photographs from several places")
    planes = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    normal = planes.sum(axis=0)
    if np.linalg.cond(normal) < 1e4:
        point = np.linalg.solve(normal, np.einsum("nij,nj->i", planes, positions))
        distances = ((point - positions) * ahead).sum(axis=1)
        if np.median(distances) > 0:
            return point, float(np.median(np.linalg.norm(point - positions, axis=1)))
    distance = 3 * spread
    return positions.mean(axis=0) + distance * ahead.mean(axis=0), distance


def first_gaussians(photos: list[Photo], count: int, seed: int) -> Gaussians:
    """About `count` Gaussians: nine in ten where photographs agree, the others anywhere that is seen.

    Args:
        photos: at least two, from different places.
    """
    rng = np.random.default_rng(seed)
    _, distance = focus([photo.camera for photo in photos])
    near, far = 0.25 * distance, 6.0 * distance
    points, colours, costs = _sweep(photos, 4 * count, near, far, rng)
    order = np.argsort(costs)[: int(0.9 * count)]
    rest = _anywhere(photos, count - len(order), near, far, rng)
    points = np.concatenate([points[order], rest[0]])
    colours = np.concatenate([colours[order], rest[1]])
    return from_points(points, colours, opacity=0.1)


def _rays(photos: list[Photo], count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    which = rng.integers(len(photos), size=count)
    origins, rays, colours, patches = [], [], [], []
    for number in range(len(photos)):
        camera, n = photos[number].camera, int((which == number).sum())
        column = rng.integers(1, max(2, camera.width - 1), n).clip(0, camera.width - 1)
        row = rng.integers(1, max(2, camera.height - 1), n).clip(0, camera.height - 1)
        local = np.stack(
            [(column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy, np.ones(n)], axis=1
        )
        origins.append(np.tile(camera.position, (n, 1)))
        rays.append(local @ camera.rotation)
        colours.append(photos[number].colours[row, column])
        patches.append(np.stack([np.full(n, number), row, column], axis=1))
    joined = (np.concatenate(part) for part in (origins, rays, colours, patches))
    return tuple(joined)


def _anywhere(
    photos: list[Photo], count: int, near: float, far: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    origins, rays, colours, _ = _rays(photos, count, rng)
    depth = np.exp(rng.uniform(math.log(2 * near), math.log(far), (len(rays), 1)))
    return origins + depth * rays, colours


def _sweep(
    photos: list[Photo], count: int, near: float, far: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    origins, rays, colours, places = _rays(photos, count, rng)
    positions = np.stack([photo.camera.position for photo in photos])
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    # the nearest photographs but not those from the same place, which agree on any depth
    gaps[gaps < 0.02 * np.median(gaps[np.isfinite(gaps)])] = np.inf
    neighbours = np.argsort(gaps, axis=1)[:, : min(_NEIGHBOURS, len(photos) - 1)]
    rows = np.stack(
        [
            np.concatenate([c.rotation.ravel(), c.translation, [c.fx, c.fy, c.cx, c.cy]])
            for c in (photo.camera for photo in photos)
        ]
    )
    shapes = np.array([photo.colours.shape[:2] for photo in photos])
    stack = np.zeros((len(photos), *shapes.max(axis=0), 3), np.float32)
    for number, photo in enumerate(photos):
        stack[number, : shapes[number, 0], : shapes[number, 1]] = photo.colours
    depths = 1.0 / np.linspace(1 / near, 1 / far, _DEPTHS)
    best, cost = np.zeros(len(rays)), np.full(len(rays), np.inf)
    _agree(stack, shapes, rows, neighbours, origins, rays, places, depths, best, cost)
    good = np.isfinite(cost)
    return origins[good] + best[good, None] * rays[good], colours[good], cost[good]


@compiled
def _agree(stack, shapes, cameras, neighbours, origins, rays, places, depths, best, cost):
    costs = np.empty(len(depths))
    scores = np.empty(neighbours.shape[1])
    for n in range(len(rays)):
        number, row, column = places[n, 0], places[n, 1], places[n, 2]
        if row < 1 or column < 1 or row >= shapes[number, 0] - 1 or column >= shapes[number, 1] - 1:
            continue
        mean, spread = 0.0, 0.0
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                for c in range(3):
                    value = stack[number, row + dy, column + dx, c]
                    mean += value
                    spread += value * value
        spread = np.sqrt(max(0.0, spread / 27 - (mean / 27) ** 2))
        lowest, total, at = np.inf, 0.0, -1
        for d in range(len(depths)):
            x, y, z = (
                origins[n, 0] + depths[d] * rays[n, 0],
                origins[n, 1] + depths[d] * rays[n, 1],
                origins[n, 2] + depths[d] * rays[n, 2],
            )
            seen = 0
            for k in range(neighbours.shape[1]):
                other = neighbours[number, k]
                m = cameras[other]
                w = m[6] * x + m[7] * y + m[8] * z + m[11]
                scores[k] = 1.0
                if w <= 1e-6:
                    continue
                u = int(np.floor(m[12] * (m[0] * x + m[1] * y + m[2] * z + m[9]) / w + m[14]))
                v = int(np.floor(m[13] * (m[3] * x + m[4] * y + m[5] * z + m[10]) / w + m[15]))
                if u < 1 or v < 1 or u >= shapes[other, 1] - 1 or v >= shapes[other, 0] - 1:
                    continue
                seen += 1
                off = 0.0
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        for c in range(3):
                            off += abs(stack[number, row + dy, column + dx, c] - stack[other, v + dy, u + dx, c])
                scores[k] = off / 27
            if seen < min(2, neighbours.shape[1]):
                costs[d] = 1.0
            else:
                scores.sort()
                half = (seen + 1) // 2
                costs[d] = scores[:half].mean()
            total += costs[d]
            if costs[d] < lowest:
                lowest, at = costs[d], d
        if at >= 0 and lowest < 0.1:
            best[n] = depths[at]
            # a depth counts as found where it is better than the others by much, on a patch that shows something
            cost[n] = (lowest + 0.01) / (total / len(depths) + 0.01) + 0.02 / (spread + 0.02)

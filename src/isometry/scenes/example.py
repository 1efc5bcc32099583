"""A scene of our own making: a table with a jelly, a ring and a cushion, Gaussians sampled on generated surfaces.

Free to use under the licence of this repository. The same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from isometry.errors import NotFoundError
from isometry.scenes.gaussians import SH_C0, Gaussians, concatenate, quaternions_of
from isometry.scenes.physics.materials import PRESETS
from isometry.scenes.scene import Scene, SceneObject

SHIPPED = 60_000  # splats of the scene folder that comes with the package
Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]
TABLE_TOP = 0.74


def example_scene(*, splats: int = 30_000, seed: int = 0) -> Scene:
    """The demonstration scene in metres, y up; `splats` is about the total, a third of it on the three objects."""
    rng = np.random.default_rng(seed)
    third = splats // 9
    parts = [
        _box(rng, (0.0, 0.72, 0.0), (1.2, 0.04, 0.8), int(splats * 0.4), _wood),
        *(
            _box(rng, (x, 0.35, z), (0.06, 0.70, 0.06), int(splats * 0.02), _wood)
            for x in (-0.55, 0.55)
            for z in (-0.35, 0.35)
        ),
        _floor(rng, int(splats * 0.19)),
        sample(rng, _sphere(0.13, (1.0, 0.85, 1.0)), third, (-0.33, TABLE_TOP + 0.125, 0.05), _jelly, shine=0.25),
        sample(rng, _ring(0.13, 0.05), third, (0.02, TABLE_TOP + 0.065, 0.14), _stripes, shine=0.1),
        sample(rng, _cushion(0.125), third, (0.36, TABLE_TOP + 0.14, -0.05), _checks, shine=0.05),
    ]
    still = len(parts) - 3
    labels = np.concatenate([np.full(len(p), max(0, n - still + 1), np.uint16) for n, p in enumerate(parts)])
    objects = (
        SceneObject("red jelly", 1, PRESETS["jelly"], 500),
        SceneObject("striped rubber ring", 2, PRESETS["rubber"], 600),
        SceneObject("blue foam cushion", 3, PRESETS["foam"], 500),
    )
    return Scene(
        "table with three soft objects",
        concatenate(parts),
        labels,
        objects,
        plane=(0.0, 1.0, 0.0, 0.0),
        light=(1.2, 3.2, 1.6),
        view=((0.0, 1.35, 1.75), (0.0, 0.72, 0.0), 42.0),
        collision_cell=0.02,
        notes=("generated: Gaussians sampled on surfaces with procedural textures",),
    )


def shipped_scene() -> Path:
    """The folder of the scene that comes with Isometry: `example_scene(splats=SHIPPED)`, 0.84 MB.

    Raises:
        NotFoundError: it was left out of this installation.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples" / "scene", package.parents[1] / "examples" / "scene"):
        if (place / "scene.json").is_file():
            return place
    raise NotFoundError("the example scene is not in this installation; 'isometry scene demo --splats 30000' makes one")


def sample(
    rng: np.random.Generator,
    surface: Surface,
    count: int,
    at: tuple[float, float, float],
    texture: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    *,
    shine: float = 0.0,
) -> Gaussians:
    """Flat Gaussians on a closed surface given over the unit square, evenly by area.

    Args:
        surface: (u, v) within 0..1, each `(n,)`, to points `(n, 3)`; outward normal = d/du x d/dv.
        texture: local points `(n, 3)` to colours.
        shine: strength of a highlight that follows the viewer (degree 1).
    """
    step = 1e-4
    tried = rng.random((8 * count, 2))
    u, v = tried.T
    du = (surface(u + step, v) - surface(u - step, v)) / (2 * step)
    dv = (surface(u, v + step) - surface(u, v - step)) / (2 * step)
    normals = np.cross(du, dv)
    area = np.linalg.norm(normals, axis=1)
    chosen = rng.choice(len(tried), count, replace=False, p=area / area.sum())
    points = surface(u[chosen], v[chosen])
    normal = normals[chosen] / np.maximum(area[chosen, None], 1e-12)
    spacing = np.sqrt(area.mean() / count)
    return _flat(rng, points, normal, spacing, texture(points, rng), np.asarray(at), shine)


def _flat(
    rng: np.random.Generator, points: np.ndarray, normal: np.ndarray, spacing: float, colours: np.ndarray,
    at: np.ndarray, shine: float,
) -> Gaussians:  # fmt: skip
    n = len(points)
    helper = np.where(np.abs(normal[:, :1]) > 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    rotations = np.stack([first, np.cross(normal, first), normal], axis=2)
    scales = spacing * np.stack([rng.uniform(0.5, 0.75, n), rng.uniform(0.5, 0.75, n), np.full(n, 0.1)], axis=1)
    shade = 0.72 + 0.28 * np.clip(normal @ np.array([0.3, 0.9, 0.3]), -0.6, 1.0)[:, None]
    harmonics = np.zeros((n, 4, 3))
    harmonics[:, 0] = (np.clip(colours * shade, 0.02, 0.98) - 0.5) / SH_C0
    # a highlight: brighter where the view direction (from eye to splat) runs against the normal
    harmonics[:, 1], harmonics[:, 2], harmonics[:, 3] = (
        shine * normal[:, [1]] / 2,
        -shine * normal[:, [2]] / 2,
        shine * normal[:, [0]] / 2,
    )
    return Gaussians(points + at, np.log(scales), quaternions_of(rotations), np.full(n, 3.0), harmonics)


def _sphere(radius: float, stretch: tuple[float, float, float]) -> Surface:
    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * u, np.pi * v
        out = np.stack([np.sin(b) * np.cos(a), np.cos(b), np.sin(b) * np.sin(a)], axis=-1)
        return radius * out * stretch

    return surface


def _ring(radius: float, tube: float) -> Surface:
    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * u, -2 * np.pi * v
        wide = radius + tube * np.cos(b)
        return np.stack([wide * np.cos(a), tube * np.sin(b), wide * np.sin(a)], axis=-1)

    return surface


def _cushion(half: float) -> Surface:
    def power(value: np.ndarray) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** 0.45

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * u, np.pi * v
        side = power(np.sin(b))
        return half * np.stack([side * power(np.cos(a)), power(np.cos(b)), side * power(np.sin(a))], axis=-1)

    return surface


def _box(
    rng: np.random.Generator, centre: tuple, size: tuple, count: int,
    texture: Callable[[np.ndarray, np.random.Generator], np.ndarray],
) -> Gaussians:  # fmt: skip
    half = np.asarray(size) / 2
    areas = np.array([half[(a + 1) % 3] * half[(a + 2) % 3] for a in range(3) for _ in range(2)])
    face = rng.choice(6, count, p=areas / areas.sum())
    points = rng.uniform(-1, 1, (count, 3)) * half
    axis, side = face // 2, np.where(face % 2, 1.0, -1.0)
    points[np.arange(count), axis] = side * half[axis]
    normal = np.zeros((count, 3))
    normal[np.arange(count), axis] = side
    spacing = np.sqrt(8 * areas.sum() / count)
    return _flat(rng, points, normal, spacing, texture(points, rng), np.asarray(centre), 0.0)


def _floor(rng: np.random.Generator, count: int) -> Gaussians:
    radius = 1.6 * np.sqrt(rng.random(count))
    angle = rng.uniform(0, 2 * np.pi, count)
    points = np.stack([radius * np.cos(angle), np.zeros(count), radius * np.sin(angle)], axis=1)
    tiles = (np.floor(points[:, 0] / 0.25) + np.floor(points[:, 2] / 0.25)) % 2
    colours = np.where(tiles[:, None] > 0, [0.62, 0.63, 0.66], [0.48, 0.49, 0.52]) + rng.normal(0, 0.01, (count, 1))
    normal = np.tile([0.0, 1.0, 0.0], (count, 1))
    return _flat(rng, points, normal, np.sqrt(np.pi * 1.6**2 / count), colours, np.zeros(3), 0.0)


def _wood(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rings = np.sin(60 * points[:, 2] + 4 * np.sin(5 * points[:, 0]))[:, None]
    return np.array([0.62, 0.43, 0.26]) + 0.06 * rings + rng.normal(0, 0.01, (len(points), 1))


def _jelly(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([0.85, 0.13, 0.16]) + 0.06 * np.sin(50 * points[:, [1]]) + rng.normal(0, 0.01, (len(points), 1))


def _stripes(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = np.arctan2(points[:, 2], points[:, 0])
    stripe = np.sin(12 * angle)[:, None] > 0
    return np.where(stripe, [0.95, 0.80, 0.20], [0.20, 0.20, 0.22])


def _checks(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    check = np.floor(points / 0.05).sum(axis=1)[:, None] % 2 > 0
    return np.where(check, [0.25, 0.42, 0.85], [0.78, 0.85, 0.97])

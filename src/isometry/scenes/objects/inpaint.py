"""Takes an object out of a scene and fills what it hid, the same from every view.

Paper 1, section 3 of its note: the object's Gaussians go, a 2D network fills the uncovered part of the views, and the
fills guide new Gaussians. Which Gaussians move is unconfirmed there; here only the new ones do. Ours: views are filled
one after the other, each on top of what the earlier ones added, so that every place is invented once; new Gaussians
start on the plane through what surrounds the hole; the captured contact shadow goes with the object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from isometry.errors import InputError
from isometry.scenes.capture.loss import Target
from isometry.scenes.capture.parameters import Parameters
from isometry.scenes.capture.presets import PRESETS
from isometry.scenes.files.cameras import Camera, look_at
from isometry.scenes.gaussians import SH_C0, Gaussians, concatenate
from isometry.scenes.objects.fills import Fill, find_fill
from isometry.scenes.raster import render, render_backward, splat, vote
from isometry.scenes.scene import Scene

_THIN = 0.35  # a pixel through which more light passes is a hole


@dataclass(frozen=True)
class Removed:
    """The scene without the object, and figures: Gaussians taken (object, hidden, shadow) and added, pixels filled.

    `taken (n,)` says which of the old scene's Gaussians went.
    """

    scene: Scene
    report: dict[str, Any]
    taken: np.ndarray


def remove_object(
    scene: Scene, number: int, *, fill: Fill | None = None, views: int = 8, size: int = 160, steps: int = 120,
    shadow: bool = True, threads: int | None = None,
) -> Removed:  # fmt: skip
    """Take object `number` out.

    Args:
        fill: of a picture's hole; Telea's when None.
        views: that are filled, spread over the scene's cameras, or around the object where there are none.
        size: longer side of those, pixels.
        steps: of the optimisation.
        shadow: also take the dark of its contact shadow from what it stands on.

    Raises:
        InputError: nothing but the object is in the scene, or no view shows it.
    """
    fill = fill or find_fill()
    # other objects stand in front of what is filled and would only smear into it
    label = scene.objects[number].label
    others = (scene.labels != 0) & (scene.labels != label)
    g, mine = scene.gaussians.select(~others), scene.labels[~others] == label
    if mine.all():
        raise InputError(f"'{scene.objects[number].name}' is all there is in this scene: nothing would be left to fill")
    cameras = removal_views(scene, g.select(mine), views, size)
    covered = [_covered(g, mine, camera, threads) for camera in cameras]
    used = [n for n, mask in enumerate(covered) if mask.any()]
    if not used:
        raise InputError(f"none of {len(cameras)} views shows '{scene.objects[number].name}'; is it inside something?")
    cameras, covered = [cameras[n] for n in used], [covered[n] for n in used]
    seen, hidden = _seen_and_hidden(g, cameras, covered, threads)
    hidden &= ~mine
    ground = ~mine & ~hidden & seen
    dark = _shadowed(g, mine, ground) if shadow else np.zeros(len(g), bool)
    keep = ~(mine | hidden | dark)
    rest, new = g.select(keep), None
    holes, wanted, pixels = [], [], 0
    for camera in cameras:
        together = rest if new is None else concatenate([rest, new])
        drawn = render(together, camera, threads=threads)
        hole = _hole(drawn.rest, mine, dark | hidden, g, camera, threads)
        if new is not None:
            hole &= _share(together, np.arange(len(together)) >= len(rest), camera, threads) < 0.5
        picture = np.clip(drawn.colour, 0, 1)
        if hole.any():
            picture = fill(picture, ndimage.binary_dilation(hole))
            more = _patch(camera, picture, drawn.expected_depth, hole, rest.degree)
            new = more if new is None else concatenate([new, more])
            pixels += int(hole.sum())
        holes.append(hole)
        wanted.append(picture)
    report = {
        "object": int(mine.sum()),
        "hidden": int(hidden.sum()),
        "shadow": int(dark.sum()),
        "filled_pixels": pixels,
    }
    if new is not None:
        new = _refine(rest, new, cameras, holes, wanted, steps, threads)
    added = 0 if new is None else len(new)
    labels = np.concatenate([np.zeros(len(rest) + added, np.uint16), scene.labels[others]])
    left = tuple(item for n, item in enumerate(scene.objects) if n != number)
    gaussians = concatenate([rest, *([] if new is None else [new]), scene.gaussians.select(others)])
    note = f"'{scene.objects[number].name}' was taken out and {pixels} pixels in {len(cameras)} views filled"
    made = replace(scene, gaussians=gaussians, labels=labels, objects=left, notes=(*scene.notes, note))
    taken = np.zeros(len(scene.labels), bool)
    taken[~others] = ~keep
    return Removed(made, {**report, "added": added, "views": len(cameras)}, taken)


def removal_views(scene: Scene, part: Gaussians, count: int, size: int) -> list[Camera]:
    """Views `size` pixels long: spread over the scene's cameras, or around `part` where there are none."""
    if scene.cameras:
        chosen = np.unique(np.linspace(0, len(scene.cameras) - 1, min(count, len(scene.cameras))).round().astype(int))
        plain = [replace(scene.cameras[n], distortion=(0.0, 0.0, 0.0, 0.0)) for n in chosen]
        return [camera.resized(min(1.0, size / max(camera.width, camera.height))) for camera in plain]
    low, high = np.percentile(part.means.astype(np.float64), [1, 99], axis=0)
    centre, reach = (low + high) / 2, 2.2 * float(np.linalg.norm(high - low)) + 1e-6
    up = np.asarray(scene.up, np.float64) / np.linalg.norm(scene.up)
    side = np.cross(up, [0.31, 0.17, 0.93])
    side /= np.linalg.norm(side)
    other = np.cross(up, side)
    views = []
    for k in range(count):
        angle, height = 2 * np.pi * k / count, (0.6, 1.1)[k % 2]
        way = np.cos(angle) * side + np.sin(angle) * other + height * up
        views.append(look_at(centre + reach * way / np.linalg.norm(way), centre, up=up, width=size, height=size,
                             field_of_view=40))  # fmt: skip
    return views


def _share(g: Gaussians, chosen: np.ndarray, camera: Camera, threads: int | None) -> np.ndarray:
    colours = np.repeat(chosen[:, None], 3, axis=1).astype(np.float32)
    return splat(g.means, g.covariances(), g.opacities, colours, camera, threads=threads).colour[..., 0]


def _covered(g: Gaussians, mine: np.ndarray, camera: Camera, threads: int | None) -> np.ndarray:
    return ndimage.binary_dilation(_share(g, mine, camera, threads) > 0.1, iterations=2)


def _seen_and_hidden(
    g: Gaussians, cameras: list[Camera], covered: list[np.ndarray], threads: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians that some view shows beside the object, and those that lie where it was in every view instead."""
    seen, behind = np.zeros(len(g)), np.zeros(len(g))
    for camera, mask in zip(cameras, covered, strict=True):
        seen += vote(g, camera, np.where(mask, -1, 0), 1, threads=threads)[:, 0]
        local = g.means @ camera.rotation.T.astype(np.float32) + camera.translation.astype(np.float32)
        ahead = local[:, 2] > 1e-3
        z = np.where(ahead, local[:, 2], 1)
        column = np.floor(camera.fx * local[:, 0] / z + camera.cx).astype(np.int64)
        row = np.floor(camera.fy * local[:, 1] / z + camera.cy).astype(np.int64)
        there = ahead & (row >= 0) & (column >= 0) & (row < camera.height) & (column < camera.width)
        behind[there] += mask[row[there], column[there]]
    return np.asarray(seen >= 0.02), np.asarray((seen < 0.02) & (behind >= 0.9 * len(cameras)))


def _shadowed(g: Gaussians, mine: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Ground right around the object's foot that is darker than the ground farther out by a tenth or more."""
    means = g.means.astype(np.float64)
    low, high = np.percentile(means[mine], [1, 99], axis=0)
    size = float(np.linalg.norm(high - low))
    near = cKDTree(means[mine]).query(means, distance_upper_bound=0.75 * size)[0]
    foot = ground & (means[:, 1] < low[1] + 0.15 * size) & (means[:, 1] > low[1] - 0.25 * size)
    close, ring = foot & (near < 0.4 * size), foot & (near >= 0.4 * size) & (near < 0.75 * size)
    if ring.sum() < 20 or not close.any():
        return np.zeros(len(g), bool)
    shade = g.base_colours @ np.array([0.299, 0.587, 0.114], np.float32)
    # over neighbours: a dark grain of the texture is no shadow; then the penumbra around what was found
    rows = np.nonzero(foot)[0]
    count = min(13, len(rows))
    distances, around = cKDTree(means[rows]).query(means[rows], k=count)
    smooth = np.zeros(len(g))
    smooth[rows] = shade[rows][around.reshape(len(rows), count)].mean(axis=1)
    level = float(np.median(shade[ring]))
    dark = close & (smooth < 0.9 * level)
    if dark.any():
        spacing = float(np.median(np.asarray(distances).reshape(len(rows), count)[:, -1]))
        dark |= foot & (cKDTree(means[dark]).query(means)[0] < 1.5 * spacing) & (smooth < 0.97 * level)
    return np.asarray(dark)


def _hole(
    rest: np.ndarray, mine: np.ndarray, ground: np.ndarray, g: Gaussians, camera: Camera, threads: int | None
) -> np.ndarray:
    """Pixels that show ground which was taken away, and thin ones where the object was."""
    was = _share(g, mine | ground, camera, threads) > 0.05
    thin = (rest > _THIN) & ndimage.binary_dilation(was, iterations=2)
    before = render(g, camera, threads=threads).rest
    hole = np.asarray(thin & (before < 0.5))
    # where most of the rim is nothing too, nothing was hidden: the object stood before the void
    parts, count = ndimage.label(hole)
    for part in range(1, count + 1):
        area = parts == part
        rim = ndimage.binary_dilation(area, iterations=3) & ~ndimage.binary_dilation(area)
        if not rim.any() or (rest[rim] < 0.5).mean() < 0.6:
            hole[area] = False
    left = ~mine
    bare = _share(g.select(left), ground[left], camera, threads) > 0.2
    return np.asarray(hole | ndimage.binary_closing(bare, iterations=1))


def _patch(camera: Camera, filled: np.ndarray, depth: np.ndarray, hole: np.ndarray, degree: int) -> Gaussians:
    """One Gaussian per hole pixel, on the plane through the rim around the hole, in the fill's colour."""
    rim = (
        ndimage.binary_dilation(hole, iterations=6) & ~ndimage.binary_dilation(hole, iterations=1) & np.isfinite(depth)
    )
    rows, columns = np.nonzero(hole)
    if rim.sum() < 6:
        known = np.isfinite(depth) & ~hole
        z = np.full(len(rows), float(np.median(depth[known])) if known.any() else 1.0)
    else:
        z = _plane_depth(rim, depth, rows, columns)
    x = (columns + 0.5 - camera.cx) / camera.fx * z
    y = (rows + 0.5 - camera.cy) / camera.fy * z
    means = (np.stack([x, y, z], axis=1) - camera.translation) @ camera.rotation
    width = 0.6 * z / camera.fx
    n = len(rows)
    harmonics = np.zeros((n, (degree + 1) ** 2, 3))
    harmonics[:, 0] = (filled[rows, columns] - 0.5) / SH_C0
    quaternions = np.tile(np.array([1.0, 0, 0, 0]), (n, 1))
    return Gaussians(means, np.repeat(np.log(width)[:, None], 3, axis=1), quaternions, np.full(n, 3.0), harmonics)


def _plane_depth(rim: np.ndarray, depth: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    # on a plane 1/z is linear in the pixel; the weights leave out what stands before or behind it
    r, c = np.nonzero(rim)
    inverse = 1.0 / depth[r, c].astype(np.float64)
    table = np.stack([r, c, np.ones(len(r))], axis=1)
    weights = np.ones(len(r))
    for _ in range(10):
        solved = np.linalg.lstsq(table * weights[:, None], inverse * weights, rcond=None)[0]
        off = np.abs(table @ solved - inverse)
        weights = 1.0 / np.sqrt(off + 0.02 * np.median(inverse))
        weights[off > 4 * np.median(off) + 1e-9] *= 0.1
    found = np.stack([rows, columns, np.ones(len(rows))], axis=1) @ solved
    return 1.0 / np.clip(found, 0.5 * inverse.min(), 2 * inverse.max())


def _refine(
    rest: Gaussians, new: Gaussians, cameras: list[Camera], holes: list[np.ndarray], wanted: list[np.ndarray],
    steps: int, threads: int | None,
) -> Gaussians:  # fmt: skip
    """New Gaussians alone move towards the filled views, inside the holes and a rim around them."""
    together = concatenate([rest, new])
    moving = np.arange(len(together)) >= len(rest)
    usable = [
        (camera, Target(picture, ndimage.binary_dilation(hole, iterations=2)))
        for camera, hole, picture in zip(cameras, holes, wanted, strict=True)
        if hole.any()
    ]
    parameters = Parameters(together, together.degree)
    plan = PRESETS["full"]
    size = float(np.median(new.scales.max(axis=1)))
    rates = {"means": 0.02 * size, "log_scales": plan.scaling, "quaternions": plan.rotation, "logits": 0.02,
             "harmonics": 4 * plan.feature, "rest": 0.0}  # fmt: skip
    for step in range(steps):
        camera, target = usable[step % len(usable)]
        now = parameters.gaussians()
        drawn = render(now, camera, threads=threads)
        _, slope = target.compare(drawn.colour, plan.structure)
        parameters.descend(render_backward(now, camera, drawn, slope), rates, moving)
    return parameters.gaussians().select(moving)

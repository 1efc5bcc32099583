"""A level of detail for scenes that are too large for a page: neighbours become one splat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isometry.errors import InputError
from isometry.scenes.gaussians import Gaussians, quaternions_of
from isometry.scenes.scene import Scene


def thinned(scene: Scene, most: int) -> tuple[Scene, str]:
    """The scene with at most `most` splats, and a sentence about it ("" where nothing was done).

    Splats of one object within one cell become the Gaussian with their mean and covariance, each weighed by the light it
    stops (opacity times the area of its two longer axes). Cells grow with the distance from what the scene's view looks
    at. Ours: the paper only names large scenes as a limit.

    Raises:
        InputError: `most` is below 100, or below the number of objects.
    """
    if most < 100:
        raise InputError(f"a page shows at least 100 splats, not {most}")
    n = len(scene.gaussians)
    if n <= most:
        return scene, ""
    if len(scene.objects) >= most:
        raise InputError(f"{most:,} splats are too few for {len(scene.objects):,} objects: allow more")
    groups = _groups(scene, most)
    joined, labels = _joined(scene.gaussians, groups), np.zeros(groups.max() + 1, scene.labels.dtype)
    labels[groups] = scene.labels
    note = f"{len(joined):,} splats are shown in place of {n:,}, neighbours joined: allow more with --most"
    return replace(scene, gaussians=joined, labels=labels), note


def _groups(scene: Scene, most: int) -> np.ndarray:
    """A number per splat `(n,)`, 0 upwards, the same for those that are joined."""
    eye, target = np.asarray(scene.view[0], np.float64), np.asarray(scene.view[1], np.float64)
    around = (scene.gaussians.means.astype(np.float64) - target) / max(float(np.linalg.norm(eye - target)), 1e-9)
    away = np.linalg.norm(around, axis=1, keepdims=True)
    # what is far is drawn in towards a ball of radius 2 (Barron et al. 2022, eq. 10), so that its cells are larger
    around = np.where(away <= 1, around, (2 - 1 / np.maximum(away, 1e-12)) * around / np.maximum(away, 1e-12))
    lowest, highest = np.log(1e-6), np.log(4.0)
    best = None
    for _ in range(24):
        middle = (lowest + highest) / 2
        cells = np.floor(around / np.exp(middle)).astype(np.int64) + (1 << 19)
        keys = scene.labels.astype(np.uint64) << np.uint64(47)  # hashed with the cell: a clash would only join two more
        for axis, factor in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)):
            keys = keys ^ (cells[:, axis].astype(np.uint64) * np.uint64(factor))
        kinds, numbers = np.unique(keys, return_inverse=True)
        if len(kinds) <= most:
            best, highest = numbers, middle
            if len(kinds) > 0.97 * most:
                break
        else:
            lowest = middle
    if best is None:
        raise InputError(f"these splats cannot be joined into {most:,}")
    return np.asarray(best, np.int64)


def _joined(g: Gaussians, groups: np.ndarray) -> Gaussians:
    count = int(groups.max()) + 1
    members = np.bincount(groups, minlength=count)
    several = members[groups] > 1
    stop = _stopping(g.opacities, g.scales)
    total = np.maximum(np.bincount(groups, stop, count), 1e-30)

    def mean(values: np.ndarray) -> np.ndarray:
        """Weighed means over the groups of `(n, k)`."""
        return np.stack([np.bincount(groups, stop * column, count) for column in values.T], axis=1) / total[:, None]

    means = mean(g.means)
    off = g.means - means[groups]
    outer = np.stack([off[:, a] * off[:, b] for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], axis=1)
    packed = mean(g.covariances().astype(np.float64) + outer)
    harmonics = mean(g.harmonics.reshape(len(g), -1)).reshape(count, -1, 3)
    values, vectors = np.linalg.eigh(packed[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(count, 3, 3))
    vectors[np.linalg.det(vectors) < 0, :, 0] *= -1
    scales = np.sqrt(np.maximum(values, 1e-18))
    opacities = np.clip(total / np.maximum(_stopping(np.ones(count), scales), 1e-30), 1e-4, 0.999)
    out = [means, np.log(scales), quaternions_of(vectors), np.log(opacities / (1 - opacities)), harmonics]
    alone = ~several
    for array, given in zip(out, (g.means, g.log_scales, g.quaternions, g.logits, g.harmonics), strict=True):
        array[groups[alone]] = given[alone]
    return Gaussians(*out)


def _stopping(opacities: np.ndarray, scales: np.ndarray) -> np.ndarray:
    axes = np.sort(scales.astype(np.float64), axis=1)
    light: np.ndarray = opacities * axes[:, 1] * axes[:, 2]
    return light

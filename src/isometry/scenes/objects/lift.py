"""From masks on pictures to labels on Gaussians: by votes weighed with what each Gaussian adds to each pixel.

Paper 1, section 2 of its note. The paper learns three more colour channels; the vote is the note's proposal: the same
weights, no optimisation. `identity.py` holds the learned way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from isometry.errors import InputError
from isometry.scenes.cage import build_cage
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import vote

Views = Sequence[tuple[Camera, np.ndarray]]


@dataclass(frozen=True)
class Lifted:
    """Labels `(n,)` int32, 0 for the background; shares `(n,)`: of a Gaussian's weight that voted for its label."""

    labels: np.ndarray
    shares: np.ndarray


def lift(gaussians: Gaussians, views: Views, count: int, *, share: float = 0.5, threads: int | None = None) -> Lifted:
    """Labels by vote: Gaussian i counts alpha T of every pixel for the pixel's label, the largest sum wins.

    Args:
        views: cameras with labels `(h, w)` of 0 (background) to `count`; negative pixels are not counted.
        share: of its weight that an object's Gaussian must have for the object; others stay background.

    Raises:
        InputError: no view, or labels beyond `count`.
    """
    if not views:
        raise InputError("labels cannot be lifted from no view at all")
    votes = np.zeros((len(gaussians), count + 1))
    for camera, labels in views:
        votes += vote(gaussians, camera, labels, count + 1, threads=threads)
    total = votes.sum(axis=1)
    labels = votes.argmax(axis=1).astype(np.int32)
    shares = np.where(total > 0, votes.max(axis=1) / np.maximum(total, 1e-12), 0.0)
    labels[(shares <= share) | (total < 1e-3)] = 0
    return Lifted(labels, shares.astype(np.float32))


def clean_up(gaussians: Gaussians, labels: np.ndarray, *, neighbours: int = 5, rounds: int = 2) -> np.ndarray:
    """Labels after majority votes among each Gaussian's nearest neighbours and itself."""
    if len(gaussians) < 2:
        return labels.copy()
    count = min(neighbours + 1, len(gaussians))
    near = cKDTree(gaussians.means).query(gaussians.means, k=count)[1]
    labels = labels.copy()
    for _ in range(rounds):
        votes = np.stack([(labels[near] == value).sum(axis=1) for value in range(labels.max(initial=0) + 1)], axis=1)
        votes = votes * 2
        votes[np.arange(len(labels)), labels] += 1  # a draw leaves things as they are
        labels = votes.argmax(axis=1).astype(labels.dtype)
    return labels


def claim_inside(gaussians: Gaussians, labels: np.ndarray, *, vertices: int = 700) -> np.ndarray:
    """Labels after background Gaussians in the closed inside of an object's cage joined it: masks never reach those.

    An object without anything solid keeps what it has.
    """
    labels = labels.copy()
    for value in range(1, labels.max(initial=0) + 1):
        mine = labels == value
        part = gaussians.select(mine)
        if not (part.opacities >= 0.1).any() or not np.ptp(part.means, axis=0).max(initial=0) > 0:
            continue
        cage = build_cage(part, vertices=vertices)
        if cage.filled:
            labels[(labels == 0) & cage.inside(gaussians.means)] = value
    return labels


def lift_objects(gaussians: Gaussians, views: Views, names: Sequence[str], *, threads: int | None = None) -> np.ndarray:
    """The whole way: vote, clean up by neighbours, claim what lies inside. Labels `(n,)` uint16, 0 for the background.

    Raises:
        InputError: an object that no Gaussian belongs to, by its name.
    """
    lifted = lift(gaussians, views, len(names), threads=threads)
    labels = claim_inside(gaussians, clean_up(gaussians, lifted.labels))
    for value, name in enumerate(names, start=1):
        if not (labels == value).any():
            pixels = sum(int((one == value).sum()) for _, one in views)
            raise InputError(
                f"object '{name}': no Gaussian belongs to it ({pixels} pixels of its masks in {len(views)} views); are the "
                "masks in the right places?"
            )
    return labels.astype(np.uint16)

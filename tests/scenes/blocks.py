"""Boxes of lattice cells as cages, for tests."""

from __future__ import annotations

import numpy as np

from isometry.scenes.cage import Cage, build_cage
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.physics import Body, Material


def solid(shape, cell, at=(0, 0, 0)) -> Gaussians:
    """One small Gaussian in the middle of every cell of a block whose lower corner is `at`."""
    centres = (np.argwhere(np.ones(shape)) + 0.5) * cell + np.asarray(at)
    n = len(centres)
    return Gaussians(
        centres, np.full((n, 3), np.log(cell * 0.05)), np.tile([1.0, 0, 0, 0], (n, 1)), np.full(n, 3.0),
        np.zeros((n, 1, 3)),
    )  # fmt: skip


def block(shape, cell, at=(0, 0, 0)) -> Cage:
    """A cage of exactly these cells."""
    cage = build_cage(solid(shape, cell, at), cell=cell)
    assert len(cage.tets) == 6 * np.prod(shape)
    return cage


def body(
    shape,
    cell,
    at=(0, 0, 0),
    *,
    young=1e5,
    poisson=0.4,
    density=1000.0,
    damping=0.0,
    friction=0.5,
    pinned=None,
    ball=0.25,
):
    cage = block(shape, cell, at)
    made_of = Material(young, poisson, density, damping, friction)
    points = cage.vertices[np.unique(cage.surface)]
    return Body("block", cage, made_of, points, cell * ball, pinned(cage.vertices) if pinned else None)

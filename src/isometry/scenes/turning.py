"""A whole set of Gaussians moved to another frame: turned, scaled and shifted, with the colours that follow the view."""

from __future__ import annotations

import math

import numpy as np

from isometry.errors import InputError
from isometry.scenes.gaussians import Gaussians, quaternions_of
from isometry.scenes.raster.harmonics import basis


def moved(
    gaussians: Gaussians, *, rotation: np.ndarray | None = None, scale: float = 1.0, shift: np.ndarray | None = None
) -> Gaussians:
    """Every point p becomes scale * (rotation @ p) + shift; a file's fourth harmonic degree is left out.

    Args:
        rotation: `(3, 3)`, None for none.
        scale: positive.
        shift: `(3,)`.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"a scale must be a positive number and is {scale}")
    means = gaussians.means.astype(np.float64)
    quaternions, harmonics = gaussians.quaternions, gaussians.harmonics
    if rotation is not None:
        means = means @ rotation.T
        quaternions = quaternions_of(rotation @ gaussians.rotations().astype(np.float64))
        degree = min(3, gaussians.degree)
        harmonics = np.einsum("kj,njc->nkc", harmonics_turn(rotation, degree), harmonics[:, : (degree + 1) ** 2])
    means = scale * means + (np.zeros(3) if shift is None else shift)
    return Gaussians(means, gaussians.log_scales + math.log(scale), quaternions, gaussians.logits, harmonics)


def harmonics_turn(rotation: np.ndarray, degree: int) -> np.ndarray:
    """The matrix `(k, k)` that turns coefficients of real harmonics up to `degree` with the object."""
    count = (degree + 1) ** 2
    directions = np.random.default_rng(0).normal(size=(4 * count + 8, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def values(points: np.ndarray) -> np.ndarray:
        out = np.zeros((len(points), 16))
        for row, (x, y, z) in zip(out, points, strict=True):
            basis(x, y, z, degree, row)
        return out[:, :count]

    turn: np.ndarray = np.linalg.lstsq(values(directions), values(directions @ rotation), rcond=None)[0]
    return turn


def upright(up: np.ndarray) -> np.ndarray:
    """The rotation `(3, 3)` that brings a direction to +y by the shortest way."""
    up = np.asarray(up, np.float64)
    length = np.linalg.norm(up)
    if up.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise InputError(f"up must be a direction of three numbers, not all zero, and is {up.tolist()}")
    up = up / length
    axis = np.cross(up, [0.0, 1.0, 0.0])
    cosine = up[1]
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: np.ndarray = np.eye(3) + k + k @ k / (1 + cosine)
    return turn

# mypy: allow-untyped-defs
"""Ties Gaussians to a cage: each one follows a small tetrahedron of its own, whose corners follow the cage.

Paper 1, section 6 of its note (two levels; F, mean and covariance as in the paper). Ours, because the paper does not
say: the small tetrahedron is regular around the ellipsoid, about one cell wide, shrunk until its corners lie in the
cage, and Gaussians for which that fails follow one cage tetrahedron (one level). The centre always follows the cage.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError
from isometry.scenes._numba import compiled
from isometry.scenes.cage import Cage
from isometry.scenes.gaussians import Gaussians

# A regular tetrahedron around the unit ball.
_CORNERS = math.sqrt(3.0) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=np.float64)
_LOWEST = -0.1  # a corner may lie this far outside its tetrahedron, in barycentric units


@dataclass(frozen=True)
class Embedding:
    """Weights of n Gaussians on a cage.

    Attributes:
        tets: cage tetrahedron of each corner `(n, 4)` int32.
        weights: `(n, 4, 4)` float32, corner by vertex.
        inverse: inverse edge matrix of the small tetrahedron `(n, 3, 3)` float32.
        centre_tets: `(n,)` int32.
        centre_weights: `(n, 4)` float32.
        two_level: `(n,)` bool; the others fell back to one level.
        seconds: what binding took.
    """

    tets: np.ndarray
    weights: np.ndarray
    inverse: np.ndarray
    centre_tets: np.ndarray
    centre_weights: np.ndarray
    two_level: np.ndarray
    seconds: float

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        arrays = (self.tets, self.weights, self.inverse, self.centre_tets, self.centre_weights)
        return sum(array.nbytes for array in arrays)

    @property
    def fallback_share(self) -> float:
        """Share of the Gaussians that follow one tetrahedron only."""
        return float(1.0 - self.two_level.mean()) if len(self.two_level) else 0.0


def bind(gaussians: Gaussians, cage: Cage, *, levels: int = 2) -> Embedding:
    """Tie Gaussians to a cage at rest.

    Args:
        levels: 2 as in the paper; 1 gives every Gaussian the deformation of the one tetrahedron around its centre.
    """
    if levels not in (1, 2):
        raise InputError(f"an embedding has 1 or 2 levels and not {levels}")
    started = time.perf_counter()
    n = len(gaussians)
    means = gaussians.means.astype(np.float64)
    centre_tets, centre_weights = cage.locate(means)
    corners = cage.vertices[cage.tets]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
    cage_inverse = np.linalg.inv(edges)
    tets = np.repeat(centre_tets[:, None], 4, axis=1)
    weights = np.tile(np.eye(4), (n, 1, 1))
    inverse = cage_inverse[centre_tets]
    two_level = np.zeros(n, bool)
    if levels == 2 and n:
        scales = np.maximum(gaussians.scales.astype(np.float64), 0.2 * gaussians.scales.max(axis=1, keepdims=True))
        axes = gaussians.rotations().astype(np.float64) * scales[:, None, :]
        # corner distance over cell: the tetrahedron of a ball of radius 1 has edges of 4.9
        size = np.clip(cage.cell / (4.9 * scales.max(axis=1)), 0.1, 50.0)
        open_ = np.arange(n)
        for _ in range(10):
            local = np.einsum("nij,kj->nki", axes[open_], _CORNERS) * size[open_, None, None]
            where, b = cage.locate((means[open_, None, :] + local).reshape(-1, 3))
            where, b = where.reshape(-1, 4), b.reshape(-1, 4, 4)
            good = b.min(axis=(1, 2)) > _LOWEST
            rows = open_[good]
            tets[rows], weights[rows], two_level[rows] = where[good], b[good], True
            inverse[rows] = np.linalg.inv((local[good, 1:] - local[good, :1]).transpose(0, 2, 1))
            open_ = open_[~good]
            if not len(open_):
                break
            size[open_] *= 0.7
    return Embedding(
        tets.astype(np.int32), weights.astype(np.float32), inverse.astype(np.float32), centre_tets.astype(np.int32),
        centre_weights.astype(np.float32), two_level, time.perf_counter() - started,
    )  # fmt: skip


def deform(
    embedding: Embedding, cage: Cage, x: np.ndarray, covariances: np.ndarray, *, turns: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a moved cage does to its Gaussians.

    Args:
        x: cage vertices now `(v, 3)`.
        covariances: at rest `(n, 6)`.
        turns: also give rotations of the harmonics.
    Returns:
        means `(n, 3)`, covariances `(n, 6)`, F `(n, 3, 3)`, rotations `(n, 3, 3)` (length 0 unless `turns`), float32.
    """
    n = len(embedding.tets)
    means, moved = np.empty((n, 3), np.float32), np.empty((n, 6), np.float32)
    gradients = np.empty((n, 3, 3), np.float32)
    rotations = np.empty((n if turns else 0, 3, 3), np.float32)
    deform_into(
        np.ascontiguousarray(x, np.float32), cage.tets, embedding.tets, embedding.weights, embedding.inverse,
        embedding.centre_tets, embedding.centre_weights, covariances, means, moved, gradients, rotations,
    )  # fmt: skip
    return means, moved, gradients, rotations


@compiled
def deform_into(x, cage_tets, tets, weights, inverse, centre_tets, centre_weights, covariances,
                means, moved, gradients, rotations):  # fmt: skip
    """The loop of `deform`; allocates nothing. Scalars and unsigned indices: small arrays cost three times as much."""
    f = np.empty((3, 3), np.float32)
    m = np.empty((3, 3), np.float32)
    zero, limit = np.float32(0.0), np.float32(192.0)
    for number in range(len(tets)):
        i = np.uint64(number)
        c = np.uint64(centre_tets[i])
        a0, a1, a2, a3 = _corners(cage_tets, c)
        u0, u1, u2, u3 = centre_weights[i, 0], centre_weights[i, 1], centre_weights[i, 2], centre_weights[i, 3]
        means[i, 0] = u0 * x[a0, 0] + u1 * x[a1, 0] + u2 * x[a2, 0] + u3 * x[a3, 0]
        means[i, 1] = u0 * x[a0, 1] + u1 * x[a1, 1] + u2 * x[a2, 1] + u3 * x[a3, 1]
        means[i, 2] = u0 * x[a0, 2] + u1 * x[a1, 2] + u2 * x[a2, 2] + u3 * x[a3, 2]
        px, py, pz = _corner(x, cage_tets, tets, weights, i, np.uint64(0))
        f00 = f01 = f02 = f10 = f11 = f12 = f20 = f21 = f22 = zero
        for k in range(3):
            e0, e1, e2 = _corner(x, cage_tets, tets, weights, i, np.uint64(k + 1))
            e0, e1, e2 = e0 - px, e1 - py, e2 - pz
            r0, r1, r2 = inverse[i, k, 0], inverse[i, k, 1], inverse[i, k, 2]
            f00, f01, f02 = f00 + e0 * r0, f01 + e0 * r1, f02 + e0 * r2
            f10, f11, f12 = f10 + e1 * r0, f11 + e1 * r1, f12 + e1 * r2
            f20, f21, f22 = f20 + e2 * r0, f21 + e2 * r1, f22 + e2 * r2
        size = f00 * f00 + f01 * f01 + f02 * f02 + f10 * f10 + f11 * f11 + f12 * f12 + f20 * f20 + f21 * f21 + f22 * f22
        if size > limit:  # stretched more than eight-fold on average: keep the splat on the screen
            s = np.sqrt(limit / size)
            f00, f01, f02, f10, f11, f12, f20, f21, f22 = (
                s * f00, s * f01, s * f02, s * f10, s * f11, s * f12, s * f20, s * f21, s * f22,
            )  # fmt: skip
        xx, xy, xz = covariances[i, 0], covariances[i, 1], covariances[i, 2]
        yy, yz, zz = covariances[i, 3], covariances[i, 4], covariances[i, 5]
        m00, m01, m02 = f00 * xx + f01 * xy + f02 * xz, f00 * xy + f01 * yy + f02 * yz, f00 * xz + f01 * yz + f02 * zz
        m10, m11, m12 = f10 * xx + f11 * xy + f12 * xz, f10 * xy + f11 * yy + f12 * yz, f10 * xz + f11 * yz + f12 * zz
        m20, m21, m22 = f20 * xx + f21 * xy + f22 * xz, f20 * xy + f21 * yy + f22 * yz, f20 * xz + f21 * yz + f22 * zz
        moved[i, 0] = m00 * f00 + m01 * f01 + m02 * f02
        moved[i, 1] = m00 * f10 + m01 * f11 + m02 * f12
        moved[i, 2] = m00 * f20 + m01 * f21 + m02 * f22
        moved[i, 3] = m10 * f10 + m11 * f11 + m12 * f12
        moved[i, 4] = m10 * f20 + m11 * f21 + m12 * f22
        moved[i, 5] = m20 * f20 + m21 * f21 + m22 * f22
        if len(gradients):
            gradients[i, 0, 0], gradients[i, 0, 1], gradients[i, 0, 2] = f00, f01, f02
            gradients[i, 1, 0], gradients[i, 1, 1], gradients[i, 1, 2] = f10, f11, f12
            gradients[i, 2, 0], gradients[i, 2, 1], gradients[i, 2, 2] = f20, f21, f22
        if len(rotations):
            f[0, 0], f[0, 1], f[0, 2] = f00, f01, f02
            f[1, 0], f[1, 1], f[1, 2] = f10, f11, f12
            f[2, 0], f[2, 1], f[2, 2] = f20, f21, f22
            _polar(f, m, rotations[i])


@compiled
def _corners(cage_tets, t):
    return (
        np.uint64(cage_tets[t, 0]), np.uint64(cage_tets[t, 1]), np.uint64(cage_tets[t, 2]), np.uint64(cage_tets[t, 3]),
    )  # fmt: skip


@compiled
def _corner(x, cage_tets, tets, weights, i, k):
    a, b, c, d = _corners(cage_tets, np.uint64(tets[i, k]))
    p, q, r, s = weights[i, k, 0], weights[i, k, 1], weights[i, k, 2], weights[i, k, 3]
    return (
        p * x[a, 0] + q * x[b, 0] + r * x[c, 0] + s * x[d, 0],
        p * x[a, 1] + q * x[b, 1] + r * x[c, 1] + s * x[d, 1],
        p * x[a, 2] + q * x[b, 2] + r * x[c, 2] + s * x[d, 2],
    )


@compiled
def _polar(f, m, out):
    # Newton's iteration R <- (R + R^-T) / 2; a flattened or turned-over F gives no rotation at all.
    for a in range(3):
        for b in range(3):
            out[a, b] = f[a, b]
    for _ in range(8):
        m[0, 0] = out[1, 1] * out[2, 2] - out[1, 2] * out[2, 1]
        m[0, 1] = out[1, 2] * out[2, 0] - out[1, 0] * out[2, 2]
        m[0, 2] = out[1, 0] * out[2, 1] - out[1, 1] * out[2, 0]
        m[1, 0] = out[2, 1] * out[0, 2] - out[2, 2] * out[0, 1]
        m[1, 1] = out[2, 2] * out[0, 0] - out[2, 0] * out[0, 2]
        m[1, 2] = out[2, 0] * out[0, 1] - out[2, 1] * out[0, 0]
        m[2, 0] = out[0, 1] * out[1, 2] - out[0, 2] * out[1, 1]
        m[2, 1] = out[0, 2] * out[1, 0] - out[0, 0] * out[1, 2]
        m[2, 2] = out[0, 0] * out[1, 1] - out[0, 1] * out[1, 0]
        det = out[0, 0] * m[0, 0] + out[0, 1] * m[0, 1] + out[0, 2] * m[0, 2]
        if not det > np.float32(1e-6):
            for a in range(3):
                for b in range(3):
                    out[a, b] = 1.0 if a == b else 0.0
            return
        change = np.float32(0.0)
        for a in range(3):
            for b in range(3):
                new = np.float32(0.5) * (out[a, b] + m[a, b] / det)
                change = max(change, abs(new - out[a, b]))
                out[a, b] = new
        if change < np.float32(1e-6):
            return

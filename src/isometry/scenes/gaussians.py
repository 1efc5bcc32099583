"""A set of 3D Gaussians: the one thing that every part of this room reads or makes.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023: Sigma = R diag(s)^2 R^T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.scenes.shapes import covariances

SH_C0 = 0.28209479177387814


@dataclass(frozen=True)
class Gaussians:
    """n Gaussians with the parameters as trained files hold them, so that reading and writing loses nothing.

    Args:
        means: centres `(n, 3)` float32, in the scene's unit.
        log_scales: natural logarithm of the three standard deviations `(n, 3)` float32.
        quaternions: rotation `(n, 4)` float32, w first, of any length but zero.
        logits: opacity before the sigmoid `(n,)` float32.
        harmonics: real spherical harmonics `(n, (degree + 1)^2, 3)` float32; colour = 0.5 + sum, floored at 0.
    """

    means: np.ndarray
    log_scales: np.ndarray
    quaternions: np.ndarray
    logits: np.ndarray
    harmonics: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.means)
        shapes = {"means": (n, 3), "log_scales": (n, 3), "quaternions": (n, 4), "logits": (n,)}
        for name, shape in shapes.items():
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ShapeError(f"{name} of {n} Gaussians must be {shape} and is {array.shape}")
            object.__setattr__(self, name, array)
        harmonics = np.ascontiguousarray(self.harmonics, dtype=np.float32)
        count = harmonics.shape[1] if harmonics.ndim == 3 else 0
        if harmonics.ndim != 3 or len(harmonics) != n or harmonics.shape[2] != 3 or math.isqrt(count) ** 2 != count:
            raise ShapeError(f"harmonics must be ({n}, 1|4|9|16|25, 3) and are {harmonics.shape}")
        object.__setattr__(self, "harmonics", harmonics)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        return math.isqrt(self.harmonics.shape[1]) - 1

    @property
    def scales(self) -> np.ndarray:
        """Standard deviations `(n, 3)` float32."""
        return np.exp(self.log_scales)

    @property
    def opacities(self) -> np.ndarray:
        """Opacities `(n,)` float32 within 0..1."""
        return (1.0 / (1.0 + np.exp(-self.logits.astype(np.float64)))).astype(np.float32)

    @property
    def base_colours(self) -> np.ndarray:
        """Colour of the constant harmonic alone `(n, 3)` float32, clipped to 0..1."""
        return np.clip(self.harmonics[:, 0] * SH_C0 + 0.5, 0.0, 1.0)

    def rotations(self) -> np.ndarray:
        """Rotation matrices `(n, 3, 3)` float32."""
        return rotation_matrices(self.quaternions)

    def covariances(self) -> np.ndarray:
        """Covariances as `(n, 6)` float32: xx, xy, xz, yy, yz, zz."""
        out = np.empty((len(self), 6), np.float32)
        covariances(self.log_scales, self.quaternions, out)
        return out

    def select(self, rows: np.ndarray) -> Gaussians:
        """The Gaussians of a boolean mask or of row numbers."""
        return Gaussians(
            self.means[rows], self.log_scales[rows], self.quaternions[rows], self.logits[rows], self.harmonics[rows]
        )

    def with_degree(self, degree: int) -> Gaussians:
        """The same Gaussians with harmonics cut to, or padded with zeros up to, this degree."""
        count = (degree + 1) ** 2
        harmonics = np.zeros((len(self), count, 3), np.float32)
        kept = min(count, self.harmonics.shape[1])
        harmonics[:, :kept] = self.harmonics[:, :kept]
        return Gaussians(self.means, self.log_scales, self.quaternions, self.logits, harmonics)

    def scaled(self, factor: float) -> Gaussians:
        """All lengths times a factor, about the origin."""
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"a scale must be a positive number and is {factor}")
        grown = self.log_scales + np.float32(math.log(factor))
        return Gaussians(self.means * np.float32(factor), grown, self.quaternions, self.logits, self.harmonics)

    def check(self, name: str) -> Gaussians:
        """Itself, after making sure that every number is finite and every quaternion usable.

        Raises:
            InputError: naming the source, the first bad row and the attribute.
        """
        for attribute in ("means", "log_scales", "quaternions", "logits", "harmonics"):
            array = getattr(self, attribute)
            array = array.reshape(len(self), int(np.prod(array.shape[1:])))
            bad = ~np.isfinite(array).all(axis=1)
            if attribute == "logits":
                bad = np.isnan(array).any(axis=1)
            if attribute == "log_scales":
                bad |= (array > 30).any(axis=1)
            if attribute == "quaternions":
                bad |= ~(np.abs(array).max(axis=1) > 0)
            if bad.any():
                row = int(np.argmax(bad))
                what = array[row].tolist()
                raise InputError(
                    f"{name}, splat {row + 1}: {attribute} {what[:4]} cannot be used ({int(bad.sum())} such splats); "
                    "write the file again without them"
                )
        return self


def concatenate(parts: list[Gaussians]) -> Gaussians:
    """Several sets in one; harmonics are padded to the highest degree."""
    if not parts:
        return empty()
    degree = max(part.degree for part in parts)
    parts = [part.with_degree(degree) for part in parts]
    return Gaussians(
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.log_scales for part in parts]),
        np.concatenate([part.quaternions for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.harmonics for part in parts]),
    )


def empty(degree: int = 0) -> Gaussians:
    """No Gaussians."""
    return Gaussians(
        np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4)), np.zeros(0), np.zeros((0, (degree + 1) ** 2, 3))
    )


def rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Quaternions `(n, 4)`, w first, of any length but zero, to rotations `(n, 3, 3)` of the same precision."""
    q = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.stack([np.stack(row, axis=-1) for row in rows], axis=-2))


def quaternions_of(rotations: np.ndarray) -> np.ndarray:
    """Rotations `(n, 3, 3)` to unit quaternions `(n, 4)` float64, w first and not negative."""
    from scipy.spatial.transform import Rotation

    xyzw = Rotation.from_matrix(rotations).as_quat(canonical=True)
    return np.concatenate([xyzw[:, 3:], xyzw[:, :3]], axis=1)


def from_points(
    points: np.ndarray, colours: np.ndarray, *, opacity: float = 0.1, degree: int = 0, smallest: float = 1e-7
) -> Gaussians:
    """Round Gaussians at points, as large as the mean distance to the three nearest others (the reference's start).

    Args:
        points: `(n, 3)`.
        colours: `(n, 3)` within 0..1.
        opacity: of every Gaussian.
        degree: of the harmonics.
        smallest: floor of the squared distance.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(points, np.float32)
    n = len(points)
    if n < 2:
        raise InputError(f"at least two points are needed to size the first Gaussians, and there are {n}")
    neighbours = min(4, n)
    distances, _ = cKDTree(points).query(points, k=neighbours)
    squared = np.maximum((distances[:, 1:] ** 2).mean(axis=1), smallest)
    harmonics = np.zeros((n, (degree + 1) ** 2, 3), np.float32)
    harmonics[:, 0] = (np.asarray(colours, np.float32) - 0.5) / SH_C0
    return Gaussians(
        points,
        np.repeat(0.5 * np.log(squared)[:, None], 3, axis=1),
        np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        np.full(n, math.log(opacity / (1 - opacity)), np.float32),
        harmonics,
    )

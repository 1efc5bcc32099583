"""Posed photographs: pinhole cameras with the usual five distortion numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from isometry.errors import InputError, NotFoundError


@dataclass(frozen=True)
class Camera:
    """A view. Pixel centres lie at +0.5; x goes right, y down, z into the picture.

    Args:
        width, height: pixels.
        fx, fy, cx, cy: pixels.
        rotation: world to camera `(3, 3)` float64.
        translation: world to camera `(3,)` float64.
        distortion: k1, k2, p1, p2 of the OpenCV model; all zero for a pinhole.
        image: the photograph, or None for a view that is only rendered.
        name: shown in messages.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    rotation: np.ndarray
    translation: np.ndarray
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    image: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        numbers = np.array([self.fx, self.fy, self.cx, self.cy, *self.distortion])
        where = self.name or "camera"
        if not 1 <= self.width <= 32768 or not 1 <= self.height <= 32768:
            raise InputError(
                f"{where}: a picture of {self.width} x {self.height} pixels cannot be used (1 to 32768 a side)"
            )
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"{where}: focal lengths and centre must be finite and focal lengths positive: {numbers.tolist()}"
            )
        object.__setattr__(self, "rotation", np.asarray(self.rotation, np.float64))
        object.__setattr__(self, "translation", np.asarray(self.translation, np.float64))
        if self.rotation.shape != (3, 3) or self.translation.shape != (3,):
            raise InputError(f"{where}: a pose needs a 3 x 3 rotation and 3 numbers of translation")
        off = np.abs(self.rotation @ self.rotation.T - np.eye(3)).max()
        if not np.isfinite(self.translation).all() or not off < 1e-2:
            raise InputError(f"{where}: its pose is not a rotation and a finite translation (off by {off:.3g})")

    @property
    def position(self) -> np.ndarray:
        """Where it stands in the world `(3,)`."""
        return -self.rotation.T @ self.translation

    def resized(self, factor: float) -> Camera:
        """The same view with `factor` times as many pixels a side (rounded to whole ones)."""
        width, height = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        sx, sy = width / self.width, height / self.height
        return Camera(
            width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy,
            self.rotation, self.translation, self.distortion, self.image, self.name,
        )  # fmt: skip


def look_at(
    position: ArrayLike,
    target: ArrayLike,
    *,
    up: ArrayLike,
    width: int,
    height: int,
    field_of_view: float = 50.0,
    name: str = "view",
) -> Camera:
    """A pinhole at `position` that looks at `target` with `up` upwards; `field_of_view` is vertical, in degrees."""
    here = np.asarray(position, float)
    forward = np.asarray(target, float) - here
    if not np.linalg.norm(forward) > 0:
        raise InputError(f"{name}: a camera cannot look at the place where it stands")
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, float))
    if np.linalg.norm(right) < 1e-6:
        right = np.cross(forward, np.roll(np.asarray(up, float), 1))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = height / 2 / np.tan(np.radians(field_of_view) / 2)
    return Camera(width, height, focal, focal, width / 2, height / 2, rotation, -rotation @ here, name=name)


@dataclass(frozen=True)
class Capture:
    """Posed photographs and, where the source has them, sparse points `(n, 3)` with colours `(n, 3)` within 0..1."""

    cameras: list[Camera]
    points: np.ndarray | None = None
    colours: np.ndarray | None = None


def read_cameras(path: str | Path) -> Capture:
    """The capture of a folder (COLMAP's `sparse/0` or a `transforms.json`) or of such a file itself."""
    from isometry.scenes.files.colmap import read_colmap
    from isometry.scenes.files.transforms import read_transforms

    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"there is no capture '{path}'")
    if path.is_file():
        return read_transforms(path)
    for folder in (path, path / "sparse" / "0", path / "sparse", path / "colmap" / "sparse" / "0"):
        if (folder / "cameras.bin").is_file() or (folder / "cameras.txt").is_file():
            images = next((path / name for name in ("images", "image", "input") if (path / name).is_dir()), path)
            return read_colmap(folder, images)
    for name in ("transforms.json", "transforms_train.json"):
        if (path / name).is_file():
            return read_transforms(path / name)
    raise InputError(f"{path}: neither a COLMAP model (cameras.bin or .txt) nor a transforms.json is in this folder")

"""Photographs at working size, straightened, with what is known of every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from isometry.errors import InputError
from isometry.scenes.files.cameras import Camera
from isometry.scenes.files.limits import available_bytes
from isometry.scenes.files.pictures import picture_size, read_picture
from isometry.types import Progress

HELD_OUT = 8


@dataclass(frozen=True)
class Photo:
    """A pinhole camera and what it saw.

    Attributes:
        colours: `(h, w, 3)` float32 within 0..1.
        known: `(h, w)` bool, False where straightening left nothing.
        distortion: that was taken out, k1, k2, p1, p2.
    """

    camera: Camera
    colours: np.ndarray
    known: np.ndarray
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def load_photos(cameras: list[Camera], longest: int, progress: Progress | None = None) -> list[Photo]:
    """Photographs with a longer side of at most `longest` pixels, lens distortion taken out.

    Raises:
        InputError: fewer than two cameras, a camera without a picture, a picture of another shape than its camera,
            more pixels than the memory holds.
    """
    if len(cameras) < 2:
        raise InputError(f"a scene is built from at least two photographs and there is {len(cameras)}")
    sizes = [_small(camera, longest) for camera in cameras]
    wanted = sum(26 * camera.width * camera.height for camera in sizes)
    if wanted > available_bytes() // 2:
        raise InputError(
            f"{len(cameras)} photographs of up to {longest} pixels need about {wanted / 1e9:.1f} GB and "
            f"{available_bytes() / 2e9:.1f} GB may be used here; give a smaller --size"
        )
    photos = []
    for number, (camera, small) in enumerate(zip(cameras, sizes, strict=True)):
        photos.append(_load(camera, small))
        if progress is not None and progress(number + 1, len(cameras)) is False:
            raise KeyboardInterrupt
    return photos


def load_photo(camera: Camera, longest: int) -> Photo:
    """One photograph as `load_photos` gives them."""
    return _load(camera, _small(camera, longest))


def _small(camera: Camera, longest: int) -> Camera:
    return camera.resized(min(1.0, longest / max(camera.width, camera.height)))


def _load(camera: Camera, small: Camera) -> Photo:
    if camera.image is None:
        raise InputError(f"camera '{camera.name}' has no photograph")
    width, height = picture_size(camera.image)
    if abs(width * camera.height - height * camera.width) > 0.01 * width * camera.height:
        raise InputError(
            f"{camera.image}: {width} x {height} pixels, and its camera has {camera.width} x {camera.height}; "
            "give the photographs that the cameras were computed from"
        )
    colours = read_picture(camera.image, (small.width, small.height))
    known = np.ones(colours.shape[:2], bool)
    if any(small.distortion):
        rows, columns = _distorted(small)
        known = (rows >= 0) & (columns >= 0) & (rows <= small.height - 1) & (columns <= small.width - 1)
    straight = np.stack([straighten(colours[..., c], small) for c in range(3)], axis=-1)
    pinhole = replace(small, distortion=(0.0, 0.0, 0.0, 0.0))
    return Photo(pinhole, np.ascontiguousarray(straight, np.float32), known, small.distortion)


def straighten(values: np.ndarray, camera: Camera, order: int = 1) -> np.ndarray:
    """A picture `(h, w)` of a camera with lens distortion as a pinhole of the same size and focal length sees it.

    Args:
        order: 1 interpolates, 0 takes the nearest pixel (for labels). Beyond the border the nearest pixel stands in.
    """
    if not any(camera.distortion):
        return values
    return np.asarray(ndimage.map_coordinates(values, _distorted(camera), order=order, mode="nearest"))


def _distorted(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in the photograph for every pixel of a pinhole with the same focal length."""
    k1, k2, p1, p2 = camera.distortion
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    x, y = (x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + k2 * r2)
    a = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    b = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return b * camera.fy + camera.cy - 0.5, a * camera.fx + camera.cx - 0.5


def split(photos: list[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Photographs to learn from, and every eighth (from the first) to be judged by; none is held out of fewer than 4."""
    if len(photos) < 4:
        return photos, []
    learn = [photo for number, photo in enumerate(photos) if number % HELD_OUT]
    return learn, photos[::HELD_OUT]

"""Photographs and masks in and out, through pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError

_PIXELS = 100_000_000


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading pictures", "scene") from error
    return Image


def _open(path: Path) -> Any:
    try:
        picture = _pillow().open(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: not a picture that can be read: {error}") from error
    if picture.width * picture.height > _PIXELS:
        raise InputError(f"{path}: {picture.width} x {picture.height} pixels are more than the {_PIXELS:,} taken here")
    return picture


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, without decoding."""
    with _open(path) as picture:
        return picture.width, picture.height


def read_picture(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Colours `(height, width, 3)` float32 within 0..1, shrunk to `size` (width, height) by area where given."""
    with _open(path) as picture:
        try:
            picture = picture.convert("RGB")
        except OSError as error:
            raise InputError(f"{path}: the picture is damaged: {error}") from error
        if size is not None and size != picture.size:
            picture = picture.resize(size, _pillow().Resampling.BOX)
        return np.asarray(picture, np.float32) / 255.0


def read_labels(path: Path) -> np.ndarray:
    """A mask `(height, width)` int32: grey or palette values are labels; 0 is the background."""
    with _open(path) as picture:
        if picture.mode not in {"L", "P", "I", "I;16", "1"}:
            picture = picture.convert("L")
        return np.asarray(picture).astype(np.int32)


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG file of colours `(h, w, 3)` or greys `(h, w)`, floats within 0..1 or uint8."""
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    stream = io.BytesIO()
    _pillow().fromarray(picture).save(stream, "PNG")
    return stream.getvalue()

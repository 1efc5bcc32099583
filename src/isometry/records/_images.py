"""Image values: how to tell them, and whether they can be decoded to the last row."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa

from isometry.errors import MissingExtraError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 200_000_000
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


def is_image_bytes(value: bytes) -> bool:
    """Whether bytes begin like a picture in one of the formats read."""
    return value.startswith(_MAGIC) or (value[:4] == b"RIFF" and value[8:12] == b"WEBP")


def holds_images(values: list[Any], kind: pa.DataType, folder: Path | None) -> bool:
    """Whether the first values of a column are pictures: structs or binaries of their bytes, or paths of files."""
    if not values:
        return False
    if pa.types.is_struct(kind):
        if "bytes" not in {field.name for field in kind}:
            return False
        return all(
            is_image_bytes(value["bytes"]) if value.get("bytes") else _names_image(value.get("path"))
            for value in values
        )
    if all(isinstance(value, bytes) for value in values):
        return all(map(is_image_bytes, values))
    if not all(map(_names_image, values)):
        return False
    return any(_located(value, folder).is_file() for value in values)


def _names_image(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES)


def check_images(images: pa.Array, folder: Path | None) -> tuple[pa.Array, dict[int, str]]:
    """Decode every picture. Returns the column (paths made absolute, structs of bytes and path as bytes), and a reason
    where one cannot be decoded."""
    bad: dict[int, str] = {}
    values = images.to_pylist()
    structs = pa.types.is_struct(images.type)
    for place, value in enumerate(values):
        if value is None:
            continue
        content = value.get("bytes") if isinstance(value, dict) else value
        path = value.get("path") if isinstance(value, dict) else value
        reason = None
        if isinstance(content, bytes):
            reason = _undecodable(io.BytesIO(content)) if content else "the image is empty"
            values[place] = content
        elif isinstance(path, str) and path:
            located = _located(path, folder)
            reason = _undecodable(located)
            values[place] = str(located) if not structs else located.read_bytes() if reason is None else None
        else:
            values[place] = None
        if reason:
            bad[place] = reason
    return pa.array(values, pa.binary() if structs else images.type), bad


def image_size(path: Path) -> tuple[int | None, int | None]:
    """Width and height in pixels by the file's header; (None, None) where it has none that can be read."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(path) as image:
                return image.size
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise whatever damaged bytes lead them to; check_images says what is wrong
        return None, None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("reading images", "vision") from None
    return Image


def _undecodable(source: Path | io.BytesIO) -> str | None:
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(source) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    return f"the image has {width} x {height} pixels; at most {MAX_PIXELS:,} are read, so scale it down"
                image.draft(image.mode, (1, 1))  # JPEG: read everything, but compute as little as possible
                image.load()
    except FileNotFoundError:
        return f"there is no image file {source}"
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        if type(error).__name__ == "UnidentifiedImageError":
            return "it is not an image that can be read"
        return f"the image cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"
    return None


def _located(path: str, folder: Path | None) -> Path:
    return (folder or Path()).joinpath(path).absolute()

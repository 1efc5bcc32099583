"""Pictures from a client: bounded before they are decoded, and decoded only by readers that are meant for it."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

from isometry.errors import InputError, MissingExtraError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")


def from_base64(text: str) -> bytes:
    """The bytes of a picture in base64, also as a data URL. Raises `InputError`."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the picture is not in base64; encode its bytes so") from None


def decode_picture(content: bytes, most_pixels: int) -> Any:
    """A PIL image (RGB) of a PNG, JPEG, WebP, GIF or BMP file; its size is read before anything is decoded.

    Raises: `InputError` for other content, damaged files and more than `most_pixels`.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("searching by a picture", "vision") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > most_pixels:
                    raise InputError(
                        f"the picture has {image.width} x {image.height} pixels and at most {most_pixels:,} are read;"
                        " scale it down"
                    )
                return image.convert("RGB")
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise InputError(f"the picture has far more than {most_pixels:,} pixels; scale it down") from None
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        raise InputError(f"it is no picture that can be read; send one of {', '.join(FORMATS)}") from error

"""Pictures from files, bytes or memory, as encoders want them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.errors import RecordError

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 100_000_000


def open_image(source: Any, number: int) -> Image:
    """A PIL image, encoded bytes, or a path, as an RGB image.

    Args:
        number: 1-based place among its like, for the message.
    Raises:
        RecordError: not a picture, a damaged one, or one of more than 100 million pixels.
    """
    from PIL import Image

    name = str(source) if isinstance(source, str | Path) else "image"
    try:
        if isinstance(source, Image.Image):
            return source.convert("RGB")
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source)
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {_MOST_PIXELS:,}")
        return image.convert("RGB")
    except (OSError, ValueError, TypeError, AttributeError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(name, number, None, f"not a readable picture ({error})") from error

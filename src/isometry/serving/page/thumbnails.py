"""Small pictures of the records of a collection that has an image column."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isometry.search import Collection

SIDE = 480  # pixels of the longer side
MOST_PIXELS = 100_000_000
MOST_BYTES = 200_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def thumbnail(collection: Collection, identity: str) -> bytes | None:
    """A WebP of at most 480 pixels a side, re-encoded so that nothing but pixels leaves; None where there is no picture."""
    column = next((one for one in collection.columns if one.role == "image"), None)
    if column is None:
        return None
    if column.kind == "binary":
        content = collection.blob(identity, column.name)
    else:
        (record,) = collection.get(identity)
        content = _read(record.get(column.name) if record else None)
    return _small(content) if content else None


def _read(path: object) -> bytes | None:
    if not isinstance(path, str) or not path:
        return None
    try:  # a pipe or a device would keep the request waiting
        return Path(path).read_bytes() if Path(path).is_file() and Path(path).stat().st_size <= MOST_BYTES else None
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _small(content: bytes) -> bytes | None:
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None
                image.draft("RGB", (2 * SIDE, 2 * SIDE))
                small = image.convert("RGBA" if "A" in image.getbands() else "RGB")
                small.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        small.save(out, "WEBP", quality=82)
    except MemoryError:
        raise
    except Exception:  # Pillow's decoders raise whatever damaged bytes lead them to
        return None
    return out.getvalue()

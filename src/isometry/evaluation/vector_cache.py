"""Vectors on disk, by what made them and of which text: each is computed once, whatever is stopped in between.

A cache folder has one folder per encoder fingerprint, and in it immutable files of some thousand vectors each, written
whole or not at all. Two runs at a time may compute the same vectors; neither disturbs the other. A file that cannot be
read (its checksum is zip's) is removed and its vectors are computed again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, ShapeError, StorageError
from isometry.evaluation.atomic import write_atomically
from isometry.types import DescribedEncoder, EncoderDescription

logger = logging.getLogger(__name__)
_BLOCK = 1024
_KEY = 16


class CachedEncoder:
    """An encoder that looks a text up before it computes, in memory and, where a folder is given, on disk.

    Args:
        encoder: says what it is (`describe`). A text is one thing as a query and another as a document.
        folder: cache of all encoders; None keeps vectors in memory only.
        progress: called with the number of texts newly encoded so far.
    Attributes:
        encoded: texts encoded in this run.
        seconds, texts: what all vectors at hand once cost, and how many they are.
    """

    def __init__(
        self, encoder: DescribedEncoder, folder: Path | None, progress: Callable[[int], Any] | None = None
    ) -> None:
        self._encoder, self._progress = encoder, progress
        self._about = encoder.describe()
        self._folder = folder / self._about.fingerprint if folder is not None else None
        self._rows: dict[bytes, int] = {}
        self._vectors = np.empty((0, self._about.dimension), np.float32)
        self.encoded, self.seconds = 0, 0.0
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                blocks = [_read(file, self._about.dimension) for file in sorted(self._folder.glob("*.npz"))]
            except OSError as error:
                raise StorageError(f"the cache {folder} cannot be used: {error.strerror or error}") from error
            for keys, vectors, seconds in (block for block in blocks if block is not None):
                self._take(keys, vectors, seconds)

    @property
    def texts(self) -> int:
        return len(self._rows)

    def describe(self) -> EncoderDescription:
        return self._about

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Texts to float32 `(n, d)`."""
        return self._get(inputs, "d", self._encoder.encode)

    def encode_queries(
        self, texts: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """Queries to float32 `(n, d)`, as the encoder wants them encoded."""
        encode = getattr(self._encoder, "encode_queries", self._encoder.encode)
        return self._get(texts, "q", encode)

    def _get(self, texts: Sequence[str], role: str, encode: Callable[[list[str]], Any]) -> np.ndarray:
        keys = [_key(role + text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        names = list(new)
        for start in range(0, len(names), _BLOCK):
            part = names[start : start + _BLOCK]
            began = time.perf_counter()
            vectors = np.ascontiguousarray(encode([new[key] for key in part]), dtype=np.float32)
            seconds = time.perf_counter() - began
            if vectors.shape != (len(part), self._about.dimension):
                raise ShapeError(
                    f"encoder '{self._about.name}' gave an array of shape {vectors.shape} for {len(part)} texts of "
                    f"{self._about.dimension} dimensions"
                )
            if not np.isfinite(vectors).all():
                bad = new[part[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]]
                raise InputError(f"encoder '{self._about.name}' gave NaN or infinity for the text {bad[:60]!r}")
            table = np.frombuffer(b"".join(part), np.uint8).reshape(-1, _KEY)
            if self._folder is not None:
                _write(self._folder, table, vectors, seconds)
            self._take(table, vectors, seconds)
            self.encoded += len(part)
            if self._progress is not None:
                self._progress(self.encoded)
        return self._vectors[[self._rows[key] for key in keys]]

    def _take(self, keys: np.ndarray, vectors: np.ndarray, seconds: float) -> None:
        start = len(self._rows)
        fresh = [i for i, key in enumerate(keys) if key.tobytes() not in self._rows]
        if start + len(fresh) > len(self._vectors):
            grown = np.empty((max(2 * len(self._vectors), start + len(fresh)), self._about.dimension), np.float32)
            grown[:start] = self._vectors[:start]
            self._vectors = grown
        self._vectors[start : start + len(fresh)] = vectors[fresh]
        self._rows.update({keys[i].tobytes(): start + place for place, i in enumerate(fresh)})
        self.seconds += seconds


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=_KEY).digest()


def _write(folder: Path, keys: np.ndarray, vectors: np.ndarray, seconds: float) -> None:
    name = hashlib.blake2b(keys.tobytes(), digest_size=_KEY).hexdigest()
    buffer = io.BytesIO()
    np.savez(buffer, keys=keys, vectors=vectors, seconds=np.float64(seconds))
    write_atomically(folder / f"{name}.npz", buffer.getvalue())


def _read(file: Path, dimension: int) -> tuple[np.ndarray, np.ndarray, float] | None:
    try:
        with np.load(file, allow_pickle=False) as found:
            keys, vectors, seconds = found["keys"], found["vectors"], float(found["seconds"])
        if keys.shape != (len(vectors), _KEY) or vectors.shape[1:] != (dimension,) or vectors.dtype != np.float32:
            raise ValueError("other shapes than this cache writes")
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        logger.warning("%s is damaged (%s): its vectors will be computed again", file, error)
        file.unlink(missing_ok=True)
        return None
    return keys, vectors, seconds

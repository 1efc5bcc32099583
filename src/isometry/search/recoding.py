"""From the vectors of one encoder to those of another, while searches go on with the old ones."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import InputError, StorageError
from isometry.search.plan import SearchPlan
from isometry.search.store.store import Store, read_segments, read_values
from isometry.types import Progress

if TYPE_CHECKING:
    from isometry.search.collection import Collection, Snapshot

_CHUNK = 512
_CRC = struct.Struct("<I")


def recode(
    collection: Collection, store: Store, encoder: Any, plan: SearchPlan | None, progress: Progress | None
) -> None:
    """Encode all texts into a file in `cache/`, then replace the vectors in one commit.

    The file holds chunks of 512 vectors, each behind its CRC-32; a rerun goes on behind the last whole one.
    """
    from isometry.search.collection import document_text

    description = encoder.describe()
    if store.multi_vector or description.multi_vector:
        raise InputError(f"{store.path} or the encoder gives several vectors a record, which cannot be exchanged")
    texts = [number for number, column in enumerate(store.columns) if column.role == "text"]
    if not texts or collection.image_column is not None:
        raise InputError(f"{store.path} has no text columns to encode")
    with collection.read() as snapshot:
        path = store.path / "cache" / f"recode-{_key(snapshot, description.fingerprint)}.part"
        rows = np.fromiter(
            (row for (row,) in snapshot.connection.execute("SELECT row FROM records ORDER BY row")), np.int64
        )
        dimension = description.dimension
        try:
            path.parent.mkdir(exist_ok=True)
            for other in path.parent.glob("recode-*.part"):
                if other != path:
                    other.unlink(missing_ok=True)
            done = _whole_chunks(path, len(rows), dimension)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(0, os.SEEK_END)
                for start in range(done * _CHUNK, len(rows), _CHUNK):
                    some = rows[start : start + _CHUNK].tolist()
                    read = [
                        document_text([values[number] for number in texts])
                        for _, _, values in read_values(snapshot.connection, snapshot.columns, some)
                    ]
                    vectors = collection._fitted_to(snapshot, encoder.encode(read), dimension)
                    data = vectors.astype("<f4").tobytes()
                    file.write(_CRC.pack(zlib.crc32(data)) + data)
                    file.flush()
                    if progress is not None:
                        progress(min(start + _CHUNK, len(rows)), len(rows))
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    details: dict[str, Any] = {"encoder": description.to_dict(), "built": None}
    if plan is not None:
        details["plan"] = None if plan == SearchPlan() else plan.to_dict()
    store.replace_vectors(_chunks(path, len(rows), dimension), dimension, details)
    path.unlink(missing_ok=True)


def _key(snapshot: Snapshot, fingerprint: str) -> str:
    """Over the records of this version and the encoder."""
    digests = [info.digest for info in read_segments(snapshot.connection)]
    named = repr((fingerprint, digests, snapshot.meta["content_sum"], snapshot.meta["next_row"]))
    return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()


def _chunks(path: Path, rows: int, dimension: int) -> Iterator[np.ndarray]:
    """The vectors of each chunk; ends at the first that is not whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for start in range(0, rows, _CHUNK):
            size = 4 * dimension * min(_CHUNK, rows - start)
            head, data = file.read(_CRC.size), file.read(size)
            if len(head) < _CRC.size or len(data) < size or _CRC.unpack(head)[0] != zlib.crc32(data):
                return
            yield np.frombuffer(data, "<f4").reshape(-1, dimension)


def _whole_chunks(path: Path, rows: int, dimension: int) -> int:
    """How many there are; what stands behind them is cut off."""
    count, size = 0, 0
    for chunk in _chunks(path, rows, dimension):
        count, size = count + 1, size + _CRC.size + chunk.nbytes
    if path.exists():
        os.truncate(path, size)
    return count

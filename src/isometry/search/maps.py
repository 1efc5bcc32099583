"""The map of a collection: a point for every record, made once for each version and kept in `cache/` beside the store.

The file is a cache and never the record of truth: a missing, damaged or outdated one is made again.

    0    16 bytes   BLAKE2b of all that follows
    16              Arrow stream: columns row (int64), x, y (float32), and under `isometry.map` a JSON object of the
                    other attributes of `CollectionMap`

`python -m isometry.search.maps DIR FOLDER` makes the map in a process of its own, puts it under FOLDER, and prints percent
done, a number a line.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from isometry.search.projection import Method, best_method, project
from isometry.search.store.segments import fsync_folder
from isometry.types import Progress

if TYPE_CHECKING:
    from isometry.search.collection import Collection, Snapshot

FILE = "cache/map.arrow"
_LAYOUT = 1  # grows when the same vectors come to other places
_DIGEST = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectionMap:
    """Where the records of one version lie.

    Attributes:
        key: names version and layout; another key, another map.
        version: the commit that it shows.
        method: 'umap' or 'pca'.
        arranged: how many points the method placed itself (see `project`).
        rows: row numbers int64 `(n,)` ascending.
        points: float32 `(n, 2)` in the unit square.
    """

    key: str
    version: int
    method: Method
    arranged: int
    rows: np.ndarray
    points: np.ndarray

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Places in `points` of those of the given row numbers that are on the map."""
        found = np.searchsorted(self.rows, rows)
        inside = found < len(self.rows)
        return found[inside][self.rows[found[inside]] == rows[inside]]


def map_key(snapshot: Snapshot, method: Method) -> str:
    """Over the manifest's digest, which holds version and segment checksums, the method and the layout's version."""
    named = f"{snapshot.meta['_digest']} {method} {_LAYOUT}"
    return hashlib.blake2b(named.encode(), digest_size=12).hexdigest()


def make_map(
    collection: Collection, *, method: Method | None = None, progress: Progress | None = None
) -> CollectionMap:
    """Lay every record of the newest version out; None takes the best method there is. Raises what `project` raises."""
    with collection.read() as snapshot:
        rows = np.sort(snapshot.view.rows[snapshot.view.live])
        vectors = snapshot.view.vectors(rows)
        method = method or best_method(len(rows))
        key, version = map_key(snapshot, method), int(snapshot.meta["version"])
    made = project(vectors, method=method, progress=progress)
    return CollectionMap(key, version, made.method, made.arranged, rows, made.points)


def write_map(folder: Path, held: CollectionMap) -> None:
    """Keep a map beside the store, whole or not at all. Raises `OSError` where the folder cannot be written."""
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"row": held.rows, "x": held.points[:, 0], "y": held.points[:, 1]})
    said = {key: value for key, value in asdict(held).items() if key not in {"rows", "points"}}
    table = table.replace_schema_metadata({"isometry.map": json.dumps(said)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    handle, temporary = tempfile.mkstemp(prefix=".map-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.blake2b(body, digest_size=_DIGEST).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        fsync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def read_map(folder: Path) -> CollectionMap | None:
    """The map that was kept, of whatever version; None where there is none or it is damaged."""
    path = folder / FILE
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.blake2b(content[_DIGEST:], digest_size=_DIGEST).digest() != content[:_DIGEST]:
        _log.warning("%s is damaged and is made again", path)
        return None
    table = pa.ipc.open_stream(pa.py_buffer(content[_DIGEST:])).read_all()
    said: dict[str, Any] = json.loads(table.schema.metadata[b"isometry.map"])
    points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    return CollectionMap(**said, rows=table["row"].to_numpy(), points=np.ascontiguousarray(points))


def main(collection_path: Path, folder: Path) -> None:
    """Make the map of a collection and keep it under a folder; a polite process that lets others go first."""
    from isometry.search.collection import Collection

    os.nice(5)

    def said(done: int, total: int | None) -> None:
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()

    with Collection.open(collection_path) as collection:
        write_map(folder, make_map(collection, progress=said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Everything can leave: Parquet with ids, attributes and vectors, or a copy of the whole collection."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isometry.errors import ExistsError, InputError, StorageError
from isometry.search.building import FOLDER
from isometry.search.sets_view import SetsView
from isometry.search.store import database
from isometry.search.store.commits import CommitMark
from isometry.search.store.segments import fsync_folder
from isometry.search.store.store import SEGMENTS, read_segments, read_values
from isometry.search.store.values import arrow_array

if TYPE_CHECKING:
    from isometry.search.collection import Collection
    from isometry.search.view import VectorView

_ROWS = 4096


def export_parquet(collection: Collection, target: Path) -> int:
    """Ids, attributes with their types and a `vector` column of fixed-size float32 lists; written whole or not at all."""
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file, as in {target}/records.parquet")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}; make it first")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with collection.read() as snapshot:
        columns, dimension = snapshot.columns, int(snapshot.meta["dimension"])
        vector_name = "vector" if all(column.name != "vector" for column in columns) else "isometry_vector"
        rows = np.sort(snapshot.view.rows[snapshot.view.live])
        empty = [arrow_array([], column) for column in columns]
        fields = [
            ("id", pa.string()),
            *((column.name, array.type) for column, array in zip(columns, empty, strict=True)),
        ]
        description = collection.encoder_description
        single = pa.list_(pa.float32(), dimension)
        several = isinstance(snapshot.view, SetsView)
        schema = pa.schema([*fields, (vector_name, pa.list_(single) if several else single)]).with_metadata(
            {"isometry.fingerprint": collection.fingerprint or "",
             "isometry.encoder": json.dumps(description.to_dict() if description else None)}
        )  # fmt: skip
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                size = _ROWS if not several else _ROWS // 16
                for start in range(0, len(rows), size):
                    part = rows[start : start + size]
                    found = list(read_values(snapshot.connection, columns, part.tolist()))
                    arrays = [pa.array([identity for _, identity, _ in found], pa.string())]
                    arrays += [arrow_array([values[n] for _, _, values in found], one) for n, one in enumerate(columns)]
                    arrays.append(_vectors(snapshot.view, part, dimension))
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.rename(target)
            fsync_folder(target.absolute().parent)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
    return len(rows)


def _vectors(view: VectorView | SetsView, rows: np.ndarray, dimension: int) -> pa.Array:
    """The vectors of rows, one or several each, as Arrow has them."""
    if isinstance(view, SetsView):
        values, offsets = view.sets(rows)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float32()), dimension)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return pa.FixedSizeListArray.from_arrays(pa.array(view.vectors(rows).reshape(-1), pa.float32()), dimension)


def take_snapshot(collection: Collection, target: Path) -> None:
    """A consistent copy of one version into a new folder; segments are linked where the disk allows it."""
    if target.exists():
        raise ExistsError(f"{target} is there already; choose another folder")
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with collection.read() as snapshot:
        try:
            (building / SEGMENTS).mkdir(parents=True)
            copy = sqlite3.connect(building / database.DATABASE)
            snapshot.connection.backup(copy)
            copy.close()
            for info in read_segments(snapshot.connection):
                _link(collection.path / SEGMENTS / info.name, building / SEGMENTS / info.name)
            if snapshot.view.built is not None:
                (building / FOLDER).mkdir()
                with suppress(FileNotFoundError):  # it can be built again
                    _link(
                        collection.path / FOLDER / snapshot.view.built.file,
                        building / FOLDER / snapshot.view.built.file,
                    )
            with (building / database.DATABASE).open("rb+") as file:
                os.fsync(file.fileno())
            CommitMark(building / "commits").write(int(snapshot.meta["version"]))
            fsync_folder(building / SEGMENTS)
            fsync_folder(building)
            building.rename(target)
            fsync_folder(target.absolute().parent)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())

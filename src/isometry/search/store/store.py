"""Writing a collection: one SQLite transaction per change, vectors in immutable segments.

Every live record has a row number that is never used twice: an update is a new row and the end of the old one. Small
writes keep their vectors in the table `pending`; from SEAL vectors on they become a segment. A commit is acknowledged
when the transaction is on disk and the commit mark says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isometry.errors import CorruptionError, ExistsError, InputError, NotFoundError, StorageError
from isometry.search.store import database
from isometry.search.store.commits import CommitMark
from isometry.search.store.lock import WriterLock
from isometry.search.store.segments import Segment, SegmentInfo, fsync_folder, write_segment
from isometry.search.store.values import Column, Scalar, column_values, content_hash, kind_of, mix
from isometry.types import VectorSets

SEAL = 1024
SEGMENTS = "segments"
_MERGE_ROWS = 65536  # vectors held at once while segments are joined
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class WriteReport:
    """What a write did to the records it was given."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: WriteReport) -> WriteReport:
        return WriteReport(self.added + other.added, self.updated + other.updated, self.unchanged + other.unchanged)


@dataclass(frozen=True)
class Known:
    """A record that the store holds already: its row, and the hashes of its values and of what was encoded."""

    row: int
    content: bytes
    encoded: bytes


def make_columns(schema: pa.Schema, text: Sequence[str], image: str | None, first: int = 0) -> list[Column]:
    """Columns for the fields of an Arrow schema (`id` left out)."""
    columns: list[Column] = []
    for field in schema:
        if field.name == "id":
            continue
        if not field.name or _CONTROL.search(field.name):
            raise InputError(f"{field.name!r} cannot name a column; write plain text")
        role = "text" if field.name in text else "image" if field.name == image else "attribute"
        kind = kind_of(field.type, field.name)
        if role == "text" and kind != "string":
            raise InputError(
                f"column '{field.name}' is to be searched as text and holds {field.type}; name a text column"
            )
        columns.append(Column(field.name, kind, role, f"c{first + len(columns)}", field.type))
    return columns


class Store:
    """The writing end of one collection folder; holds the writer lock until `close`."""

    def __init__(self, path: Path) -> None:
        """Open for writing. Raises `NotFoundError`, `LockedError`, `CorruptionError`."""
        if not (path / database.DATABASE).is_file():
            raise NotFoundError(f"{path} is not a collection; make one with 'isometry index SOURCE --into {path}'")
        self.path = path
        self._lock = WriterLock(path / "lock")
        self._mutex = threading.RLock()
        self._mark = CommitMark(path / "commits")
        try:
            with database.translated(path):
                self._connection = database.connect(path, writable=True)
                self._connection.execute("PRAGMA wal_autocheckpoint = 2000")
                self.meta = load_meta(self._connection, path, self._mark.read())
                self.columns = database.read_columns(self._connection)
                self._remove_orphans()
        except BaseException:
            self._lock.release()
            raise

    @staticmethod
    def create(
        path: Path, columns: list[Column], dimension: int, details: dict[str, Any], *, multi_vector: bool = False
    ) -> None:
        """Lay an empty collection: built beside its place, then renamed, so that it exists whole or not at all."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "holds a collection" if (path / database.DATABASE).exists() else "is there and not empty"
            raise ExistsError(f"{path} {what}; choose another folder")
        parent = path.absolute().parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            building = parent / f".{path.name}.creating"
            shutil.rmtree(building, ignore_errors=True)
            (building / SEGMENTS).mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be made: {error.strerror}") from error
        with database.translated(path):
            connection = sqlite3.connect(building / database.DATABASE, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            database.create_tables(connection, columns)
            meta = {"format": 1, "version": 1, "dimension": dimension, "next_row": 1, "next_segment": 1,
                    "records": 0, "content_sum": 0, "tombstones": 0, "details": details}  # fmt: skip
            if multi_vector:
                meta |= {"format": 2, "multi_vector": True}
            connection.execute("BEGIN IMMEDIATE")
            _save_meta(connection, meta)
            connection.execute("COMMIT")
            connection.close()
        CommitMark(building / "commits").write(1)
        fsync_folder(building)
        building.rename(path)
        fsync_folder(parent)

    def close(self) -> None:
        """Fold the write-ahead log into the database and let the lock go."""
        with self._mutex:
            if self._lock is None:
                return
            self._connection.close()
            self._lock.release()
            self._lock = None  # type: ignore[assignment]

    @property
    def version(self) -> int:
        return int(self.meta["version"])

    @property
    def multi_vector(self) -> bool:
        """Whether records hold several vectors each."""
        return bool(self.meta.get("multi_vector"))

    # ---- reading what is known -------------------------------------------------------------------------------------

    def known(self, ids: Sequence[str]) -> dict[str, Known]:
        """The records among `ids` that are here."""
        rows = self._connection.execute(
            "SELECT id, row, content, encoded FROM records WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
        return {identity: Known(row, content, encoded) for identity, row, content, encoded in rows}

    def prepare(self, records: pa.RecordBatch | pa.Table) -> list[tuple[Scalar, ...]]:
        """Records to tuples of stored values in the order of the columns; missing columns are null.

        New columns are added to the collection. Raises `InputError` where a type does not fit.
        """
        self._admit_columns(records.schema)
        arrays: list[list[Scalar]] = []
        for column in self.columns:
            if column.name not in records.schema.names:
                arrays.append([None] * records.num_rows)
                continue
            array = records.column(column.name)
            if kind_of(array.type, column.name) != column.kind:
                array = _cast(array, column)
            arrays.append(column_values(array, column))
        return list(zip(*arrays, strict=True)) if arrays else [()] * records.num_rows

    def _admit_columns(self, schema: pa.Schema) -> None:
        held = {column.name for column in self.columns}
        new = [field for field in schema if field.name != "id" and field.name not in held]
        if not new:
            return
        columns = make_columns(pa.schema(new), (), None, first=len(self.columns))
        with self._transaction() as connection:
            for position, column in enumerate(columns, start=len(self.columns)):
                connection.execute(f"ALTER TABLE {column.table} ADD COLUMN {column.sql}")
                database.insert_column(connection, position, column)
            held_columns, self.columns = self.columns, [*self.columns, *columns]
            try:
                self._rehash(connection)
            except BaseException:
                self.columns = held_columns
                raise

    @contextmanager
    def admitting(self, schema: pa.Schema) -> Iterator[None]:
        """Columns that are new in `schema` stay only where the block ends well."""
        held = self.columns
        if {*schema.names} <= {"id", *(column.name for column in held)}:
            yield
            return
        try:
            with self._transaction():
                yield
        except BaseException:
            self.columns = held
            raise

    def _rehash(self, connection: sqlite3.Connection) -> None:
        """A new column adds a null to every record, and so to its content hash."""
        added = len(self.columns)
        total = 0
        rows = [row for (row,) in connection.execute("SELECT row FROM records")]
        for start in range(0, len(rows), 1000):
            part = rows[start : start + 1000]
            for row, identity, values in read_values(connection, self.columns, part):
                content = content_hash((identity, *values[:added]))
                connection.execute("UPDATE records SET content = ? WHERE row = ?", (content, row))
                total += mix(row, content)
        self.meta["content_sum"] = total % 2**64

    # ---- writing ---------------------------------------------------------------------------------------------------

    def write(
        self,
        ids: Sequence[str],
        values: Sequence[tuple[Scalar, ...]],
        contents: Sequence[bytes],
        encoded: Sequence[bytes],
        vectors: np.ndarray | VectorSets,
        replaced: dict[str, Known],
    ) -> None:
        """Put records in one transaction: those in `replaced` end their old row, all get a new one.

        Args:
            contents: hash per record over id and values.
            encoded: hash per record over what its vector was made of.
            vectors: float32 `(n, d)` in the order of `ids`, or the sets of a multi-vector collection.
        """
        if not len(ids):
            return
        with self._transaction() as connection:
            if replaced:
                self._end_rows(connection, [known.row for known in replaced.values()])
            first = int(self.meta["next_row"])
            rows = range(first, first + len(ids))
            self.meta["next_row"] = first + len(ids)
            self.meta["records"] += len(ids)
            self._insert(connection, rows, ids, values, contents, encoded)
            sets = vectors if isinstance(vectors, VectorSets) else _singles(vectors)
            (pending,) = connection.execute("SELECT total(length(vector)) FROM pending").fetchone()
            if pending + sets.values.nbytes >= SEAL * 4 * int(self.meta["dimension"]):
                self._seal(connection, np.arange(first, first + len(ids), dtype=np.int64), sets)
            else:
                connection.executemany(
                    "INSERT INTO pending VALUES (?, ?, ?)",
                    ((row, blob, zlib.crc32(blob)) for row, (start, stop) in zip(rows, pairwise(sets.offsets), strict=True)
                     for blob in (sets.values[start:stop].astype("<f4").tobytes(),)),
                )  # fmt: skip

    def _insert(
        self,
        connection: sqlite3.Connection,
        rows: range,
        ids: Sequence[str],
        values: Sequence[tuple[Scalar, ...]],
        contents: Sequence[bytes],
        encoded: Sequence[bytes],
    ) -> None:
        short = [number for number, column in enumerate(self.columns) if column.table == "records"]
        long = [number for number, column in enumerate(self.columns) if column.table == "documents"]
        texts = [number for number, column in enumerate(self.columns) if column.role == "text"]
        lists = [number for number, column in enumerate(self.columns) if column.kind == "list"]
        connection.executemany(
            f"INSERT INTO records({_names(self.columns, short, 'row', 'id', 'content', 'encoded')})"
            f" VALUES ({_marks(4 + len(short))})",
            (
                (row, identity, content, code, *(record[number] for number in short))
                for row, identity, content, code, record in zip(rows, ids, contents, encoded, values, strict=True)
            ),
        )
        connection.executemany(
            f"INSERT INTO documents({_names(self.columns, long, 'row')}) VALUES ({_marks(1 + len(long))})",
            ((row, *(record[number] for number in long)) for row, record in zip(rows, values, strict=True)),
        )
        if texts:
            connection.executemany(
                f"INSERT INTO fulltext({_names(self.columns, texts, 'rowid')}) VALUES ({_marks(1 + len(texts))})",
                ((row, *(record[number] for number in texts)) for row, record in zip(rows, values, strict=True)),
            )
        for number in lists:
            connection.executemany("INSERT OR IGNORE INTO members VALUES (?, ?, ?)", _members(number, rows, values))
        self._shift_sum(sum(mix(row, content) for row, content in zip(rows, contents, strict=True)))

    def _shift_sum(self, amount: int) -> None:
        self.meta["content_sum"] = (int(self.meta["content_sum"]) + amount) % 2**64

    def delete(self, rows: Sequence[int]) -> None:
        """End these rows; they are gone for every snapshot taken from now on."""
        if len(rows):
            with self._transaction() as connection:
                self._end_rows(connection, list(rows))

    def _end_rows(self, connection: sqlite3.Connection, rows: list[int]) -> None:
        chosen = json.dumps(rows)
        these = "row IN (SELECT value FROM json_each(?))"
        texts = [column.sql for column in self.columns if column.role == "text"]
        if texts:
            names = ", ".join(texts)
            connection.execute(
                f"INSERT INTO fulltext(fulltext, rowid, {names})"
                f" SELECT 'delete', row, {names} FROM documents WHERE {these}",
                (chosen,),
            )
        gone = connection.execute(f"SELECT row, content FROM records WHERE {these}", (chosen,)).fetchall()
        self._shift_sum(-sum(mix(row, content) for row, content in gone))
        self.meta["records"] -= len(gone)
        for table in ("records", "documents", "members"):
            connection.execute(f"DELETE FROM {table} WHERE {these}", (chosen,))
        dropped = connection.execute(f"DELETE FROM pending WHERE {these}", (chosen,)).rowcount
        connection.execute(
            "INSERT INTO tombstones SELECT value FROM json_each(?) WHERE value NOT IN (SELECT row FROM tombstones)",
            (json.dumps([row for row, _ in gone]),),
        )
        if dropped:  # rows that never reached a segment need no tombstone
            oldest = self._last_sealed(connection)
            connection.execute("DELETE FROM tombstones WHERE row > ?", (oldest,))
        self.meta["tombstones"] = connection.execute("SELECT count(*) FROM tombstones").fetchone()[0]

    def _last_sealed(self, connection: sqlite3.Connection) -> int:
        infos = read_segments(connection)
        return int(Segment(self.path / SEGMENTS, infos[-1]).rows[-1]) if infos else 0

    def _seal(self, connection: sqlite3.Connection, rows: np.ndarray, sets: VectorSets) -> None:
        """Pending vectors and these become a segment; its file is on disk before the transaction that names it."""
        older_rows, older = read_pending_sets(connection, int(self.meta["dimension"]), self.path)
        sizes = np.concatenate([np.diff(older.offsets), np.diff(sets.offsets)])
        info = self._write_segment(np.concatenate([older_rows, rows]), [older.values, sets.values], sizes)
        connection.execute("DELETE FROM pending")
        connection.execute(
            "INSERT INTO segments(name, rows, bytes, digest) VALUES (?, ?, ?, ?)",
            (info.name, info.rows, info.bytes, info.digest),
        )

    def _write_segment(self, rows: np.ndarray, blocks: Any, sizes: np.ndarray) -> SegmentInfo:
        number = int(self.meta["next_segment"])
        self.meta["next_segment"] = number + 1
        name = f"{number:08d}-{self.version:x}.seg"
        held = sizes if self.multi_vector else None
        return write_segment(self.path / SEGMENTS, name, rows, blocks, int(self.meta["dimension"]), held)

    def set_detail(self, key: str, value: Any) -> None:
        """Change one entry of the free part of the manifest."""
        with self._transaction():
            self.meta["details"] = {**self.meta["details"], key: value}

    def replace_vectors(self, blocks: Iterator[np.ndarray], dimension: int, details: dict[str, Any]) -> None:
        """Give every record another vector in one transaction, with changed details; ended rows go.

        Args:
            blocks: float32 `(m, dimension)` arrays that together have a row for each record, in the order of the rows.
        """
        with self._mutex:
            old = read_segments(self._connection)
            with self._transaction() as connection:
                rows = np.fromiter(
                    (row for (row,) in connection.execute("SELECT row FROM records ORDER BY row")), np.int64
                )
                for table in ("segments", "pending", "tombstones"):
                    connection.execute(f"DELETE FROM {table}")
                self.meta.update(dimension=dimension, tombstones=0, details={**self.meta["details"], **details})
                if len(rows):
                    info = self._write_segment(rows, blocks, np.ones(len(rows), np.int64))
                    connection.execute(
                        "INSERT INTO segments(name, rows, bytes, digest) VALUES (?, ?, ?, ?)",
                        (info.name, info.rows, info.bytes, info.digest),
                    )
            for info in old:
                (self.path / SEGMENTS / info.name).unlink(missing_ok=True)

    # ---- compaction ------------------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Rewrite the vectors without ended rows, fold full text, and give the space back to the disk."""
        with self._mutex:
            self._merge(read_segments(self._connection))
            with database.translated(self.path):
                if "fulltext" in self._tables():
                    with self._transaction() as connection:
                        connection.execute("INSERT INTO fulltext(fulltext) VALUES ('optimize')")
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _tables(self) -> set[str]:
        return {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def merge_small(self, most: int = 16) -> None:
        """Join the newest segments when there are more than `most`, so that a search opens few files."""
        with self._mutex:
            infos = read_segments(self._connection)
            if len(infos) > most:
                start = len(infos) - 1
                total = infos[start].rows
                while start > 0 and infos[start - 1].rows <= 2 * total:
                    start -= 1
                    total += infos[start].rows
                self._merge(infos[min(start, len(infos) - 2) :])

    def _merge(self, infos: list[SegmentInfo]) -> None:
        """Replace a run of segments by one; with all of them, ended rows and pending vectors are folded in too."""
        whole = len(infos) == len(read_segments(self._connection))
        folder = self.path / SEGMENTS
        with self._transaction() as connection:
            dead = np.fromiter(
                (row for (row,) in connection.execute("SELECT row FROM tombstones ORDER BY row")), np.int64
            )
            parts = [Segment(folder, info) for info in infos]
            keeps = [~np.isin(part.rows, dead, assume_unique=True) for part in parts]
            rows = [part.rows[keep] for part, keep in zip(parts, keeps, strict=True)]
            sizes = [_sizes(part)[keep] for part, keep in zip(parts, keeps, strict=True)]
            tail_rows, tail = read_pending_sets(connection, int(self.meta["dimension"]), self.path)
            if whole:
                rows.append(tail_rows)
                sizes.append(np.diff(tail.offsets))
            merged_rows = np.concatenate([*rows, np.empty(0, np.int64)])
            if whole and len(infos) <= 1 and not len(dead) and not len(tail_rows):
                return
            if not whole and len(infos) < 2:
                return
            for part in parts:
                if part.damaged_blocks():
                    raise CorruptionError(f"{part.path} is damaged; run 'isometry verify {self.path}'")
            connection.execute(
                "DELETE FROM segments WHERE name IN (SELECT value FROM json_each(?))",
                (json.dumps([info.name for info in infos]),),
            )
            if len(merged_rows):
                blocks = _kept_blocks(parts, keeps, tail.values if whole else tail.values[:0])
                info = self._write_segment(merged_rows, blocks, np.concatenate(sizes))
                connection.execute(
                    "INSERT INTO segments(name, rows, bytes, digest) VALUES (?, ?, ?, ?)",
                    (info.name, info.rows, info.bytes, info.digest),
                )
            gone = np.concatenate([part.rows[~keep] for part, keep in zip(parts, keeps, strict=True)] or [dead[:0]])
            connection.execute(
                "DELETE FROM tombstones WHERE row IN (SELECT value FROM json_each(?))", (json.dumps(gone.tolist()),)
            )
            if whole:
                connection.execute("DELETE FROM pending")
                connection.execute("DELETE FROM tombstones")
            self.meta["tombstones"] = connection.execute("SELECT count(*) FROM tombstones").fetchone()[0]
        for info in infos:
            (folder / info.name).unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        named = {info.name for info in read_segments(self._connection)}
        for file in (self.path / SEGMENTS).iterdir():
            if file.name not in named and file.suffix in {".seg", ".tmp"}:
                file.unlink(missing_ok=True)

    # ---- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable when the block ends; nested blocks join the outer one."""
        with self._mutex, database.translated(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            before = json.loads(json.dumps(self.meta))
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self.meta["version"] += 1
                _save_meta(self._connection, self.meta)
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self.meta = before
                if isinstance(error, OSError) and not isinstance(error, StorageError):
                    raise StorageError(
                        f"{self.path}: {error.strerror or error}; the change was not made: check free space, "
                        "then run it again"
                    ) from error
                raise
            self._mark.write(self.version)


# ---- shared by writer, reader and verify ---------------------------------------------------------------------------


def load_meta(connection: sqlite3.Connection, path: Path, acknowledged: int | None) -> dict[str, Any]:
    """The manifest, checked against its own digest and against the last acknowledged commit."""
    stored = dict(connection.execute("SELECT key, value FROM meta"))
    try:
        meta: dict[str, Any] = json.loads(stored["manifest"])
        digest = stored["digest"]
        version = int(meta["version"])
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptionError(f"{path}: the manifest is damaged; restore it from a snapshot") from error
    if digest != manifest_digest(connection, stored["manifest"]):
        raise CorruptionError(f"{path}: the manifest does not match its checksum; restore it from a snapshot")
    if meta["format"] > database.FORMAT:
        raise InputError(f"{path} was written by a newer Isometry (format {meta['format']}); install that release")
    if acknowledged is not None and acknowledged > version:
        raise CorruptionError(
            f"{path}: the database ends at commit {version} and {acknowledged} was acknowledged; its log was damaged,"
            " restore it from a snapshot"
        )
    return meta


def manifest_digest(connection: sqlite3.Connection, manifest: str) -> str:
    """Hash over the manifest, the columns, the segments and the table definitions."""
    hasher = hashlib.blake2b(manifest.encode(), digest_size=16)
    for statement in (
        "SELECT position, name, kind, role, arrow FROM columns ORDER BY position",
        "SELECT position, name, rows, bytes, digest FROM segments ORDER BY position",
    ):
        hasher.update(repr(connection.execute(statement).fetchall()).encode())
    hasher.update(database.schema_digest(connection).encode())
    return hasher.hexdigest()


def _save_meta(connection: sqlite3.Connection, meta: dict[str, Any]) -> None:
    manifest = json.dumps(meta, sort_keys=True)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('manifest', ?)", (manifest,))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('digest', ?)", (manifest_digest(connection, manifest),))


def read_segments(connection: sqlite3.Connection) -> list[SegmentInfo]:
    """Segments in the order of their rows."""
    return [
        SegmentInfo(*row)
        for row in connection.execute("SELECT name, rows, bytes, digest FROM segments ORDER BY position")
    ]


def read_pending(connection: sqlite3.Connection, dimension: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 `(n,)` and vectors float32 `(n, d)` that are not in a segment yet; every vector is checked."""
    rows, sets = read_pending_sets(connection, dimension, path)
    if len(sets.values) != len(rows):
        raise CorruptionError(f"{path}: rows that are not in a segment hold other than one vector")
    return rows, sets.values


def read_pending_sets(connection: sqlite3.Connection, dimension: int, path: Path) -> tuple[np.ndarray, VectorSets]:
    """Rows int64 `(n,)` that are not in a segment yet, and the vectors of each; every byte is checked."""
    rows, blobs = [], []
    for row, blob, crc in connection.execute("SELECT row, vector, crc FROM pending ORDER BY row"):
        if not blob or len(blob) % (4 * dimension) or zlib.crc32(blob) != crc:
            raise CorruptionError(f"{path}: the vector of row {row} is damaged; restore it from a snapshot")
        rows.append(row)
        blobs.append(blob)
    values = np.frombuffer(b"".join(blobs), "<f4").reshape(-1, dimension)
    offsets = np.concatenate([[0], np.cumsum([len(blob) // (4 * dimension) for blob in blobs])]).astype(np.int64)
    return np.array(rows, np.int64), VectorSets(values, offsets)


def read_values(
    connection: sqlite3.Connection, columns: Sequence[Column], rows: Sequence[int]
) -> Iterator[tuple[int, str, tuple[Scalar, ...]]]:
    """(row, id, values in the order of the columns) of the given rows that exist, in ascending row order."""
    names = "".join(f", {'r' if column.table == 'records' else 'd'}.{column.sql}" for column in columns)
    for row, identity, *values in connection.execute(
        f"SELECT r.row, r.id{names} FROM records r LEFT JOIN documents d ON d.row = r.row"
        " WHERE r.row IN (SELECT value FROM json_each(?)) ORDER BY r.row",
        (json.dumps([int(row) for row in rows]),),
    ):
        yield row, identity, tuple(values)


def _singles(vectors: np.ndarray) -> VectorSets:
    """One vector for each record as sets of one."""
    return VectorSets(vectors, np.arange(len(vectors) + 1))


def _sizes(part: Segment) -> np.ndarray:
    """How many vectors each row of a segment has."""
    return np.ones(len(part.rows), np.int64) if part.offsets is None else np.diff(part.offsets)


def _kept_blocks(parts: list[Segment], keeps: list[np.ndarray], tail: np.ndarray) -> Iterator[np.ndarray]:
    for part, keep in zip(parts, keeps, strict=True):
        if part.offsets is not None:
            for first, last in VectorSets(part.vectors, part.offsets).spans(_MERGE_ROWS):
                yield part.sets(np.arange(first, last)[keep[first:last]]).values
            continue
        for start in range(0, len(keep), _MERGE_ROWS):
            yield part.vectors[start : start + _MERGE_ROWS][keep[start : start + _MERGE_ROWS]]
    yield tail


def _names(columns: list[Column], chosen: list[int], *fixed: str) -> str:
    return ", ".join([*fixed, *(columns[number].sql for number in chosen)])


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _members(number: int, rows: range, values: Sequence[tuple[Scalar, ...]]) -> Iterator[tuple[int, Scalar, int]]:
    for row, record in zip(rows, values, strict=True):
        held = record[number]
        if held is not None:
            for item in json.loads(held):  # type: ignore[arg-type]
                if item is not None:
                    yield number, item, row


def _cast(array: pa.Array | pa.ChunkedArray, column: Column) -> pa.Array | pa.ChunkedArray:
    targets = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
               "date": pa.date32(), "timestamp": pa.timestamp("us")}  # fmt: skip
    if pa.types.is_null(array.type):
        return array.cast(column.arrow)
    allowed = {("int", "float"), ("date", "timestamp"), ("date", "string"), ("int", "string")}
    if (kind_of(array.type, column.name), column.kind) not in allowed and column.kind not in {"int", "date"}:
        raise InputError(f"column '{column.name}' holds {column.arrow} in this collection and {array.type} was given")
    try:
        return array.cast(targets[column.kind])
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column '{column.name}' holds {column.arrow} in this collection and {array.type} was given: {error}"
        ) from error

"""Reads every stored byte of a collection and compares it with its checksum."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError, IsometryError, NotFoundError
from isometry.search.store import database
from isometry.search.store.arrays import read_arrays
from isometry.search.store.commits import CommitMark
from isometry.search.store.segments import BLOCK, Segment
from isometry.search.store.store import SEGMENTS, load_meta, read_pending, read_pending_sets, read_segments, read_values
from isometry.search.store.values import Column, content_hash, mix
from isometry.types import VectorSets


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written. `offset` is a byte of the file, or None where it has none."""

    file: str
    offset: int | None
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found."""

    ok: bool
    checked: dict[str, int]
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "checked": self.checked, "problems": [vars(problem) for problem in self.problems]}


def verify_store(path: Path) -> VerifyReport:
    """Check database, records, full text, lists, pending vectors and every block of every segment.

    Never raises for damage: every problem found is in the report.
    """
    if not (path / database.DATABASE).is_file():
        raise NotFoundError(f"{path} is not a collection")
    problems: list[Problem] = []
    checked = {"records": 0, "segments": 0, "vectors": 0, "blocks": 0, "bytes": 0}
    try:
        acknowledged = CommitMark(path / "commits").read()
        if acknowledged is None:
            problems.append(Problem("commits", 0, "the mark of the last commit is missing or damaged"))
        with database.translated(path):
            connection = database.connect(path, writable=False)
            try:
                connection.execute("BEGIN")
                _check_database(connection, path, acknowledged, checked, problems)
            finally:
                connection.close()
    except (IsometryError, sqlite3.Error, OSError, ValueError, UnicodeError, MemoryError, OverflowError) as error:
        problems.append(Problem(database.DATABASE, None, str(error)))
    checked["bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return VerifyReport(not problems, checked, problems)


def _check_database(
    connection: sqlite3.Connection,
    path: Path,
    acknowledged: int | None,
    checked: dict[str, int],
    problems: list[Problem],
) -> None:
    def found(what: str) -> None:
        problems.append(Problem(database.DATABASE, None, what))

    for (line,) in connection.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            found(line)
    meta = load_meta(connection, path, acknowledged)
    columns = database.read_columns(connection)
    rows = [row for (row,) in connection.execute("SELECT row FROM records ORDER BY row")]
    checked["records"] = len(rows)
    total = 0
    held: list[list[tuple[Any, ...]]] = [[] for _ in columns]
    for start in range(0, len(rows), 1000):
        total += _check_records(connection, columns, rows[start : start + 1000], held, found)
    if len(rows) != meta["records"]:
        found(f"{len(rows)} records instead of {meta['records']}")
    if total % 2**64 != meta["content_sum"]:
        found("the set of records does not match its checksum")
    (documents,) = connection.execute("SELECT count(*) FROM documents").fetchone()
    if documents != len(rows):
        found(f"{documents} documents for {len(rows)} records")
    _check_members(connection, held, found)
    if database.text_columns(columns):
        _check_fulltext(path, found)
    _check_vectors(connection, path, meta, np.array(rows, np.int64), checked, problems)
    built = meta["details"].get("built")
    if built is not None:
        try:
            read_arrays(path / "indexes" / built["file"], built["digest"])
        except CorruptionError as error:
            problems.append(Problem(f"indexes/{built['file']}", None, f"{error}; the next writer builds it again"))


def _check_records(
    connection: sqlite3.Connection,
    columns: list[Column],
    rows: list[int],
    held: list[list[tuple[Any, ...]]],
    found: Any,
) -> int:
    total = 0
    contents = dict(
        connection.execute(
            "SELECT row, content FROM records WHERE row IN (SELECT value FROM json_each(?))", (json.dumps(rows),)
        )
    )
    for row, identity, values in read_values(connection, columns, rows):
        if content_hash((identity, *values)) != contents[row]:
            found(f"record '{identity}' (row {row}) does not match its checksum")
        total += mix(row, contents[row])
        for number, (column, value) in enumerate(zip(columns, values, strict=True)):
            if column.kind == "list" and value is not None:
                items = {item for item in json.loads(value) if item is not None}  # type: ignore[arg-type]
                held[number].extend((number, item, row) for item in items)
    return total


def _check_members(connection: sqlite3.Connection, held: list[list[tuple[Any, ...]]], found: Any) -> None:
    stored = set(connection.execute("SELECT column, value, row FROM members"))
    expected = {entry for entries in held for entry in entries}
    if stored != expected:
        found(f"the entries of lists differ in {len(stored ^ expected)} places from the records")


def _check_fulltext(path: Path, found: Any) -> None:
    """FTS5 compares its index with the texts; it asks for a writable connection and changes nothing."""
    try:
        connection = database.connect(path, writable=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO fulltext(fulltext, rank) VALUES ('integrity-check', 1)")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        found(f"the full-text index does not match the texts ({error})")


def _check_vectors(
    connection: sqlite3.Connection,
    path: Path,
    meta: dict[str, Any],
    live: np.ndarray,
    checked: dict[str, int],
    problems: list[Problem],
) -> None:
    rows = []
    for info in read_segments(connection):
        name = f"{SEGMENTS}/{info.name}"
        try:
            segment = Segment(path / SEGMENTS, info)
        except (IsometryError, OSError) as error:
            problems.append(Problem(name, 0, str(error)))
            continue
        for offset, length in segment.damaged_blocks():
            problems.append(Problem(name, offset, f"{length} bytes do not match their checksum"))
        rows.append(np.array(segment.rows))
        checked["segments"] += 1
        checked["vectors"] += len(segment.vectors)
        if (segment.offsets is not None) != bool(meta.get("multi_vector")):
            problems.append(
                Problem(name, 0, "the file has another number of vectors for each record than the collection")
            )
        checked["blocks"] += -(-info.bytes // BLOCK)
    read = read_pending_sets if meta.get("multi_vector") else read_pending
    pending, held = read(connection, int(meta["dimension"]), path)
    checked["vectors"] += len(held.values if isinstance(held, VectorSets) else held)
    every = np.concatenate([*rows, pending])
    dead = np.array([row for (row,) in connection.execute("SELECT row FROM tombstones")], np.int64)
    if (
        not np.array_equal(np.setdiff1d(every, dead), live)
        or not np.isin(dead, every).all()
        or np.isin(dead, live).any()
    ):
        problems.append(Problem(database.DATABASE, None, "records and vectors do not belong to each other"))

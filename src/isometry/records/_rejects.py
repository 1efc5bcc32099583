"""Where bad rows go (a file of json lines) and how repeated ids are found without holding all ids in memory."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import IO, Any

from isometry.errors import StorageError
from isometry.records._chunks import BadRow

_SHOWN_CHARACTERS = 100_000


class RejectsFile:
    """Json lines `{"file", "row", "column", "reason", "record"}`; appears under its name only when complete."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.count = 0
        self._file: IO[bytes] | None = None

    def add(self, bad: BadRow) -> None:
        self.count += 1
        if self.path is None:
            return
        row = {
            "file": bad.file,
            "row": bad.row,
            "column": bad.column,
            "reason": bad.reason,
            "record": _bounded(bad.record),
        }
        line = json.dumps(row, ensure_ascii=False, default=_plain)
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._temporary.open("wb")
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror or error}") from error

    @property
    def _temporary(self) -> Path:
        assert self.path is not None
        return self.path.with_name(f"{self.path.name}.{os.getpid()}.part")

    def finish(self) -> None:
        """Put the file in its place; one left by an earlier pass goes where this pass rejected nothing."""
        if self.path is None:
            return
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._temporary.replace(self.path)
        self._file = None

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)


class SeenIds:
    """Ids met so far with their places, in a temporary database on disk: memory stays bounded for any number."""

    def __init__(self) -> None:
        # An empty name is SQLite's own temporary database: on disk once it outgrows the cache, gone when closed.
        self._database = sqlite3.connect("", isolation_level=None)
        for pragma in ("cache_size=-65536", "synchronous=OFF", "journal_mode=MEMORY"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID")

    def add(self, ids: list[str], places: list[int]) -> dict[int, int]:
        """Remember ids with their places. Returns {position in `ids`: place met before} of those met before."""
        database = self._database
        database.execute("BEGIN")
        try:
            database.executemany("INSERT INTO seen VALUES (?, ?)", zip(ids, places, strict=True))
            database.execute("COMMIT")
            return {}
        except sqlite3.IntegrityError:
            database.execute("ROLLBACK")
        repeated = {}
        database.execute("BEGIN")
        for position, (id, place) in enumerate(zip(ids, places, strict=True)):
            if not database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (id, place)).rowcount:
                repeated[position] = database.execute("SELECT place FROM seen WHERE id = ?", (id,)).fetchone()[0]
        database.execute("COMMIT")
        return repeated

    def close(self) -> None:
        self._database.close()


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    if isinstance(value, dict):
        return {str(key): _bounded(item) for key, item in value.items()}
    return [_bounded(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)

"""What every reader gives: chunks of rows with their place in the source, and the limits that keep memory bounded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

MAX_TEXT_BYTES = 16 << 20  # one value; longer ones are bad rows
MAX_LINE_BYTES = 64 << 20  # one physical line, or one csv record over several lines; longer ones end the reading
MAX_ID_BYTES = 4096
MAX_COLUMNS = 2000
CHUNK_BYTES = 16 << 20  # a chunk is closed once it holds this much, whatever its number of rows
SAMPLE_ROWS = 10_000  # rows from which the types of csv and json columns are inferred
SAMPLE_BYTES = 64 << 20
TYPED_SAMPLE_ROWS = 1024  # rows from which columns are guessed where types are declared


@dataclass(frozen=True)
class BadRow:
    """One row that cannot be taken: file, 1-based data row, column or None, reason, and what it held."""

    file: str
    row: int
    column: str | None
    reason: str
    record: Any = None


@dataclass
class Chunk:
    """Rows of one file.

    Attributes:
        file: name for messages.
        columns: name to Arrow array, or to a list of Python values where the format has no types (json).
        rows: 1-based data row of each row within its file, ascending.
        lines: line of each row in its file, where the format has lines.
        offset: rows in the files before this one.
        rejected: rows that the reader could not make a record of.
        files: file of each row, where every row is a file.
    """

    file: str
    columns: dict[str, pa.Array | list[Any]]
    rows: list[int]
    lines: list[int] | None = None
    offset: int = 0
    rejected: list[BadRow] = field(default_factory=list)
    files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)


class Reader(ABC):
    """One source, readable any number of times.

    Attributes:
        name: how messages call it.
        folder: what relative image paths are relative to.
        typed: whether its columns come with Arrow types (csv and json do not).
        total: number of rows where the format says so without reading them.
        schema: its columns as they are, where they are typed.
        sample_rows: rows from which columns are guessed and types inferred.
        notes: what the reader decided by itself, one sentence each.
        encoding: of its text; 'utf-8' where the format says so itself.
        holder: keeps what the reader needs (a temporary file) as long as the reader lives.
    """

    typed = False
    sample_rows = SAMPLE_ROWS
    encoding = "utf-8"
    holder: object = None
    total: int | None = None
    schema: pa.Schema | None = None

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name, self.folder = name, folder
        self.notes: list[str] = []

    @abstractmethod
    def chunks(self, rows: int) -> Iterator[Chunk]:
        """All rows in order, at most `rows` in a chunk and about `CHUNK_BYTES`."""


def shown(value: object, limit: int = 60) -> str:
    """A value in a message: on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

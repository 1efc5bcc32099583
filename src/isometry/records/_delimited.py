"""Csv and tsv: quoted fields, line ends inside quotes, the exact row and line of whatever is wrong."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa

from isometry.errors import InputError
from isometry.records._chunks import CHUNK_BYTES, MAX_COLUMNS, MAX_LINE_BYTES, BadRow, Chunk, Reader, shown
from isometry.records._streams import guarded, open_text, read_line, refuse_binary

_REREAD_LIMIT = 8 * MAX_LINE_BYTES


class _Lines:
    """Lines handed to the csv parser; keeps those of the record at hand, so that reading can go on after a bad one."""

    def __init__(self, text: TextIOWrapper, name: str) -> None:
        self.text, self.name = text, name
        self.number = 0
        self.waiting: deque[str] = deque()
        self.record: list[str] = []
        self.size = 0
        self.reread = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else read_line(self.text, self.name, self.number + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.record.append(line)
        self.size += len(line)
        if self.size > MAX_LINE_BYTES:
            raise InputError(
                f"{self.name}, line {self.number - len(self.record) + 1}: a quote is opened here and not closed within "
                f"{MAX_LINE_BYTES >> 20} MB; close it, or double the quotes inside a field"
            )
        return line

    def start_record(self) -> int:
        self.record.clear()
        self.size = 0
        return self.number + 1

    def return_all_but_first(self) -> None:
        """A broken record ends with its first line: the lines after it are read again as records of their own."""
        rest = self.record[1:]
        self.reread += sum(map(len, rest))
        if self.reread > _REREAD_LIMIT:
            raise InputError(
                f"{self.name}, line {self.number}: too many quotes are left open to tell the records apart; "
                "write the file again with a csv writer"
            )
        self.waiting.extendleft(reversed(rest))
        self.number -= len(rest)


class DelimitedReader(Reader):
    """A csv or tsv file with a header line.

    A field may be quoted with `"`; a quote inside it is doubled. Empty fields are missing values, empty lines are
    passed over. A csv file whose header has more `;`, tabs or `|` than commas is read with that separator.
    """

    def __init__(self, path: Path, name: str, separator: str | None = None, encoding: str = "utf-8") -> None:
        super().__init__(name, path.parent)
        self.path, self.encoding = path, encoding
        # The limit of the csv module is one for the whole process: it is raised, never lowered.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        with guarded(name), open_text(path, name, encoding) as text:
            header = read_line(text, name, 1)
        refuse_binary(header.encode("utf-8", "surrogateescape")[:8], name)
        self.separator = separator or self._guess_separator(header)
        self.columns = self._read_header()

    def _guess_separator(self, header: str) -> str:
        found = max(",;\t|", key=header.count)
        if found != "," and header.count(found):
            self.notes.append(f"{self.name} is separated by {found!r}, as its header shows.")
            return found
        return ","

    def _records(self, lines: _Lines) -> Iterator[tuple[int, list[str] | str]]:
        """First line and fields of every record; a reason instead of the fields where it cannot be parsed."""
        parser = csv.reader(lines, delimiter=self.separator, strict=True)
        while True:
            line = lines.start_record()
            try:
                fields = next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                first = lines.record[0]
                reason = (
                    "a quote is opened in this row and never closed; close it, or double the quotes inside a field"
                    if "unexpected end" in str(error)
                    else "text follows a closing quote; double the quotes inside a field"
                )
                lines.return_all_but_first()
                yield line, f"{reason} (line {line}: {shown(first.rstrip())})"
                parser = csv.reader(lines, delimiter=self.separator, strict=True)
                continue
            if fields:
                yield line, fields

    def _read_header(self) -> list[str]:
        with guarded(self.name), open_text(self.path, self.name, self.encoding) as text:
            _, header = next(self._records(_Lines(text, self.name)), (0, ""))
        if not header:
            raise InputError(f"{self.name} is empty: give a file with a header line and records")
        if isinstance(header, str):
            raise InputError(f"{self.name}, header: {header}")
        if len(header) > MAX_COLUMNS:
            raise InputError(f"{self.name} has {len(header)} columns in its header; at most {MAX_COLUMNS} are read")
        names = [name.strip() or f"column_{place}" for place, name in enumerate(header, 1)]
        for name in names:
            if any("\udc80" <= letter <= "\udcff" for letter in name):
                raise InputError(
                    f"{self.name}: the header is not {self.encoding.upper()} in column {shown(name)}; name the file's "
                    "encoding, as in --encoding latin-1"
                )
            if names.count(name) > 1:
                raise InputError(f"{self.name}: the header names the column '{name}' twice; rename one of them")
        return names

    def chunks(self, rows: int) -> Iterator[Chunk]:
        row = 0
        with open_text(self.path, self.name, self.encoding) as text:
            lines = _Lines(text, self.name)
            records = self._records(lines)
            next(records)
            while True:
                taken, places, numbers, rejected = [], [], [], []
                size = 0
                with guarded(self.name, f" after row {row}"):
                    for line, fields in records:
                        row += 1
                        size += lines.size
                        if len(fields) == len(self.columns) and not isinstance(fields, str):
                            taken.append(fields)
                            places.append(row)
                            numbers.append(line)
                        else:
                            rejected.append(self._reject(row, line, fields, lines.record))
                        if len(taken) + len(rejected) >= rows or size >= CHUNK_BYTES:
                            break
                if not taken and not rejected:
                    return
                columns = list(zip(*taken, strict=True)) if taken else [()] * len(self.columns)
                yield Chunk(
                    self.name,
                    {name: _array(values) for name, values in zip(self.columns, columns, strict=True)},
                    places,
                    numbers,
                    rejected=rejected,
                )

    def _reject(self, row: int, line: int, fields: list[str] | str, record: list[str]) -> BadRow:
        raw = "".join(record).rstrip("\r\n")
        if isinstance(fields, str):
            return BadRow(self.name, row, None, fields, record[0].rstrip("\r\n"))
        reason = (
            f"it has {len(fields)} fields where the header has {len(self.columns)} (line {line}); "
            "quote fields that hold separators"
        )
        return BadRow(self.name, row, None, reason, raw)


def _array(values: tuple[str, ...]) -> pa.Array | list[Any]:
    """Strings with '' as null; a plain list where a value is not UTF-8, for the row to be found."""
    try:
        array = pa.array(values, pa.string())
    except UnicodeEncodeError:
        return [value or None for value in values]
    empty = pa.compute.equal(array, "")
    return pa.compute.if_else(empty, pa.scalar(None, pa.string()), array) if pa.compute.any(empty).as_py() else array

"""Json lines, a json array, and dictionaries from Python: records without declared types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from isometry.errors import InputError
from isometry.records._chunks import CHUNK_BYTES, MAX_COLUMNS, BadRow, Chunk, Reader, shown
from isometry.records._streams import codec, guarded, open_bytes, open_text, read_line, refuse_binary

MAX_JSON_BYTES = 256 << 20


class JsonLinesReader(Reader):
    """One json object a line; empty lines are passed over."""

    def __init__(self, path: Path, name: str, encoding: str = "utf-8") -> None:
        super().__init__(name, path.parent)
        self.path, self.encoding = path, encoding
        with guarded(name), open_bytes(path) as stream:
            if encoding == "utf-8":
                refuse_binary(stream.read(8), name)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        row = line = 0
        with open_text(self.path, self.name, self.encoding) as text:
            ended = False
            while not ended:
                records: list[dict] = []
                places, numbers = [], []
                rejected: list[BadRow] = []
                size = 0
                with guarded(self.name, f" after row {row}"):
                    while len(records) + len(rejected) < rows and size < CHUNK_BYTES:
                        value = read_line(text, self.name, line + 1)
                        if not value:
                            ended = True
                            break
                        line += 1
                        if value.isspace():
                            continue
                        row += 1
                        size += len(value)
                        record = _parse(value, line)
                        if isinstance(record, dict):
                            records.append(record)
                            places.append(row)
                            numbers.append(line)
                        else:
                            rejected.append(BadRow(self.name, row, None, record, value.rstrip("\r\n")))
                if records or rejected:
                    yield Chunk(self.name, by_column(records, self.name), places, numbers, rejected=rejected)


class JsonArrayReader(Reader):
    """A json file holding one array of objects. It is parsed as a whole, so its size is bounded."""

    def __init__(self, path: Path, name: str, encoding: str = "utf-8") -> None:
        super().__init__(name, path.parent)
        self.path, self.encoding = path, encoding

    def chunks(self, rows: int) -> Iterator[Chunk]:
        values = self._load()
        self.total = len(values)
        yield from dict_chunks(values, self.name, rows)

    def _load(self) -> list[Any]:
        with guarded(self.name), open_bytes(self.path) as stream:
            content = stream.read(MAX_JSON_BYTES + 1)
        if self.encoding == "utf-8":
            refuse_binary(content[:8], self.name)
        if len(content) > MAX_JSON_BYTES:
            raise InputError(
                f"{self.name} is larger than {MAX_JSON_BYTES >> 20} MB, too much for one json array: "
                "write one object a line (jsonl), which is read as a stream"
            )
        if not content.strip():
            raise InputError(f"{self.name} is empty: give a file with records in it")
        try:
            values = json.loads(content.decode(codec(self.encoding)))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.name} is not {self.encoding.upper()} at byte {error.start}: name its encoding, as in "
                "--encoding latin-1"
            ) from None
        except RecursionError:
            raise InputError(f"{self.name} is nested too deeply: flatten it") from None
        except ValueError as error:
            raise InputError(f"{self.name} is not a json array: {error}; one object a line is jsonl") from None
        if not isinstance(values, list):
            raise InputError(f"{self.name} holds a json {_kind(values)} and not an array of objects: wrap it in [ ]")
        return values


def dict_chunks(values: Iterable[Any], name: str, rows: int) -> Iterator[Chunk]:
    """Chunks of dictionaries; anything else is a rejected row."""
    records: list[dict] = []
    places: list[int] = []
    rejected: list[BadRow] = []
    size = 0
    for row, value in enumerate(values, 1):
        if isinstance(value, dict):
            records.append(value)
            places.append(row)
            size += sum(len(item) for item in value.values() if isinstance(item, str | bytes))
        else:
            reason = f"it is a {_kind(value)} and not an object with named values"
            rejected.append(BadRow(name, row, None, reason, shown(value, 1000)))
        if len(records) + len(rejected) >= rows or size >= CHUNK_BYTES:
            yield Chunk(name, by_column(records, name), places, rejected=rejected)
            records, places, rejected, size = [], [], [], 0
    if records or rejected:
        yield Chunk(name, by_column(records, name), places, rejected=rejected)


def by_column(records: list[dict], name: str) -> dict[str, Any]:
    """Lists of values by column, None where a record lacks it; columns in order of first appearance."""
    columns = dict.fromkeys(key for record in records for key in record)
    if len(columns) > MAX_COLUMNS:
        raise InputError(
            f"{name} has more than {MAX_COLUMNS} different names in its objects: put the values under one name each"
        )
    return {str(key): [record.get(key) for record in records] for key in columns}


def _parse(line: str, number: int) -> dict | str:
    """The object on a line, or the reason why there is none."""
    try:
        value = json.loads(line)
    except RecursionError:
        return f"the json is nested too deeply (line {number}); flatten it"
    except json.JSONDecodeError as error:
        return f"the line is not json: {error.msg.lower()} at character {error.pos + 1} (line {number})"
    except ValueError:
        return f"the json holds a number of too many digits (line {number})"
    if not isinstance(value, dict):
        return f"the line holds a json {_kind(value)} and not an object (line {number})"
    return value


def _kind(value: object) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)

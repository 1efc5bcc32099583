"""Which reader reads a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isometry.errors import InputError
from isometry.records._arrow import ArrowReader, ParquetReader
from isometry.records._chunks import Reader
from isometry.records._delimited import DelimitedReader
from isometry.records._json import JsonArrayReader, JsonLinesReader
from isometry.records._streams import check_readable, format_of_content, format_of_name, show_path

FORMATS = ("parquet", "csv", "tsv", "jsonl", "json", "arrow", "texts", "images")


def open_reader(source: Any, format: str | None) -> Reader:
    """The reader for a source; raises InputError where there is none."""
    if format is not None and format not in FORMATS:
        raise InputError(f"no format '{format}'; the formats are {', '.join(FORMATS)}")
    return open_path(Path(source), format)


def open_path(path: Path, format: str | None) -> Reader:
    status = check_readable(path)
    name = show_path(path.name)
    if status.st_size == 0:
        raise InputError(f"{name} is empty: give a file with records in it")
    return open_file(path, name, format or format_of_name(path) or format_of_content(path, name))


def open_file(path: Path, name: str, format: str) -> Reader:
    """The reader of one file of a known format."""
    if format == "parquet":
        return ParquetReader(path, name)
    if format == "arrow":
        return ArrowReader(path, name)
    if format == "jsonl":
        return JsonLinesReader(path, name)
    if format == "json":
        return JsonArrayReader(path, name)
    return DelimitedReader(path, name, "\t" if format == "tsv" else None)

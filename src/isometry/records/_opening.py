"""Which reader reads a source."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

from isometry.errors import InputError
from isometry.records._arrow import ArrowReader, ParquetReader
from isometry.records._chunks import Reader
from isometry.records._delimited import DelimitedReader
from isometry.records._folders import TEXT_SUFFIXES, ImageFolderReader, ShardsReader, TextFolderReader, kind_of_folder
from isometry.records._frames import open_object, remove_with
from isometry.records._json import JsonArrayReader, JsonLinesReader
from isometry.records._streams import (
    check_readable,
    format_of_content,
    format_of_name,
    known_encoding,
    show_path,
    spool,
)

FORMATS = ("parquet", "csv", "tsv", "jsonl", "json", "arrow", "texts", "images")


def open_reader(source: Any, format: str | None, encoding: str = "utf-8") -> Reader:
    """The reader for a source. Raises InputError or NotFoundError where there is none."""
    encoding = known_encoding(encoding)
    if format is not None and format not in FORMATS:
        raise InputError(f"no format '{format}'; the formats are {', '.join(FORMATS)}")
    if not isinstance(source, str | os.PathLike):
        return open_object(source)
    if str(source) == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("nothing is piped into standard input: give a file, or pipe records in")
        return _open_stream(sys.stdin.buffer, "stdin", format, encoding)
    path = Path(source)
    status = check_readable(path)
    name = show_path(path.name or path.absolute().name or path)
    if stat.S_ISDIR(status.st_mode):
        return _open_folder(path, name, format, encoding)
    if format in ("texts", "images"):
        raise InputError(f"{name} is a file: --format {format} reads a folder")
    if stat.S_ISFIFO(status.st_mode):
        with path.open("rb") as stream:
            return _open_stream(stream, name, format, encoding)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is neither a file nor a folder")
    if status.st_size == 0:
        raise InputError(f"{name} is empty: give a file with records in it")
    if format is None and path.suffix.lower() in TEXT_SUFFIXES:
        raise InputError(
            f"{name} is one text file: give its folder to read every file as a record, or say with "
            "--format csv, tsv or jsonl how it is divided into records"
        )
    return open_file(path, name, format or format_of_name(path) or format_of_content(path, name, encoding), encoding)


def open_file(path: Path, name: str, format: str, encoding: str = "utf-8") -> Reader:
    """The reader of one file of a known format."""
    if format == "parquet":
        return ParquetReader(path, name)
    if format == "arrow":
        return ArrowReader(path, name)
    if format == "jsonl":
        return JsonLinesReader(path, name, encoding)
    if format == "json":
        return JsonArrayReader(path, name, encoding)
    return DelimitedReader(path, name, "\t" if format == "tsv" else None, encoding)


def _open_folder(path: Path, name: str, format: str | None, encoding: str) -> Reader:
    kind, notes = (format, []) if format else kind_of_folder(path, name)
    reader: Reader
    if kind == "texts":
        reader = TextFolderReader(path, name, encoding)
    elif kind == "images":
        reader = ImageFolderReader(path, name)
    else:
        reader = ShardsReader(path, name, kind, partial(open_file, encoding=encoding))
    reader.notes += notes
    return reader


def _open_stream(stream: IO[bytes], name: str, format: str | None, encoding: str) -> Reader:
    """A stream that can be read only once, by way of a temporary file."""
    path = spool(stream)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{name} is empty: give records in it")
        if format in ("texts", "images"):
            raise InputError(f"{name} is a stream: --format {format} reads a folder")
        reader = open_file(path, name, format or format_of_content(path, name, encoding), encoding)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    reader.folder = Path.cwd()
    remove_with(reader, path)
    return reader

"""Folders as sources: of text files, of images, of several record files with the same columns."""

from __future__ import annotations

import datetime
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isometry.errors import InputError
from isometry.records._chunks import CHUNK_BYTES, MAX_TEXT_BYTES, BadRow, Chunk, Reader
from isometry.records._images import IMAGE_SUFFIXES, image_size
from isometry.records._streams import codec, format_of_name, show_path
from isometry.records._types import normal_type

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".org", ".adoc", ".tex")
_MAX_SHARDS = 100_000


def walk(folder: Path) -> Iterator[str]:
    """Relative names of the files below a folder, in name order within each folder, hidden ones left out.

    Links to folders are not followed, so a loop of links cannot trap the walk.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        if inside and not inside.endswith("/"):
            yield inside
            continue
        try:
            with os.scandir(folder / inside) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
                names = [f"{inside}{entry.name}" + "/" * entry.is_dir(follow_symlinks=False) for entry in found]
        except OSError as error:
            place = show_path(folder / inside)
            raise InputError(f"the folder {place} cannot be read: {(error.strerror or str(error)).lower()}") from error
        waiting += sorted(names, reverse=True)


def kind_of_folder(folder: Path, name: str) -> tuple[str, list[str]]:
    """What a folder holds ('texts', 'images' or a record format), with notes on what is left out."""
    kinds: Counter[str] = Counter()
    for file in walk(folder):
        kinds[_kind_of_file(file)] += 1
    other = kinds.pop("", 0)
    records = [kind for kind in kinds if kind not in ("texts", "images")]
    if not kinds:
        raise InputError(
            f"the folder {name} holds no file of a kind that is read: give parquet, csv, tsv, json or arrow files, "
            "text files or images"
        )
    if len(records) > 1 or (not records and len(kinds) > 1):
        raise InputError(f"the folder {name} holds {' and '.join(sorted(kinds))}: say which to read with --format")
    kind = records[0] if records else next(iter(kinds))
    left_out = other + sum(count for another, count in kinds.items() if another != kind)
    notes = [f"{left_out} files of other kinds in {name} are left out."] if left_out else []
    return kind, notes


class TextFolderReader(Reader):
    """Text files below a folder: `id` and `path` are the relative path, `text` the whole file, `modified` its time."""

    sample_rows = 100

    def __init__(self, folder: Path, name: str, encoding: str = "utf-8") -> None:
        super().__init__(name, folder)
        self.root, self.encoding = folder, encoding

    def chunks(self, rows: int) -> Iterator[Chunk]:
        yield from _file_chunks(self, "texts", rows, self._record)

    def _record(self, file: str) -> dict[str, Any] | str:
        path = self.root / file
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "it is not an ordinary file"
        if status.st_size > MAX_TEXT_BYTES:
            return f"the file has {status.st_size:,} bytes; at most {MAX_TEXT_BYTES:,} are taken, so split it"
        text = path.read_bytes().decode(codec(self.encoding), "surrogateescape")
        return {"id": file, "text": text, "path": file, "modified": _modified(status)}


class ImageFolderReader(Reader):
    """Images below a folder: `id` is the relative path, `image` the path, with `width`, `height` and `modified`."""

    sample_rows = 100

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(name, folder)
        self.root = folder

    def chunks(self, rows: int) -> Iterator[Chunk]:
        yield from _file_chunks(self, "images", rows, self._record)

    def _record(self, file: str) -> dict[str, Any] | str:
        path = self.root / file
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "it is not an ordinary file"
        width, height = image_size(path)
        return {"id": file, "image": file, "width": width, "height": height, "modified": _modified(status)}


class ShardsReader(Reader):
    """Record files of one format below a folder, read one after the other in name order."""

    def __init__(self, folder: Path, name: str, format: str, open_file: Callable[[Path, str, str], Reader]) -> None:
        super().__init__(name, folder)
        self.root, self.format, self._open = folder, format, open_file
        self.files = [file for file in walk(folder) if _kind_of_file(file) == format]
        if not self.files:
            raise InputError(f"the folder {name} holds no {format} files")
        if len(self.files) > _MAX_SHARDS:
            raise InputError(f"the folder {name} holds {len(self.files):,} files; at most {_MAX_SHARDS:,} are read")
        first = self._reader(self.files[0])
        self.typed, self.schema, self.separator = first.typed, first.schema, getattr(first, "separator", None)
        self.encoding = first.encoding
        totals = [first.total]
        for file in self.files[1:]:
            reader = self._reader(file)
            totals.append(reader.total)
            _same_columns(first, reader)
        counts = [total for total in totals if total is not None]
        self.total = sum(counts) if len(counts) == len(totals) else None
        self.notes = list(first.notes)

    def _reader(self, file: str) -> Reader:
        path = self.root / file
        if not path.is_file():
            raise InputError(f"{show_path(file)} is not an ordinary file")
        return self._open(path, show_path(file), self.format)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        offset = 0
        for file in self.files:
            last = 0
            for chunk in self._reader(file).chunks(rows):
                chunk.offset = offset
                last = max([last, *chunk.rows[-1:], *(bad.row for bad in chunk.rejected[-1:])])
                yield chunk
            offset += last


def _file_chunks(
    reader: TextFolderReader | ImageFolderReader, kind: str, rows: int, record: Callable[[str], dict[str, Any] | str]
) -> Iterator[Chunk]:
    records: list[dict] = []
    files: list[str] = []
    places: list[int] = []
    rejected: list[BadRow] = []
    size = 0
    row = 0

    def chunk() -> Chunk:
        names = list(records[0]) if records else []
        columns: dict[str, Any] = {name: [found[name] for found in records] for name in names}
        return Chunk(reader.name, columns, places, rejected=rejected, files=files)

    for file in walk(reader.root):
        if _kind_of_file(file) != kind:
            continue
        row += 1
        try:
            found = record(file)
        except OSError as error:
            found = f"the file cannot be read: {(error.strerror or str(error)).lower()}"
        if isinstance(found, str):
            rejected.append(BadRow(show_path(file), row, None, found))
        else:
            records.append(found)
            files.append(show_path(file))
            places.append(row)
            size += len(found.get("text", ""))
        if len(records) + len(rejected) >= rows or size >= CHUNK_BYTES:
            yield chunk()
            records, files, places, rejected, size = [], [], [], [], 0
    if records or rejected:
        yield chunk()


def _kind_of_file(file: str) -> str:
    suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 - names that are not UTF-8 stay plain strings
    if suffix in TEXT_SUFFIXES:
        return "texts"
    if suffix in IMAGE_SUFFIXES:
        return "images"
    return format_of_name(Path(file)) or ""


def _modified(status: os.stat_result) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, datetime.UTC)


def _same_columns(first: Reader, other: Reader) -> None:
    if first.schema is not None and other.schema is not None:
        ours = {field.name: normal_type(field.type) for field in first.schema}
        theirs = {field.name: normal_type(field.type) for field in other.schema}
    else:
        ours = dict.fromkeys(getattr(first, "columns", ()))
        theirs = dict.fromkeys(getattr(other, "columns", ()))
    for name in [*ours, *theirs]:
        if name not in ours or name not in theirs:
            has, lacks = (first, other) if name in ours else (other, first)
            raise InputError(
                f"{has.name} has a column '{name}' and {lacks.name} has none: give files of the same columns"
            )
        if ours[name] != theirs[name]:
            raise InputError(
                f"column '{name}' is {ours[name]} in {first.name} and {theirs[name]} in {other.name}: "
                "give files of the same types"
            )

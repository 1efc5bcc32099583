"""From a source of records to a collection: check, encode, commit in chunks; a rerun does only what is new.

Every chunk is one durable commit. A run that was cut off leaves a whole collection with the chunks so far; the same
command finds their records unchanged and goes on with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from isometry.errors import InputError
from isometry.search.collection import Collection
from isometry.search.store.store import WriteReport

CHUNK = 512


class RecordSource(Protocol):
    """What `isometry.records.open_source` gives."""

    name: str
    schema: pa.Schema
    text_columns: tuple[str, ...]
    image_column: str | None
    rejected: int
    rejects_file: Path | None

    def check(self, progress: Any = None) -> Any: ...

    def batches(self) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class IngestReport:
    """What `isometry index --json` prints."""

    collection: str
    records: int
    added: int
    updated: int
    unchanged: int
    rejected: int
    rejects_file: str | None
    truncated: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 3)}


def ingest(
    source: RecordSource,
    path: Path,
    *,
    load_encoder: Callable[[str | None], Any],
    on_check: Any = None,
    on_progress: Any = None,
    chunk: int = CHUNK,
) -> IngestReport:
    """Bring every record of a source into the collection at `path`, which is made when it is not there.

    The whole source is checked first, so that a bad row stops the run before anything is written.

    Args:
        load_encoder: from the name that the collection remembers (None for a new one) to an encoder.
        on_check / on_progress: called with rows done and total (None while unknown).
        chunk: rows per commit.
    Raises: what the source and the collection raise; the collection then holds whole chunks only.
    """
    started = time.perf_counter()
    checked = source.check(on_check)
    new = not (path / "collection.sqlite").is_file()
    if new and checked.rows == 0:
        raise InputError(f"{source.name} holds no usable record; nothing was written")
    with _open(source, path, new, load_encoder) as collection:
        report = WriteReport()
        done = 0
        truncated_before = getattr(collection.encoder, "truncated", 0)
        for table in _chunks(source.batches(), chunk):
            report += collection.upsert(table)
            done += table.num_rows
            if on_progress is not None:
                on_progress(done, checked.rows)
        truncated = getattr(collection.encoder, "truncated", 0) - truncated_before
        records = len(collection)
        seconds = time.perf_counter() - started
        result = IngestReport(
            collection.name, records, report.added, report.updated, report.unchanged, source.rejected,
            str(source.rejects_file) if source.rejects_file and source.rejected else None, truncated, seconds,
        )  # fmt: skip
        if report.added or report.updated:
            collection.note("last_index", {"source": source.name, "records": done, "finished": True})
        return result


def _open(source: RecordSource, path: Path, new: bool, load_encoder: Callable[[str | None], Any]) -> Collection:
    if not new:
        collection = Collection.open(path, writable=True)
        try:
            held = collection.encoder_description
            if held is None:
                raise InputError(
                    f"{path} is given its vectors and cannot be indexed from a file; choose another folder"
                )
            texts = collection.text_columns
            if not set(source.text_columns) & set(texts) and not collection.image_column:
                raise InputError(f"{path} searches the text of {', '.join(texts)} and {source.name} has none of them")
            collection.use(load_encoder(held.name))
        except BaseException:
            collection.close()
            raise
        return collection
    encoder = load_encoder(None)
    described = encoder.describe()
    if not source.text_columns and source.image_column and "image" not in described.modalities:
        raise InputError(f"{source.name} holds pictures and {described.name} takes none; choose another with --encoder")
    image = source.image_column if "image" in described.modalities else None
    return Collection.create(
        path, encoder=encoder, schema=source.schema, text_columns=source.text_columns, image_column=image
    )


def _chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            batch = batch.slice(part.num_rows)
            held.append(part)
            count += part.num_rows
            if count == rows:
                yield pa.Table.from_batches(held)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)

"""Parquet files and Arrow IPC files and streams."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isometry.errors import InputError
from isometry.records._chunks import CHUNK_BYTES, MAX_COLUMNS, TYPED_SAMPLE_ROWS, Chunk, Reader
from isometry.records._streams import guarded


class ParquetReader(Reader):
    """A parquet file, read a few pages at a time."""

    typed = True
    sample_rows = TYPED_SAMPLE_ROWS

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self.path = path
        with guarded(name), pq.ParquetFile(path) as file:
            self.schema = check_schema(file.schema_arrow, name)
            self.total = file.metadata.num_rows
            groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            self._row_bytes = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        rows = int(max(1, min(rows, CHUNK_BYTES / max(self._row_bytes, 1))))
        with guarded(self.name), pq.ParquetFile(self.path, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=rows, use_threads=False)
            yield from batch_chunks(batches, self.name, rows)


class ArrowReader(Reader):
    """An Arrow IPC file (also Feather version 2) or stream."""

    typed = True
    sample_rows = TYPED_SAMPLE_ROWS

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self.path = path
        with path.open("rb") as stream:
            head = stream.read(6)
        if head.startswith(b"FEA1"):
            raise InputError(f"{name} is a Feather file of version 1: write it again with a current writer")
        self._is_file = head == b"ARROW1"
        with guarded(name), closing(self._batches()) as batches:
            next(batches, None)
            self.schema = check_schema(self._schema, name)

    def _batches(self) -> Generator[pa.RecordBatch, None, None]:
        with pa.memory_map(str(self.path)) if self._is_file else self.path.open("rb") as source:
            if self._is_file:
                file = pa.ipc.open_file(source)
                self._schema = file.schema
                for number in range(file.num_record_batches):
                    yield file.get_batch(number)
            else:
                with pa.ipc.open_stream(source) as stream:
                    self._schema = stream.schema
                    yield from stream

    def chunks(self, rows: int) -> Iterator[Chunk]:
        with guarded(self.name):
            yield from batch_chunks(self._batches(), self.name, rows)


def check_schema(schema: pa.Schema, name: str) -> pa.Schema:
    """The schema. Raises InputError where two columns share a name, or there are none or too many."""
    if not schema.names:
        raise InputError(f"{name} has no columns")
    if len(schema.names) > MAX_COLUMNS:
        raise InputError(f"{name} has {len(schema.names)} columns; at most {MAX_COLUMNS} are read")
    for column in schema.names:
        if schema.names.count(column) > 1:
            raise InputError(f"{name} has two columns named '{column}'; rename one of them")
    return schema


def batch_chunks(batches: Iterable[pa.RecordBatch], name: str, rows: int) -> Iterator[Chunk]:
    """Record batches cut to chunks of at most `rows` rows."""
    first = 1
    for batch in batches:
        per_row = max(1, batch.nbytes / max(batch.num_rows, 1))
        step = int(max(1, min(rows, CHUNK_BYTES / per_row)))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            columns = dict(zip(part.schema.names, part.columns, strict=True))
            yield Chunk(name, columns, list(range(first, first + part.num_rows)))
            first += part.num_rows

"""Python objects as sources: frames, Arrow tables, readers and data sets, `datasets.Dataset`, dictionaries."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from isometry.errors import InputError
from isometry.records._arrow import ArrowReader, batch_chunks, check_schema
from isometry.records._chunks import TYPED_SAMPLE_ROWS, Chunk, Reader
from isometry.records._json import dict_chunks
from isometry.records._streams import guarded

_TAG = "\x00type"  # marks, in a spooled line, a value that json has no form for


def open_object(source: Any) -> Reader:
    """The reader of a Python object; raises InputError where it is of no kind that is read."""
    library, kind = type(source).__module__.partition(".")[0], type(source).__name__
    name = f"{library} {kind}"
    if library == "pandas" and kind == "DataFrame":
        return _from_pandas(source, name)
    if library == "polars" and kind == "LazyFrame":
        return _from_lazy_frame(source, name)
    if library == "datasets":
        return _from_datasets(source, name)
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return ArrowObjectReader(source.schema, source.to_batches, name, source.num_rows)
    if isinstance(source, pads.Dataset):
        batches = lambda: source.to_batches(batch_size=1024, use_threads=False)  # noqa: E731
        return ArrowObjectReader(source.schema, batches, name, None)
    if isinstance(source, pa.RecordBatchReader):
        return _spooled_stream(source, name)
    if hasattr(source, "__arrow_c_stream__"):
        stream = pa.RecordBatchReader.from_stream(source)
        rows = len(source) if hasattr(source, "__len__") else None
        if rows is None:
            return _spooled_stream(stream, name)
        return ArrowObjectReader(stream.schema, lambda: pa.RecordBatchReader.from_stream(source), name, rows)
    if isinstance(source, dict | str | bytes) or not isinstance(source, Iterable):
        raise InputError(
            f"a {kind} is no source of records: give a path, a frame, an Arrow table, or dictionaries one per record"
        )
    if isinstance(source, Iterator):
        return _SpooledDicts(source, "iterator")
    return DictsReader(source, name if library != "builtins" else kind)


class ArrowObjectReader(Reader):
    """Whatever gives record batches, again and again."""

    typed = True
    sample_rows = TYPED_SAMPLE_ROWS

    def __init__(
        self, schema: pa.Schema, batches: Callable[[], Iterable[pa.RecordBatch]], name: str, total: int | None
    ) -> None:
        super().__init__(name, None)
        self.schema = check_schema(schema, name)
        self.total = total
        self._batches = batches

    def chunks(self, rows: int) -> Iterator[Chunk]:
        with guarded(self.name):
            yield from batch_chunks(self._batches(), self.name, rows)


class DictsReader(Reader):
    """Dictionaries, one per record, in something that can be gone through more than once."""

    def __init__(self, records: Iterable[Any], name: str) -> None:
        super().__init__(name, None)
        self._records = records
        self.total = len(records) if isinstance(records, Sized) else None

    def chunks(self, rows: int) -> Iterator[Chunk]:
        yield from dict_chunks(self._records, self.name, rows)


class _SpooledDicts(Reader):
    """Dictionaries from an iterator, which gives them only once: kept in a temporary file."""

    def __init__(self, records: Iterator[Any], name: str) -> None:
        super().__init__(name, None)
        self.path = temporary_file(self, ".jsonl")
        with self.path.open("w", encoding="utf-8") as target:
            for row, record in enumerate(records, 1):
                try:
                    target.write(json.dumps(record, default=_tagged) + "\n")
                except (TypeError, ValueError, RecursionError) as error:
                    raise InputError(f"{name}, row {row}: {error}; give plain values") from error

    def chunks(self, rows: int) -> Iterator[Chunk]:
        yield from dict_chunks(self._records(), self.name, rows)

    def _records(self) -> Iterator[Any]:
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line, object_hook=_untagged)


def temporary_file(owner: object, suffix: str) -> Path:
    """A temporary file that goes when its owner does."""
    with tempfile.NamedTemporaryFile(prefix="isometry-", suffix=suffix, delete=False) as file:
        path = Path(file.name)
    remove_with(owner, path)
    return path


def remove_with(owner: object, path: Path) -> None:
    """Remove a file when its owner is collected or the interpreter ends."""
    weakref.finalize(owner, path.unlink, missing_ok=True)


def _spooled_stream(stream: pa.RecordBatchReader, name: str) -> Reader:
    holder = _Holder()
    path = temporary_file(holder, ".arrow")
    with guarded(name), pa.ipc.new_file(str(path), stream.schema) as target:
        for batch in stream:
            target.write_batch(batch)
    return _owned(ArrowReader(path, name), holder)


def _from_lazy_frame(frame: Any, name: str) -> Reader:
    import polars

    holder = _Holder()
    path = temporary_file(holder, ".arrow")
    try:
        frame.sink_ipc(path)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise InputError(f"the {name} cannot be computed: {' '.join(str(error).split())[:200]}") from error
    return _owned(ArrowReader(path, name), holder)


class _Holder:
    """Keeps a temporary file as long as somebody holds on to this."""


def _owned(reader: Reader, holder: _Holder) -> Reader:
    reader.holder = holder
    reader.folder = None
    return reader


def _from_pandas(frame: Any, name: str) -> Reader:
    # A named index is a column that somebody moved aside; an unnamed one only counts rows.
    keep_index = any(level is not None for level in frame.index.names)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=keep_index)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        cause = " ".join(str(error).replace("'", "").split())[:200]
        raise InputError(f"the {name} has a column of mixed types: {cause}; give every column one type") from error
    return ArrowObjectReader(table.schema, table.to_batches, name, table.num_rows)


def _from_datasets(dataset: Any, name: str) -> Reader:
    if isinstance(dataset, dict):
        raise InputError(f"the {name} holds several splits: choose one, such as {next(iter(dataset), 'train')!r}")
    arrow = dataset.with_format("arrow")

    def batches() -> Iterator[pa.RecordBatch]:
        for table in arrow.iter(batch_size=1024):
            yield from table.combine_chunks().to_batches()

    first = next(batches(), None)
    if first is None:
        raise InputError(f"the {name} holds no rows: give a source with records in it")
    return ArrowObjectReader(first.schema, batches, name, len(dataset) if hasattr(dataset, "__len__") else None)


def _tagged(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {_TAG: "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return {_TAG: type(value).__name__, "value": value.isoformat()}
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return {_TAG: type(value).__name__, "value": str(value)}
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is of no type that is kept")


def _untagged(value: dict) -> Any:
    if _TAG not in value:
        return value
    kinds: dict[str, Callable[[str], Any]] = {
        "bytes": base64.b64decode,
        "datetime": datetime.datetime.fromisoformat,
        "date": datetime.date.fromisoformat,
        "time": datetime.time.fromisoformat,
        "Decimal": decimal.Decimal,
        "UUID": uuid.UUID,
    }
    return kinds[value[_TAG]](value["value"])

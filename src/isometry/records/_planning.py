"""Which columns hold ids, texts and images, and the type of every column: asked for, declared, or guessed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from isometry.errors import InputError
from isometry.records._chunks import SAMPLE_BYTES, Chunk, Reader, shown
from isometry.records._images import IMAGE_SUFFIXES, holds_images, is_image_bytes
from isometry.records._types import TYPE_NAMES, convert, infer_texts, infer_values, normal_type

_ID_NAMES = ("id", "_id", "doc_id", "docid", "document_id", "paper_id", "uuid", "guid", "uid")
_POSSIBLE_ID_NAMES = ("key", "identifier", "uri", "url", "path", "filename")
_TITLE_NAMES = ("title", "headline", "heading", "subject", "name")
_BODY_NAMES = (
    "abstract", "text", "body", "content", "contents", "description", "summary", "passage", "document", "sentence",
    "caption", "context", "question", "answer", "message", "review", "tweet", "post",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LINES = str.maketrans("", "", "\t\n\r")


@dataclass(frozen=True)
class ColumnPlan:
    """One attribute: its column in the source, its name and type in the records, whether the user named the type."""

    source: str
    name: str
    type: pa.DataType
    asked: bool


@dataclass(frozen=True)
class Plan:
    """How chunks of a source become records. `id_column` is None where rows are numbered; `encoding` is None where the
    source's format has its own types and texts."""

    id_column: str | None
    columns: tuple[ColumnPlan, ...]
    text_columns: tuple[str, ...]
    image_column: str | None
    notes: tuple[str, ...]
    encoding: str | None = None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("id", pa.string()), *((column.name, self.type_of(column)) for column in self.columns)])

    def type_of(self, column: ColumnPlan) -> pa.DataType:
        """The type in the records: pictures that come as structs of their bytes and path are their bytes."""
        is_struct = column.name == self.image_column and pa.types.is_struct(column.type)
        return pa.binary() if is_struct else column.type


def make_plan(
    reader: Reader,
    *,
    text: Sequence[str] | None,
    image: str | None,
    id: str | None,
    lists: Sequence[str],
    types: Mapping[str, str],
    table: bool = False,
) -> Plan:
    """Read the beginning of a source and decide. Raises InputError for names that are not there."""
    sample = _Sample(reader, types)
    notes = list(reader.notes)
    for name in [*(text or ()), *([image] if image else ()), *([id] if id else ()), *lists]:
        sample.require(name)
    for name, type_name in types.items():
        if type_name not in TYPE_NAMES:
            raise InputError(f"no type '{type_name}' for column '{name}'; the types are {', '.join(TYPE_NAMES)}")
        if reader.typed:
            sample.require(name)
    for name in sample.names:
        if not name or _CONTROL.search(name):
            raise InputError(f"{reader.name} has a column named {shown(name)}: rename it to plain text")

    id_column = id or (None if table else _guess_id(sample))
    if id is not None:
        sample.check_id(id)
    elif id_column is None:
        notes.append("No column looks like an id, so rows are numbered from 1 (name one with --id).")
    else:
        notes.append(f"Ids come from '{id_column}' (choose another column with --id).")

    if table:
        image_column, text_columns = image, tuple(text or ())
    else:
        image_column = image or _guess_image(sample, {id_column, *(text or ())}, notes)
        text_columns = tuple(text) if text is not None else _guess_text(sample, id_column, image_column, types, lists)
    if text is None and text_columns:
        notes.append(f"Texts come from {_listed(text_columns)} (choose others with --text).")
    if not (table or text_columns or image_column):
        raise InputError(
            f"{reader.name} has no column that looks like text or images; name one with --text or --image "
            f"(its columns: {', '.join(sample.names)})"
        )

    columns = []
    for name in sample.names:
        if name == id_column and name not in text_columns:
            continue
        kind = sample.type_of(name)
        asked = name in types or name in lists
        if name in lists:
            kind = kind if pa.types.is_list(kind) else TYPE_NAMES["list"]
        elif name in types:
            kind = TYPE_NAMES[types[name]]
        elif name in text_columns:
            sample.check_text(name, kind)
            kind = pa.string()
        columns.append(ColumnPlan(name, _attribute_name(name, sample.names, notes), kind, asked))
    renamed = {column.source: column.name for column in columns}
    return Plan(
        id_column,
        tuple(columns),
        tuple(renamed[name] for name in text_columns),
        image_column and renamed[image_column],
        tuple(notes),
        None if reader.typed else reader.encoding,
    )


class _Sample:
    """The first rows of a source: values by column, types as declared or inferred."""

    def __init__(self, reader: Reader, types: Mapping[str, str]) -> None:
        self.reader = reader
        values: dict[str, list[Any]] = {}
        rows = size = 0
        wanted = reader.sample_rows
        bad = None
        for chunk in reader.chunks(min(wanted, 1000)):
            bad = bad or next(iter(chunk.rejected), None)
            for name, column in chunk.columns.items():
                # A column that begins late has no values before; types do not need its place.
                values.setdefault(name, []).append(column)
            rows += len(chunk)
            size += _bytes(chunk)
            if rows >= wanted or size >= SAMPLE_BYTES:
                break
        if not rows:
            if bad is not None:
                raise InputError(f"{reader.name} has no row that can be read; row {bad.row}: {bad.reason}")
            raise InputError(f"{reader.name} holds no rows: give a source with records in it")
        self.names = list(values if reader.schema is None else reader.schema.names)
        self.names += [name for name in types if name not in self.names] if not reader.typed else []
        self._values = values
        self._types: dict[str, pa.DataType] = {}

    def require(self, name: str) -> None:
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            columns = ", ".join(self.names[:30]) + (", …" if len(self.names) > 30 else "")
            raise InputError(f"{self.reader.name} has no column '{name}'; {hint}it has {columns}")

    def type_of(self, name: str) -> pa.DataType:
        if name not in self._types:
            parts = self._values.get(name, [])
            if self.reader.typed:
                kind = normal_type(parts[0].type) or pa.string()
                self._types[name] = pa.string() if pa.types.is_binary(kind) and _decodes(parts[0]) else kind
            elif all(isinstance(part, pa.Array) for part in parts):
                arrays = parts or [pa.array([], pa.string())]
                self._types[name] = infer_texts(pa.concat_arrays(arrays))
            else:
                csv = getattr(self.reader, "separator", None) is not None
                values = [
                    value for part in parts for value in (part.to_pylist() if isinstance(part, pa.Array) else part)
                ]
                texts = [value for value in values if isinstance(value, str) and not _CONTROL.search(value)]
                self._types[name] = infer_texts(pa.array(texts, pa.string())) if csv else infer_values(values)
        return self._types[name]

    def texts(self, name: str) -> pa.Array:
        """The column's values as strings, those that do not fit left out."""
        parts = self._values.get(name, [])
        arrays = [convert(part, pa.string(), False)[0] for part in parts]
        return pc.drop_null(pa.concat_arrays(arrays)) if arrays else pa.array([], pa.string())

    def first(self, name: str, count: int = 20) -> list[Any]:
        """The first values that are not null."""
        found: list[Any] = []
        for part in self._values.get(name, []):
            if isinstance(part, pa.Array):
                part = convert(part, self.type_of(name), False)[0].drop_null()[:count].to_pylist()
            found += [value for value in part[:1000] if value is not None]
            if len(found) >= count:
                break
        return found[:count]

    def check_id(self, name: str) -> None:
        kind = self.type_of(name)
        if self.reader.typed and not (pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_binary(kind)):
            raise InputError(f"{self.reader.name}: ids must be text or whole numbers and column '{name}' holds {kind}")

    def check_text(self, name: str, kind: pa.DataType) -> None:
        if self.reader.typed and not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
            raise InputError(
                f"{self.reader.name}: column '{name}' holds {kind} and not text; choose others with --text, "
                f"or read it as text with --types {name}=string"
            )

    def is_text(self, name: str) -> bool:
        return pa.types.is_string(self.type_of(name))


def _decodes(column: pa.Array) -> bool:
    """Whether bytes are text: some writers of parquet do not say that their strings are strings."""
    values = convert(column, pa.binary(), False)[0].drop_null().to_pylist()
    if not values or any(map(is_image_bytes, values)):
        return False
    try:
        return not any(_CONTROL.search(value.decode().translate(_LINES)) for value in values)
    except UnicodeDecodeError:
        return False


def _guess_id(sample: _Sample) -> str | None:
    by_name = {name.lower(): name for name in reversed(sample.names)}
    for candidate in (*_ID_NAMES, *_POSSIBLE_ID_NAMES):
        name = by_name.get(candidate)
        if name is None:
            continue
        kind = sample.type_of(name)
        plain = pa.types.is_string(kind) or pa.types.is_int64(kind)
        if sample.reader.typed and not plain:
            continue
        if candidate in _ID_NAMES:
            return name
        texts = sample.texts(name)
        if plain and len(texts) > 1 and len(texts) == sample_rows(sample) and len(pc.unique(texts)) == len(texts):
            return name
    return None


def sample_rows(sample: _Sample) -> int:
    """Rows that the sample holds in its fullest column."""
    return max(sum(map(len, parts)) for parts in sample._values.values())


def _guess_image(sample: _Sample, taken: set[str | None], notes: list[str]) -> str | None:
    for name in sample.names:
        if name in taken:
            continue
        kind = sample.type_of(name)
        if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_string(kind)):
            continue
        values = sample.first(name)
        if holds_images(values, kind, sample.reader.folder):
            notes.append(f"Images come from '{name}' (choose another column with --image).")
            return name
        if values and all(isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES) for value in values):
            notes.append(f"Column '{name}' names image files that are not there, so it is kept as text.")
    return None


def _guess_text(
    sample: _Sample, id_column: str | None, image: str | None, types: Mapping[str, str], lists: Sequence[str]
) -> tuple[str, ...]:
    free = [name for name in sample.names if name not in {id_column, image, *lists}]
    free = [name for name in free if types.get(name, "string") == "string"]
    if sample.reader.typed:
        free = [name for name in free if sample.is_text(name)]
    by_name = {name.lower(): name for name in reversed(free)}
    titles = [by_name[name] for name in _TITLE_NAMES if name in by_name][:1]
    known = titles + [by_name[name] for name in _BODY_NAMES if name in by_name]
    if known or image:
        return tuple(known)
    lengths = {name: _mean_length(sample.texts(name)) for name in free if sample.is_text(name)}
    longest = max(lengths.values(), default=0)
    return tuple(name for name, length in lengths.items() if length and length >= longest / 2)


def _mean_length(texts: pa.Array) -> float:
    return float(pc.mean(pc.utf8_length(texts)).as_py() or 0) if len(texts) else 0.0


def _attribute_name(name: str, names: Iterable[str], notes: list[str]) -> str:
    """The column's own name; one called 'id' that is not the id steps aside."""
    if name != "id":
        return name
    free = next(other for other in ("original_id", *(f"original_id_{n}" for n in range(2, 99))) if other not in names)
    notes.append(f"Column 'id' is kept as '{free}', since ids come from elsewhere.")
    return free


def _listed(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _bytes(chunk: Chunk) -> int:
    total = 0
    for column in chunk.columns.values():
        if isinstance(column, pa.Array):
            total += column.nbytes
        else:
            total += sum(len(value) if isinstance(value, str | bytes | list) else 8 for value in column)
    return total

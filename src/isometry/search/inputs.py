"""What a collection takes from its caller: pages, texts, vectors and records, each checked and named where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isometry.errors import InputError, ShapeError
from isometry.types import VectorSets

MAX_K, MAX_OFFSET = 10_000, 1_000_000
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def check_page(k: int, offset: int) -> None:
    """Raises: InputError for anything but whole numbers within bounds."""
    for name, value, least, most in (("k", k, 1, MAX_K), ("offset", offset, 0, MAX_OFFSET)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"{name} is {value!r}; give a whole number from {least} to {most:,}")
        if not least <= value <= most:
            raise InputError(f"{name} is {value} and may be {least} to {most:,}")


def check_texts(**given: str | None) -> None:
    """Raises: InputError for what is no text, or no Unicode, with its name."""
    for name, text in given.items():
        if text is not None and not isinstance(text, str):
            raise InputError(f"{name} is {type(text).__name__}; give text")
        if text is not None and not text.isascii() and _HALF_PAIR.search(text):
            raise InputError("the text holds half of a surrogate pair, which is no Unicode; leave it out")


def as_numbers(vectors: Any) -> np.ndarray:
    """As float32, C-contiguous. Raises: ShapeError for texts, ragged lists and complex numbers."""
    try:
        array = np.asarray(vectors)
        if np.iscomplexobj(array):
            raise ShapeError("vectors must be real numbers in the shape (n, d), not complex ones")
        return np.ascontiguousarray(array, np.float32) if array.ndim else array.astype(np.float32)
    except (TypeError, ValueError) as error:
        if isinstance(error, ShapeError):
            raise
        raise ShapeError(f"vectors must be numbers in the shape (n, d): {error}") from error


def fitted(vectors: Any, dimension: int, metric: str, path: Path) -> np.ndarray:
    """Checked float32 `(n, dimension)`, at length one where the metric is the cosine. Raises: ShapeError."""
    if isinstance(vectors, VectorSets):
        raise ShapeError(f"{path} holds one vector a record; give vectors in the shape (n, {dimension})")
    array = as_numbers(vectors)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ShapeError(f"vectors of shape {array.shape} were given and {path} takes (n, {dimension})")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ShapeError(f"vector {int(np.flatnonzero(bad)[0]) + 1} holds NaN or infinity; leave it out")
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64))
        if (lengths == 0).any():
            raise ShapeError(
                f"vector {int(np.flatnonzero(lengths == 0)[0]) + 1} is zero and has no direction; leave it out"
            )
        if (np.abs(lengths - 1) > 1e-6).any():
            array = (array / lengths[:, None]).astype(np.float32)
    return array


def as_batch(records: Any) -> pa.Table | pa.RecordBatch:
    """Records as Arrow data. Raises: InputError for other things, and columns whose values do not fit one type."""
    if isinstance(records, pa.RecordBatch | pa.Table):
        return records
    if isinstance(records, Mapping):
        records = [records]
    if isinstance(records, Sequence) and all(isinstance(one, Mapping) for one in records):
        names = list(dict.fromkeys(str(name) for one in records for name in one)) or ["id"]
        check_texts(**dict(zip(names, names, strict=True)))
        return pa.table({name: _as_array(name, [one.get(name) for one in records]) for name in names})
    if hasattr(records, "__arrow_c_stream__"):
        return pa.table(records)
    raise InputError(f"records must be Arrow data or a list of dicts, not {type(records).__name__}")


def _as_array(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string() if name == "id" and not values else None)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise InputError(f"the values of '{name}' do not fit one type: {error}") from error


def checked_ids(table: pa.Table | pa.RecordBatch) -> list[str]:
    """The ids of records as texts. Raises: InputError where one is missing, twice there, or of another kind."""
    if "id" not in table.schema.names:
        raise InputError("records need a column 'id'")
    column = table.column("id")
    if not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    ):
        if not (table.num_rows == 0 or pa.types.is_integer(column.type)):
            raise InputError(f"ids must be text and are {column.type}")
        column = column.cast(pa.string())
    ids: list[str] = column.to_pylist()
    seen: dict[str, int] = {}
    for number, identity in enumerate(ids, start=1):
        if not identity or "\0" in identity:
            raise InputError(
                f"record {number} has {'no id' if not identity else 'a NUL character in its id'}; give it one"
            )
        if seen.setdefault(identity, number) != number:
            raise InputError(f"id '{identity}' is given twice, in records {seen[identity]} and {number}; keep one")
    return ids

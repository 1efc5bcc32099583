"""Arrow values to what SQLite keeps, and back to what JSON can say."""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from isometry.errors import InputError

Scalar = str | int | float | bytes | None


@dataclass(frozen=True)
class Column:
    """One attribute of a collection.

    Attributes:
        name: as the user knows it.
        kind: one of KINDS.
        role: 'attribute', 'text' or 'image'.
        sql: its column name in SQLite (`c0`, `c1`, ...), so that no user text enters SQL.
        arrow: its Arrow type, for export.
    """

    name: str
    kind: str
    role: str
    sql: str
    arrow: pa.DataType

    @property
    def table(self) -> str:
        """Long values live beside the records so that filters scan only short ones."""
        return "documents" if self.role != "attribute" or self.kind == "binary" else "records"


KINDS = ("string", "int", "float", "bool", "date", "timestamp", "time", "list", "json", "binary")


def kind_of(arrow: pa.DataType, name: str) -> str:
    """Storage kind of an Arrow type; `InputError` for types that no record can hold."""
    types = pa.types
    if types.is_dictionary(arrow):
        return kind_of(arrow.value_type, name)
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow) or types.is_null(arrow):
        return "string"
    if types.is_boolean(arrow):
        return "bool"
    if types.is_integer(arrow):
        return "int"
    if types.is_floating(arrow) or types.is_decimal(arrow):
        return "float"
    if types.is_date(arrow):
        return "date"
    if types.is_timestamp(arrow):
        return "timestamp"
    if types.is_time(arrow):
        return "time"
    if types.is_binary(arrow) or types.is_large_binary(arrow) or types.is_fixed_size_binary(arrow):
        return "binary"
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        inner = kind_of(arrow.value_type, name)
        return "list" if inner in {"string", "int", "float", "bool", "date"} else "json"
    if types.is_struct(arrow) or types.is_map(arrow):
        return "json"
    raise InputError(f"column '{name}' has the type {arrow}, which a record cannot hold; drop or convert it")


def column_values(array: pa.Array, column: Column) -> list[Scalar]:
    """An Arrow array to SQLite values, in order; NaN becomes missing."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        array = array.cast(pa.timestamp("us", tz=array.type.tz), safe=False)
    values = array.to_pylist()
    kind = column.kind
    if kind == "string":
        return [None if value is None else str(value) for value in values]
    if kind == "bool":
        return [None if value is None else int(value) for value in values]
    if kind == "int":
        return [_int(value, column.name) for value in values]
    if kind == "float":
        return [_float(value) for value in values]
    if kind in {"date", "time"}:
        return [None if value is None else value.isoformat() for value in values]
    if kind == "timestamp":
        return [None if value is None else _timestamp(value) for value in values]
    if kind in {"list", "json"}:
        return [None if value is None else json.dumps(_plain(value), ensure_ascii=False) for value in values]
    return [None if value is None else bytes(value) for value in values]


def _int(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if not -(2**63) <= value < 2**63:
        raise InputError(f"column '{name}' holds {value}, which does not fit 64 bits; store it as text")
    return int(value)


def _float(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return None if math.isnan(number) else number


def _timestamp(value: datetime.datetime) -> str:
    if value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return value.isoformat(timespec="microseconds")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def readable(value: Scalar, kind: str) -> Any:
    """A stored value as JSON knows it: dates as ISO text, lists as lists, binary as its size."""
    if value is None:
        return None
    if kind == "bool":
        return bool(value)
    if kind in {"list", "json"}:
        return json.loads(value)  # type: ignore[arg-type]
    if kind == "binary":
        return {"bytes": len(value)}  # type: ignore[arg-type]
    return value


def arrow_array(values: list[Scalar], column: Column) -> pa.Array:
    """Stored values back to the Arrow type they came in."""
    converted: list[Any] = [None if value is None else _restore(value, column) for value in values]
    if column.kind == "json":
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.array(converted, _restored_type(column))


def _restored_type(column: Column) -> pa.DataType:
    arrow = column.arrow
    if pa.types.is_dictionary(arrow):
        arrow = arrow.value_type
    if column.kind == "string":
        return pa.string()
    if column.kind == "float" and pa.types.is_decimal(arrow):
        return pa.float64()
    return arrow


def _restore(value: Scalar, column: Column) -> Any:
    if column.kind == "bool":
        return bool(value)
    if column.kind == "date":
        return datetime.date.fromisoformat(str(value))
    if column.kind == "time":
        return datetime.time.fromisoformat(str(value))
    if column.kind == "timestamp":
        return datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    if column.kind == "list":
        inner = json.loads(value)  # type: ignore[arg-type]
        if pa.types.is_date(column.arrow.value_type):
            return [None if item is None else datetime.date.fromisoformat(item) for item in inner]
        return inner
    return value


def content_hash(values: tuple[Scalar, ...]) -> bytes:
    """16 bytes over the values in order, each tagged with its type and length: equal only for equal values."""
    hasher = hashlib.blake2b(digest_size=16)
    for value in values:
        if value is None:
            hasher.update(b"n")
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            hasher.update(b"s" + len(data).to_bytes(8, "little"))
            hasher.update(data)
        elif isinstance(value, int):
            hasher.update(b"i" + value.to_bytes(8, "little", signed=True))
        elif isinstance(value, float):
            hasher.update(b"f" + struct.pack("<d", value))
        else:
            hasher.update(b"b" + len(value).to_bytes(8, "little"))
            hasher.update(value)
    return hasher.digest()


def mix(row: int, content: bytes) -> int:
    """64 bits of one record for the order-free sum that guards the set of records."""
    digest = hashlib.blake2b(row.to_bytes(8, "little", signed=True) + content, digest_size=8).digest()
    return int.from_bytes(digest, "little")

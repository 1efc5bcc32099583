"""Types of columns: what stays, what is widened, what text and json values are taken for, and which values do not fit.

Attributes have one of these types: string, int64, float64, bool, date32, timestamp[us] (with or without a zone),
time64[us], binary, a list of one of the first seven, or a struct. Everything else is widened to one of them, or
written as json text.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from isometry.records._chunks import shown

TYPE_NAMES = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "list": pa.list_(pa.string()),
}
MISSING = ("NA", "N/A", "null", "NULL", "None", "nan", "NaN")  # besides '', in columns that are not text
IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

_ZONED = pa.timestamp("us", "UTC")
_CLOCK = r"[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?"
# What an unnamed column must look like as a whole; numbers with leading zeros are names of something, not amounts.
_PATTERNS = {
    pa.int64(): r"^-?(0|[1-9]\d*)$",
    pa.float64(): r"^[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?$",
    pa.bool_(): r"^([Tt]rue|[Ff]alse|TRUE|FALSE)$",
    pa.date32(): r"^\d{4}-\d\d-\d\d$",
    pa.timestamp("us"): rf"^\d{{4}}-\d\d-\d\d({_CLOCK})?$",
    _ZONED: rf"^\d{{4}}-\d\d-\d\d{_CLOCK}(Z|[-+]\d\d(:?\d\d)?)$",
}
_ASKED_PATTERNS = {
    **_PATTERNS,
    pa.int64(): r"^-?\d+$",
    pa.float64(): r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$",
    pa.timestamp("us"): rf"^\d{{4}}-\d\d-\d\d({_CLOCK}(Z|[-+]\d\d(:?\d\d)?)?)?$",
}
_NAMES = {
    pa.int64(): "a whole number of 64 bits",
    pa.float64(): "a number",
    pa.bool_(): "true or false",
    pa.date32(): "a date like 2020-01-31",
    pa.timestamp("us"): "a time like 2020-01-31 12:00:00",
    _ZONED: "a time with its zone like 2020-01-31T12:00:00Z",
    pa.time64("us"): "a time of day",
    pa.binary(): "bytes",
}
_PYTHON: dict[pa.DataType, set[type]] = {
    pa.int64(): {int},
    pa.float64(): {int, float},
    pa.bool_(): {bool},
    pa.string(): {str},
    pa.date32(): {datetime.date},
    pa.timestamp("us"): {datetime.datetime},
    _ZONED: {datetime.datetime},
    pa.time64("us"): {datetime.time},
    pa.binary(): {bytes},
}


def normal_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that a column of this Arrow type gets, None where only json text can hold it."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if isinstance(kind, pa.UuidType) else normal_type(kind.storage_type)
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return normal_type(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return pa.string()
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.float64()
    if types.is_date(kind):
        return pa.date32()
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_boolean(kind):
        return kind
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if _is_list(kind):
        inner = normal_type(kind.value_type)
        return None if inner is None or inner == pa.binary() or pa.types.is_nested(inner) else pa.list_(inner)
    if types.is_struct(kind):
        fields = [(field.name, normal_type(field.type)) for field in kind]
        return pa.struct(fields) if fields and all(inner is not None for _, inner in fields) else None
    return None


def infer_texts(texts: pa.Array, *, dates_only: bool = False) -> pa.DataType:
    """The narrowest type that every text fits: int64, float64, bool, date32, timestamp, else string."""
    values = pc.drop_null(_present(texts))
    if not len(values):
        return pa.string()
    for kind, pattern in _PATTERNS.items():
        if dates_only and not pa.types.is_temporal(kind):
            continue
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            try:
                pc.cast(values, kind)
            except pa.ArrowInvalid:  # a number of more than 64 bits, a 30th of February: a name, not an amount
                return pa.string()
            return kind
    return pa.string()


def infer_values(values: Sequence[Any]) -> pa.DataType:
    """The type that every json (or Python) value fits; string where they are mixed or objects."""
    values = _without_numpy(values)
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.string()
    if kinds == {str}:
        return infer_texts(pa.array([_clean_text(value) for value in values], pa.string()), dates_only=True)
    if kinds == {list} or kinds == {tuple}:
        inner = set(map(type, itertools.chain.from_iterable(filter(None, values)))) - {type(None)}
        for kind in (pa.int64(), pa.float64(), pa.bool_()):
            if inner and inner <= _PYTHON[kind]:
                return pa.list_(kind)
        return pa.list_(pa.string()) if inner <= {str} else pa.string()
    if kinds == {dict}:
        is_image = all(value is None or (set(value) <= {"bytes", "path"} and "bytes" in value) for value in values)
        return IMAGE_STRUCT if is_image else pa.string()
    if kinds == {datetime.datetime}:
        zones = {value.tzinfo is not None for value in values if value is not None}
        return pa.string() if len(zones) > 1 else _ZONED if zones == {True} else pa.timestamp("us")
    if kinds <= {decimal.Decimal, float, int}:
        return pa.int64() if kinds == {int} else pa.float64()
    for kind in (pa.bool_(), pa.date32(), pa.time64("us"), pa.binary()):
        if kinds == _PYTHON[kind]:
            return kind
    return pa.string()


def convert(values: pa.Array | list[Any], kind: pa.DataType, asked: bool) -> tuple[pa.Array, dict[int, str]]:
    """Values as an array of a type of ours, with null and a reason at each place that does not fit.

    Args:
        asked: the user named the type, so that texts are parsed for it and leading zeros do not count.
    """
    if isinstance(values, list):
        array, bad = _from_python(values, kind, asked)
    elif pa.types.is_string(values.type) and kind != pa.string():
        array, bad = _from_texts(values, kind, asked)
    else:
        array, bad = _from_arrow(values, kind)
    return _finite(array), bad


def split_list(text: str) -> list[str]:
    """Parts of a text that lists things: on ';' where it has one, else on ',', else on white space."""
    separator = ";" if ";" in text else "," if "," in text else None
    return [part for part in map(str.strip, text.split(separator)) if part]


def _without_numpy(values: Sequence[Any]) -> list[Any]:
    if any(kind.__module__ == "numpy" for kind in set(map(type, values))):
        return [value.tolist() if hasattr(value, "tolist") else value for value in values]
    return list(values)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _present(texts: pa.Array) -> pa.Array:
    """Trimmed texts with null for '' and the words that mean a missing value."""
    trimmed = pc.utf8_trim_whitespace(texts)
    missing = pc.is_in(trimmed, value_set=pa.array(["", *MISSING]))
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def _unfit(value: object, kind: pa.DataType) -> str:
    name = _NAMES.get(kind, "a list" if pa.types.is_list(kind) else str(kind))
    return f"{shown(value)} is not {name}"


def _from_texts(texts: pa.Array, kind: pa.DataType, asked: bool) -> tuple[pa.Array, dict[int, str]]:
    if pa.types.is_list(kind):
        parts = [None if text is None else split_list(text) for text in texts.to_pylist()]
        return _from_python(parts, kind, asked)
    pattern = (_ASKED_PATTERNS if asked else _PATTERNS).get(kind)
    if pattern is None:
        return _one_by_one(texts.to_pylist(), kind, asked)
    values = _present(texts)
    fits = pc.match_substring_regex(values, pattern)
    bad = {}
    if not pc.all(fits).as_py() and pc.any(pc.invert(fits)).as_py():
        bad = {place: _unfit(texts[place].as_py(), kind) for place in _places(pc.invert(fits))}
        values = pc.if_else(fits, values, pa.scalar(None, pa.string()))
    try:
        return pc.cast(values, kind), bad
    except pa.ArrowInvalid:
        array, more = _one_by_one(values.to_pylist(), kind, asked)
        return array, {**more, **bad}


def _from_python(values: list[Any], kind: pa.DataType, asked: bool) -> tuple[pa.Array, dict[int, str]]:
    values = _without_numpy(values)
    kinds = set(map(type, values)) - {type(None)}
    fits = kinds <= _PYTHON.get(kind, set())
    if pa.types.is_list(kind) and kinds <= {list}:
        inner = set(map(type, itertools.chain.from_iterable(filter(None, values)))) - {type(None)}
        fits = inner <= _PYTHON[kind.value_type]
    try:
        if fits:
            return pa.array(values, kind), {}
        if kinds == {str} and (asked or pa.types.is_temporal(kind)):
            return _from_texts(pa.array(values, pa.string()), kind, asked)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        pass
    return _one_by_one(values, kind, asked)


def _from_arrow(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    if isinstance(array.type, pa.BaseExtensionType):
        if isinstance(array.type, pa.UuidType):
            return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string()), {}
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    elif pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    if normal_type(array.type) is None:
        return _one_by_one(_safe_list(array), kind, True)
    if array.type == kind:
        if not _holds_text(kind):
            return array, {}
        try:
            array.validate(full=True)
            return array, {}
        except pa.ArrowInvalid:
            return _decode(array) if kind == pa.string() else _one_by_one(_safe_list(array), kind, True)
    if pa.types.is_large_binary(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.binary())
    try:
        # Nanoseconds are cut to microseconds and decimals rounded to the nearest double; nothing else may change.
        inexact = pa.types.is_temporal(array.type) or pa.types.is_decimal(array.type)
        result = pc.cast(array, kind, safe=not inexact)
        if _holds_text(kind):
            result.validate(full=True)
        return result, {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _decode(array) if pa.types.is_binary(array.type) else _one_by_one(_safe_list(array), kind, True)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _holds_text(kind.value_type)
    return pa.types.is_string(kind) or (pa.types.is_struct(kind) and any(_holds_text(field.type) for field in kind))


def _safe_list(array: pa.Array) -> list[Any]:
    """Python values one by one; a value that Arrow cannot give (text that is not UTF-8) becomes its bytes' picture."""
    values: list[Any] = []
    for value in array:
        try:
            values.append(value.as_py())
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            values.append(error)
    return values


def _decode(array: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    values, bad = [], {}
    for place, value in enumerate(array.cast(pa.binary()).to_pylist()):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            values.append(None)
            bad[place] = f"{shown(value)} is not UTF-8"
    return pa.array(values, pa.string()), bad


def _one_by_one(values: list[Any], kind: pa.DataType, asked: bool) -> tuple[pa.Array, dict[int, str]]:
    taken: list[Any] = []
    bad = {}
    for place, value in enumerate(values):
        try:
            item = _fit(value, kind, asked)
            pa.array([item], kind)
        except UnicodeError:
            item, bad[place] = None, f"{shown(value)} is not UTF-8"
        except (ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException):
            item, bad[place] = None, _unfit(value, kind)
        taken.append(item)
    return pa.array(taken, kind), bad


def _fit(value: Any, kind: pa.DataType, asked: bool) -> Any:
    """A value as the Python type that the Arrow type takes. Raises ValueError or TypeError where it does not fit."""
    if value is None or isinstance(value, Exception):
        if value is not None:
            raise UnicodeError
        return None
    if isinstance(value, float) and math.isnan(value) and kind != pa.float64():
        return None
    if kind == pa.string():
        if isinstance(value, str):
            return value
        is_json = isinstance(value, dict | list | tuple | int | float)
        return json.dumps(value, ensure_ascii=False, default=_json_value) if is_json else str(value)
    if isinstance(value, str) and kind in _PATTERNS and (asked or pa.types.is_temporal(kind)):
        text = value.strip()
        if text in MISSING or not text:
            return None
        if not re.match((_ASKED_PATTERNS if asked else _PATTERNS)[kind], text, re.ASCII):
            raise ValueError
        return pa.scalar(text).cast(kind).as_py()
    if kind == pa.int64() and isinstance(value, float) and value == int(value):
        return int(value)
    if kind == pa.float64() and isinstance(value, int | decimal.Decimal) and not isinstance(value, bool):
        return float(value)
    if pa.types.is_list(kind):
        if isinstance(value, str) and asked:
            value = split_list(value)
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_fit(item, kind.value_type, asked) for item in value]
    if pa.types.is_struct(kind):
        return value
    if type(value) not in _PYTHON.get(kind, {type(value)}):
        raise TypeError
    return value


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _clean_text(value: str | None) -> str | None:
    return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()


def _places(mask: pa.Array) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()


def _finite(array: pa.Array) -> pa.Array:
    """NaN and infinity as null, also inside lists of numbers: neither json nor SQL can hold them."""
    if array.type == pa.float64():
        finite = pc.is_finite(array)
        return array if pc.all(finite).as_py() else pc.if_else(finite, array, pa.scalar(None, pa.float64()))
    if array.type == pa.list_(pa.float64()) and not pc.all(pc.is_finite(array.flatten())).as_py():
        rows = array.to_pylist()
        rows = [row and [item if item is not None and math.isfinite(item) else None for item in row] for row in rows]
        return pa.array(rows, array.type)
    return array

"""An attribute as one byte per record, for colouring points: categories by frequency, numbers and dates on a scale."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isometry.search.filters import attribute_sql
from isometry.search.store.values import readable

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot

CATEGORIES = 12
OTHER, MISSING = 254, 255
_STEPS = 253  # the highest code on a scale
_GROUP = re.compile(r"[.:/]")


@dataclass(frozen=True)
class Colouring:
    """Codes uint8 `(n,)` in the order of the rows asked for.

    Attributes:
        kind: 'category', 'number' or 'date'.
        codes: for categories the place in `categories`, 254 for the rarer ones; on a scale 0 (low) to 253 (high),
            values beyond its ends at its ends; 255 where there is no value.
        categories: (value, count), the most frequent first.
        other: records of rarer values.
        missing: without a value.
        low, high: ends of the scale, the 1st and the 99th percentile; dates as 'YYYY-MM-DD'.
    """

    kind: Literal["category", "number", "date"]
    codes: np.ndarray
    categories: list[tuple[Any, int]]
    other: int
    missing: int
    low: float | str | None = None
    high: float | str | None = None


def colour(snapshot: Snapshot, name: str, rows: np.ndarray, *, grouped: bool = False) -> Colouring:
    """Colour row numbers int64 `(n,)` ascending by an attribute or function of one, as `year(created)`.

    Of a list the first item counts. `grouped` takes texts up to their first '.', ':' or '/', as cs of cs.IR. A text
    attribute whose values are all dates is a date. Raises `FilterError` where there is no such attribute.
    """
    sql, kind, needs = attribute_sql(name, snapshot.columns)
    tables = "records r JOIN documents d ON d.row = r.row" if needs else "records r"
    found = dict(snapshot.connection.execute(f"SELECT r.row, {sql} FROM {tables} WHERE {sql} IS NOT NULL").fetchall())
    values = [found.get(row) for row in rows.tolist()]
    if kind == "list":
        values = [_first(value) for value in values]
    if kind in {"int", "float"}:
        return _scale(np.array([np.nan if value is None else float(value) for value in values], float), "number")
    if kind in {"date", "timestamp"} or (kind == "string" and _are_dates(values)):
        days = np.array([np.nan if value is None else _day(value) for value in values], float)
        return _scale(days, "date")
    if kind == "bool":
        values = [None if value is None else readable(value, "bool") for value in values]
    if grouped:
        values = [_GROUP.split(value, maxsplit=1)[0] if isinstance(value, str) else value for value in values]
    return _by_category(values)


def _by_category(values: list[Any]) -> Colouring:
    counts = Counter(value for value in values if value is not None)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    shown = ranked[:CATEGORIES]
    places = {value: place for place, (value, _) in enumerate(shown)}
    codes = np.fromiter((MISSING if one is None else places.get(one, OTHER) for one in values), np.uint8, len(values))
    other = sum(count for _, count in ranked[CATEGORIES:])
    return Colouring("category", codes, shown, other, int((codes == MISSING).sum()))


def _scale(values: np.ndarray, kind: Literal["number", "date"]) -> Colouring:
    held = values[np.isfinite(values)]
    codes = np.full(len(values), MISSING, np.uint8)
    if not len(held):
        return Colouring(kind, codes, [], 0, len(values))
    low, high = (float(end) for end in np.percentile(held, (1, 99), method="nearest"))
    if low == high:
        low, high = float(held.min()), float(held.max())
    span = (high - low) or 1.0
    finite = np.isfinite(values)
    codes[finite] = np.clip(np.rint(_STEPS * (values[finite] - low) / span), 0, _STEPS).astype(np.uint8)
    ends = (low, high) if kind == "number" else (_said(low), _said(high))
    return Colouring(kind, codes, [], 0, int((~finite).sum()), *ends)


def _first(value: str | None) -> Any:
    items = json.loads(value) if value is not None else None
    return items[0] if items else None


def _are_dates(values: list[Any]) -> bool:
    held = [value for value in values if value is not None]
    return bool(held) and all(_day(value) == _day(value) for value in held)


def _day(value: str) -> float:
    """Days since the year 1, not a number where the text does not begin with a date."""
    try:
        return float(datetime.date.fromisoformat(value[:10]).toordinal())
    except ValueError:
        return float("nan")


def _said(day: float) -> str:
    return datetime.date.fromordinal(int(day)).isoformat()

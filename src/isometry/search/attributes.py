"""Attributes of one version in memory, so that a filter that is new becomes a mask without reading the tables again.

A row's attributes never change (an update is a new row), so what was read for one version is carried over to the next
and only rows that are new are read. Every attribute, or function of one, is its distinct values in order, and a code a
row; a comparison is then a range of codes. Membership in lists is kept as the rows of every item. Only what filters ask
for a second time is read, so that a process that searches once reads no more than it must; what is too large stays in
SQL, and so do LIKE, ids and comparisons of two attributes. Nothing here is a record of truth: all of it is read from
SQLite, by the same expressions that SQL filters with.
"""

from __future__ import annotations

import json
import sys
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.search.predicates import Joined, Negated, Node, Test, tests

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot

MOST_BYTES = 256 << 20
_LARGEST = MOST_BYTES // 4
_MASKS = 64


@dataclass(frozen=True)
class Coded:
    """The values of an attribute.

    Attributes:
        rows: int64 `(n,)` of the version it was read for, ascending.
        held: bool `(n,)`, of which rows it knows the value.
        values: distinct, ascending, as SQLite orders them.
        codes: int32 `(n,)` places in `values`, -1 for a missing value.
    """

    rows: np.ndarray
    held: np.ndarray
    values: list[Any]
    codes: np.ndarray
    nbytes: int

    def mask(self, mark: str, values: tuple[Any, ...]) -> np.ndarray:
        """Bool `(n,)`: where the test is true."""
        codes = self.codes
        if mark in ("null", "not null"):
            return (codes < 0) if mark == "null" else (codes >= 0)
        if mark == "in":
            chosen = np.zeros(len(self.values) + 1, bool)  # the last one is where -1 points
            for value in values:
                chosen[bisect_left(self.values, value) : bisect_right(self.values, value)] = True
            return chosen[codes]
        low, high = 0, len(self.values)
        if mark in ("=", "!=", ">=", "between"):
            low = bisect_left(self.values, values[0])
        elif mark == ">":
            low = bisect_right(self.values, values[0])
        if mark in ("=", "!=", "<=", "between"):
            high = bisect_right(self.values, values[-1])
        elif mark == "<":
            high = bisect_left(self.values, values[0])
        if mark == "!=":
            return ((codes < low) & (codes >= 0)) | (codes >= high)
        if low == high - 1:
            return codes == low
        inside: np.ndarray = codes >= low
        return inside if high == len(self.values) else inside & (codes < high)

    def takes(self, values: tuple[Any, ...]) -> bool:
        """Whether Python compares these values with its own as SQLite does."""
        return not self.values or all(isinstance(value, str) == isinstance(self.values[0], str) for value in values)


@dataclass(frozen=True)
class Postings:
    """The items of a list attribute, and the rows that hold each.

    Attributes:
        rows, held: as in `Coded`.
        items: item -> number.
        starts: `(items + 1,)` into places.
        places: int32 into `rows`.
    """

    rows: np.ndarray
    held: np.ndarray
    items: dict[Any, int]
    starts: np.ndarray
    places: np.ndarray
    nbytes: int

    def mask(self, mark: str, values: tuple[Any, ...]) -> np.ndarray:
        """Bool `(n,)`: which rows hold the item."""
        found = np.zeros(len(self.rows), bool)
        number = self.items.get(values[0])
        if number is not None:
            found[self.places[self.starts[number] : self.starts[number + 1]]] = True
        return found

    def takes(self, values: tuple[Any, ...]) -> bool:
        return True


class AttributeCache:
    """Attributes by the SQL that tells them, the ones used last within MOST_BYTES; any number of threads may ask."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._lock = most_bytes, threading.Lock()
        self._held: OrderedDict[str, Coded | Postings] = OrderedDict()
        self._asked: set[str] = set()
        self._refused: set[str] = set()

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(one.nbytes for one in self._held.values())

    def mask(self, snapshot: Snapshot, tree: Node) -> np.ndarray:
        """Bool `(n,)` over the rows of the snapshot's view: which live rows pass (ended ones may, too)."""
        known: dict[str, Coded | Postings | None] = {}
        for test in tests(tree):
            if test.attribute is not None:
                name = _name(test)
                if name not in known:
                    known[name] = self._get(snapshot, test, name)
        return _mask(snapshot, tree, known)

    def _get(self, snapshot: Snapshot, test: Test, name: str) -> Coded | Postings | None:
        with self._lock:
            if name in self._refused or "r.id" in name:
                return None
            if name not in self._asked:
                self._asked.add(name)
                return None
            old = self._held.get(name)
            view = snapshot.view
            if old is None or old.rows is not view.rows:
                made = _read_postings(snapshot, test, old) if test.mark == "member" else _read(snapshot, test, old)
                if made is None or made.nbytes > min(_LARGEST, self._most):
                    self._held.pop(name, None)
                    self._refused.add(name)
                    return None
                self._held[name] = old = made
            self._held.move_to_end(name)
            while sum(one.nbytes for one in self._held.values()) > self._most:
                self._held.popitem(last=False)
            return old


class Masks:
    """The live rows of one version that pass each of the latest filters."""

    def __init__(self, live: np.ndarray) -> None:
        self._live = live
        self._held: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, source: str | None, passing: Callable[[], np.ndarray]) -> np.ndarray:
        """Bool `(n,)`; the same array for the same filter, while it is remembered."""
        if source is None:
            return self._live
        known = self._held.get(source)
        if known is None:
            known = self._held.setdefault(source, self._live & passing())
            while len(self._held) > _MASKS:
                try:
                    self._held.popitem(last=False)
                except KeyError:  # another thread was first
                    break
        return known


def _name(test: Test) -> str:
    return f"member {test.attribute}" if test.mark == "member" else str(test.attribute)


# ---- from trees to masks -----------------------------------------------------------------------------------------------


def _mask(snapshot: Snapshot, node: Node, known: dict[str, Any]) -> np.ndarray:
    if isinstance(node, Joined):
        quick = [part for part in node.parts if _told(part, known)]
        slow = tuple(part for part in node.parts if not _told(part, known))
        mask: np.ndarray | None = None
        for part in quick:
            more = _mask(snapshot, part, known)
            mask = more if mask is None else (mask & more) if node.word == "and" else (mask | more)
        if slow:
            rest = slow[0] if len(slow) == 1 else Joined(node.word, slow)
            if mask is None:
                return by_sql(snapshot, rest)
            mask = by_sql(snapshot, rest, among=mask) if node.word == "and" else mask | by_sql(snapshot, rest)
        assert mask is not None
        return mask
    if not _told(node, known):
        return by_sql(snapshot, node)
    if isinstance(node, Negated):
        return ~_mask(snapshot, node.part, known)
    assert node.mark is not None
    found: np.ndarray = known[_name(node)].mask(node.mark, node.values)
    return found


def _told(node: Node, known: dict[str, Any]) -> bool:
    """Whether every test of the tree can be told from what is in memory."""
    if isinstance(node, Test):
        held = None if node.attribute is None else known.get(_name(node))
        return held is not None and held.takes(node.values)
    return all(_told(part, known) for part in (node.parts if isinstance(node, Joined) else (node.part,)))


def by_sql(snapshot: Snapshot, tree: Node | None, among: np.ndarray | None = None) -> np.ndarray:
    """Bool `(n,)` over the rows of the view: which pass, by SQL over the tables; all of them for None."""
    rows = snapshot.view.rows
    if among is not None and not among.any():
        return among
    chosen = None
    if among is not None and 8 * np.count_nonzero(among) < len(rows):
        chosen = rows[among]
    places = np.searchsorted(rows, passing_rows(snapshot, tree, chosen))
    mask = np.zeros(len(rows), bool)
    mask[places] = True
    return mask if among is None else mask & among


def passing_rows(snapshot: Snapshot, tree: Node | None, chosen: np.ndarray | None = None) -> np.ndarray:
    """Row numbers int64, ascending, of the records (of those in `chosen` rows) that pass, by SQL over the tables."""
    documents = tree is not None and any(test.documents for test in tests(tree))
    sql, parameters = ("1", ()) if tree is None else (tree.sql, tree.parameters)
    if chosen is not None:
        sql, parameters = f"r.row IN (SELECT value FROM json_each(?)) AND ({sql})", (_json(chosen), *parameters)
    # One long text is read out of SQLite several times faster than as many Python integers.
    (joined,) = snapshot.connection.execute(
        f"SELECT group_concat(r.row) FROM {_tables(documents)} WHERE {sql}", parameters
    ).fetchone()
    if joined is None:
        return np.empty(0, np.int64)
    return np.sort(np.array(str(joined).split(","), np.int64))


def _tables(documents: bool) -> str:
    return "records r JOIN documents d ON d.row = r.row" if documents else "records r"


def _json(rows: np.ndarray) -> str:
    return json.dumps(rows.tolist())


# ---- reading attributes ------------------------------------------------------------------------------------------------


def _carried(snapshot: Snapshot, old: Coded | Postings | None) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the view: its place in what was read before (-1 for none); and the live rows still to be read."""
    view = snapshot.view
    if old is None or not len(old.rows):
        return np.full(len(view.rows), -1), view.rows[view.live]
    places = np.minimum(np.searchsorted(old.rows, view.rows), len(old.rows) - 1)
    places[(old.rows[places] != view.rows) | ~old.held[places]] = -1
    return places, view.rows[(places < 0) & view.live]


def _restricted(missing: np.ndarray, all_rows: np.ndarray) -> tuple[str, tuple[Any, ...]]:
    """A condition on r.row that takes the missing rows, and others only where that costs less."""
    if 8 * len(missing) > len(all_rows):
        return "1", ()
    return "r.row IN (SELECT value FROM json_each(?))", (_json(missing),)


def _read(snapshot: Snapshot, test: Test, old: Any) -> Coded | None:
    """The attribute for this version; None where it is too large, or of kinds that have no common order."""
    view = snapshot.view
    places, missing = _carried(snapshot, old)
    codes = np.full(len(view.rows), -1, np.int32)
    values: list[Any] = [] if old is None else list(old.values)
    if old is not None and len(old.rows):
        codes = np.where(places >= 0, old.codes[places], -1).astype(np.int32)
    if len(missing):
        numbers = {value: number for number, value in enumerate(values)}
        size = sum(map(sys.getsizeof, values))
        condition, parameters = _restricted(missing, view.rows)
        rows, fresh = [], []
        for row, value in snapshot.connection.execute(
            f"SELECT r.row, {test.attribute} FROM {_tables(test.documents)} WHERE {condition}", parameters
        ):
            rows.append(row)
            if value is None:
                fresh.append(-1)
                continue
            known = len(numbers)
            fresh.append(numbers.setdefault(value, known))
            if len(numbers) > known:
                size += sys.getsizeof(value)
                if size > _LARGEST:
                    return None
        codes[np.searchsorted(view.rows, np.array(rows, np.int64))] = fresh
        if len(numbers) > len(values):
            if len({isinstance(value, str) for value in numbers}) > 1:
                return None
            values = sorted(numbers)
            order = np.array([numbers[value] for value in values])
            turned = np.full(len(values) + 1, -1, np.int32)
            turned[order] = np.arange(len(values), dtype=np.int32)
            codes = turned[codes]
    size = codes.nbytes + len(codes) + sum(map(sys.getsizeof, values)) + 8 * len(values)
    return Coded(view.rows, view.live | (places >= 0), values, codes, size)


def _read_postings(snapshot: Snapshot, test: Test, old: Any) -> Postings | None:
    """The items of a list attribute for this version; None where there are too many."""
    view = snapshot.view
    places, missing = _carried(snapshot, old)
    items: dict[Any, int] = {} if old is None else dict(old.items)
    held_places = held_items = np.empty(0, np.int32)
    if old is not None and len(old.rows):
        back = np.full(len(old.rows), -1, np.int32)
        back[places[places >= 0]] = np.flatnonzero(places >= 0)
        held_places = back[old.places]
        held_items = np.repeat(np.arange(len(items), dtype=np.int32), np.diff(old.starts))
        held_items, held_places = held_items[held_places >= 0], held_places[held_places >= 0]
    if len(missing):
        condition, parameters = _restricted(missing, view.rows)
        rows, fresh, size = [], [], sum(map(sys.getsizeof, items))
        for row, value in snapshot.connection.execute(
            f"SELECT r.row, r.value FROM members r WHERE r.column = ? AND {condition}",
            (test.parameters[0], *parameters),
        ):
            known = len(items)
            fresh.append(items.setdefault(value, known))
            rows.append(row)
            size += 16 + (sys.getsizeof(value) if len(items) > known else 0)
            if size > 2 * _LARGEST:
                return None
        held_places = np.concatenate([held_places, np.searchsorted(view.rows, np.array(rows, np.int64))])
        held_items = np.concatenate([held_items, np.array(fresh, np.int32)])
    order = np.argsort(held_items, kind="stable")
    starts = np.searchsorted(held_items[order], np.arange(len(items) + 1))
    found = held_places[order].astype(np.int32)
    size = found.nbytes + starts.nbytes + len(view.rows) + sum(100 + sys.getsizeof(value) for value in items)
    return Postings(view.rows, view.live | (places >= 0), items, starts, found, size)


__all__ = ["AttributeCache", "Coded", "Masks", "Postings", "by_sql", "passing_rows"]

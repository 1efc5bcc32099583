"""Attributes as colour codes, with exact codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from isometry.errors import FilterError
from isometry.search import Collection
from isometry.search.colouring import CATEGORIES, MISSING, OTHER, colour

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("number", pa.float64()),
        ("day", pa.string()),
        ("date", pa.date32()),
        ("tags", pa.list_(pa.string())),
        ("yes", pa.bool_()),
    ]
)
RECORDS = [
    {"id": "a", "kind": "cs.IR", "number": 0.0, "day": "2019-01-01", "tags": ["x", "y"], "yes": True},
    {"id": "b", "kind": "cs.LG", "number": 5.0, "day": "2019-01-11", "tags": ["y"], "yes": False},
    {"id": "c", "kind": "math.CO", "number": 10.0, "day": None, "tags": [], "yes": True},
    {"id": "d", "kind": None, "number": None, "day": "2019-01-21", "tags": None, "yes": None},
]  # fmt: skip


@pytest.fixture
def snapshot(tmp_path):
    import datetime

    records = [{**one, "date": datetime.date.fromisoformat(one["day"]) if one["day"] else None} for one in RECORDS]
    with Collection.create(tmp_path / "c", dimension=2, schema=SCHEMA) as made:
        made.add(records, np.ones((4, 2), np.float32))
        with made.read() as held:
            yield held


def codes(snapshot, name, **more):
    return colour(snapshot, name, snapshot.view.rows, **more).codes.tolist()


def test_categories_by_frequency_then_name(snapshot):
    made = colour(snapshot, "kind", snapshot.view.rows)
    assert (made.kind, made.categories) == ("category", [("cs.IR", 1), ("cs.LG", 1), ("math.CO", 1)])
    assert made.codes.tolist() == [0, 1, 2, MISSING] and (made.other, made.missing) == (0, 1)
    grouped = colour(snapshot, "kind", snapshot.view.rows, grouped=True)
    assert grouped.categories == [("cs", 2), ("math", 1)] and grouped.codes.tolist() == [0, 0, 1, MISSING]
    assert colour(snapshot, "tags", snapshot.view.rows).categories == [("x", 1), ("y", 1)]
    assert codes(snapshot, "tags") == [0, 1, MISSING, MISSING]
    assert colour(snapshot, "yes", snapshot.view.rows).categories == [(True, 2), (False, 1)]


def test_numbers_and_dates_on_a_scale(snapshot):
    made = colour(snapshot, "number", snapshot.view.rows)
    assert (made.kind, made.low, made.high) == ("number", 0.0, 10.0)
    assert made.codes.tolist() == [0, 126, 253, MISSING]
    for name in ("day", "date"):
        made = colour(snapshot, name, snapshot.view.rows)
        assert (made.kind, made.low, made.high, made.missing) == ("date", "2019-01-01", "2019-01-21", 1)
        assert made.codes.tolist() == [0, 126, MISSING, 253]
    assert colour(snapshot, "year(day)", snapshot.view.rows).kind == "number"


def test_more_categories_than_colours_and_rows_that_are_gone(tmp_path):
    with Collection.create(tmp_path / "c", dimension=2, schema=pa.schema([("kind", pa.string())])) as made:
        kinds = [f"k{n:02}" for n in range(CATEGORIES + 3) for _ in range(20 - n)]
        made.add([{"id": str(n), "kind": kind} for n, kind in enumerate(kinds)], np.ones((len(kinds), 2), np.float32))
        with made.read() as held:
            rows = held.view.rows[[0, 19, len(kinds) - 1]]
            made_of = colour(held, "kind", held.view.rows)
            assert len(made_of.categories) == CATEGORIES and made_of.other == 8 + 7 + 6
            assert made_of.codes[-1] == OTHER
            assert colour(held, "kind", rows).categories == [("k00", 2), (f"k{CATEGORIES + 2}", 1)]
        made.delete("0")
        with made.read() as held:
            assert colour(held, "kind", rows).missing == 1


def test_unknown_attributes_are_named(snapshot):
    with pytest.raises(FilterError, match="did you mean 'kind'"):
        colour(snapshot, "kinds", snapshot.view.rows)

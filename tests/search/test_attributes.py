"""Filters told from attributes in memory: as SQL tells them, whatever is written meanwhile, and within their bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isometry.search import Collection, compile_filter
from isometry.search.attributes import AttributeCache, by_sql
from tests.search.conftest import SCHEMA, rows, unit_vectors
from tests.search.test_filters import EXPRESSIONS

FILTERS = [
    "n = 7", "n != 7", "n < 40", "n <= 40", "n > 250.5", "n >= 250", "40 > n", "n BETWEEN 20 AND 21", "n BETWEEN 21 AND 20",
    "n IN (1, 2, 2.0, 900)", "n NOT IN (1, 2)", "weight = 12.5", "weight != 3", "created >= '2010'", "year(created) = 2004",
    "year(created) != 2004", "NOT year(created) = 2004", "month(created) IN (1, 2)", "created IS NULL", "created IS NOT NULL",
    "ok", "NOT ok", "ok = false", "'t1' IN tags", "'t1' NOT IN tags", "'none' IN tags", "tags IS NULL", "seen < '2020-01-01T07'",
    "lower(title) = 'graph number 0 graph'", "length(title) > 20", "title >= 'm'", "title < 'é'", "title = ''",
    "title LIKE '%graph%' AND n < 20", "title LIKE '%graph%' AND n >= 0", "title LIKE '%graph%' OR n < 20",
    "NOT (title LIKE '%graph%' OR 't0' IN tags) AND ok", "n = weight OR 'u3' IN tags", "id = 'r12' OR id > 'r29'",
    "5 BETWEEN 1 AND 9 AND n < 4", "abs(n) > 298", "'number' IN title AND 't2' IN tags", "n < 1e30 AND n > -9223372036854775808",
]  # fmt: skip


def passing(collection: Collection, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Which live rows pass: by the attributes in memory, and by SQL."""
    tree = compile_filter(source, collection.columns).tree
    with collection.read() as snapshot:
        live = snapshot.view.live
        for _ in range(2):  # what is asked for a second time is read
            told = snapshot.attributes.mask(snapshot, tree)
        return told & live, by_sql(snapshot, tree) & live


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    path = tmp_path_factory.mktemp("attributes") / "c"
    with Collection.create(path, dimension=4, schema=SCHEMA, text_columns=["title"]) as opened:
        opened.upsert(rows(range(300)), np.random.default_rng(0).normal(size=(300, 4)))
        opened.delete([f"r{number}" for number in range(40, 80)])
        yield opened


@pytest.mark.parametrize("source", FILTERS)
def test_every_test_is_told_as_sql_tells_it(collection, source):
    told, sql = passing(collection, source)
    assert told.tolist() == sql.tolist()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EXPRESSIONS)
def test_expressions_are_told_as_sql_tells_them(collection, expression):
    told, sql = passing(collection, expression[0])
    assert told.tolist() == sql.tolist()


def test_a_known_attribute_is_not_read_again(collection):
    passing(collection, "n < 3")
    with collection.read() as snapshot:
        seen: list[str] = []
        snapshot.connection.set_trace_callback(seen.append)
        try:
            found = snapshot.attributes.mask(snapshot, compile_filter("n BETWEEN 90 AND 95", snapshot.columns).tree)
        finally:
            snapshot.connection.set_trace_callback(None)
        assert np.count_nonzero(found & snapshot.view.live) == 6 and seen == []


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True), st.integers(0, 900)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True), st.just(0)),
    ),
    min_size=1, max_size=8,
)  # fmt: skip
_SHIFTING = [
    "n < 400",
    "'t1' IN tags",
    "NOT 'u3' IN tags",
    "year(created) > 2009",
    "length(title) = 21",
    "tags IS NULL",
]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS)
def test_writes_are_seen_at_once_and_older_versions_keep_theirs(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("steps") / "c"
    records = rows(range(900 + 61))
    with (
        Collection.create(path, dimension=4, schema=SCHEMA, text_columns=["title"]) as written,
        Collection.open(path) as held,
    ):
        written.upsert(records[:40], unit_vectors(40, 4))
        with held.read() as old:  # one version, kept open over all that follows
            before = {
                source: by_sql(old, compile_filter(source, old.columns).tree) & old.view.live for source in _SHIFTING
            }
            for kind, numbers, shift in steps:
                if kind == "upsert":
                    fresh = [{**records[number + shift], "id": f"r{number}"} for number in numbers]
                    written.upsert(fresh, unit_vectors(len(fresh), 4, seed=shift))
                else:
                    written.delete([f"r{number}" for number in numbers])
                for source in _SHIFTING:
                    told, sql = passing(held, source)
                    assert told.tolist() == sql.tolist(), source
                    found = written.search(vector=[1.0, 0, 0, 0], k=100, where=source)
                    assert found.total == len(found.hits) == written.count(source) == int(told.sum())
            for source, mask in before.items():
                told = held._attributes.mask(old, compile_filter(source, old.columns).tree)
                assert (told & old.view.live).tolist() == mask.tolist()
        written.compact()
        for source in _SHIFTING:
            told, sql = passing(held, source)
            assert told.tolist() == sql.tolist()


def test_what_does_not_fit_stays_in_sql(collection):
    small = AttributeCache(most_bytes=6000)
    trees = [
        compile_filter(source, collection.columns).tree for source in ("n < 9", "ok", "'t1' IN tags", "title > 'm'")
    ]
    with collection.read() as snapshot:
        for tree in trees * 3:
            told = small.mask(snapshot, tree) & snapshot.view.live
            assert told.tolist() == (by_sql(snapshot, tree) & snapshot.view.live).tolist()
            assert small.nbytes <= 6000
    assert small.nbytes > 0


def test_texts_and_numbers_compare_as_in_sqlite(tmp_path):
    texts = ["", "a", "A", "aé", "a\u0301", "Z", "\U0001f600", "\uffff", "a b", "10", "9", None]
    numbers = [0.0, -0.0, 1.0, 2.0**53, 2.0**53 + 2, float("inf"), -1e300, 0.1, 5e-324, 1e18, 3.5, None]
    whole = [0, 1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 3, 4, 5, 6, 7, None]
    table = pa.table(
        {"id": [str(number) for number in range(12)], "t": texts, "f": numbers, "i": pa.array(whole, pa.int64())}
    )
    with Collection.create(tmp_path / "c", dimension=2, schema=table.schema.remove(0)) as opened:
        opened.upsert(table, np.ones((12, 2), np.float32))
        literals = {
            "t": ["''", "'a'", "'aé'", "'10'", "'\U0001f600'", "'\uffff'", "'zz'"],
            "f": ["0", "9007199254740993", "9007199254740992", "1e400", "-1e400", "0.1", "1"],
            "i": ["9007199254740992.0", "9007199254740993", "9.3e18", "-9223372036854775808", "0.5", "7"],
        }
        for name, values in literals.items():
            for value in values:
                for mark in ("=", "!=", "<", "<=", ">", ">="):
                    told, sql = passing(opened, f"{name} {mark} {value}")
                    assert told.tolist() == sql.tolist(), (name, mark, value)

"""Filters against a plain evaluator, and what they refuse."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isometry.errors import FilterError
from isometry.search import Collection
from isometry.search.filters import compile_filter
from tests.search.conftest import SCHEMA, rows

RECORDS = rows(range(300))
_QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _compare(mark: str, left: Any, right: Any) -> bool:
    if left is None:
        return False
    return {"=": left == right, "!=": left != right, "<": left < right, "<=": left <= right, ">": left > right,
            ">=": left >= right}[mark]  # fmt: skip


_marks = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def _number_test() -> st.SearchStrategy[tuple[str, Any]]:
    return st.builds(
        lambda name, mark, value: (f"{name} {mark} {value}", lambda r: _compare(mark, r[name], value)),
        st.sampled_from(["n", "weight"]), _marks, st.integers(-5, 320),
    )  # fmt: skip


def _date_test() -> st.SearchStrategy[tuple[str, Any]]:
    return st.builds(
        lambda mark, value: (f"created {mark} '{value}'", lambda r: _compare(mark, r["created"], value)),
        _marks, st.dates(datetime.date(1999, 1, 1), datetime.date(2021, 1, 1)),
    )  # fmt: skip


def _year_test() -> st.SearchStrategy[tuple[str, Any]]:
    return st.builds(
        lambda mark, value: (f"year(created) {mark} {value}", lambda r: _compare(mark, r["created"] and r["created"].year, value)),
        _marks, st.integers(1999, 2021),
    )  # fmt: skip


def _between_test() -> st.SearchStrategy[tuple[str, Any]]:
    return st.builds(
        lambda low, high, word: (
            f"n {word}BETWEEN {low} AND {high}",
            lambda r: (low <= r["n"] <= high) != bool(word),
        ),
        st.integers(0, 300), st.integers(0, 300), st.sampled_from(["", "NOT "]),
    )  # fmt: skip


def _in_test() -> st.SearchStrategy[tuple[str, Any]]:
    return st.builds(
        lambda values, word: (f"n {word}IN ({', '.join(map(str, values))})", lambda r: (r["n"] in values) != bool(word)),
        st.lists(st.integers(0, 299), min_size=1, max_size=6), st.sampled_from(["", "NOT "]),
    )  # fmt: skip


_member_test = st.builds(
    lambda tag, word: (f"'{tag}' {word}IN tags", lambda r: (tag in (r["tags"] or ())) != bool(word)),
    st.sampled_from(["t0", "t1", "u3", "none"]), st.sampled_from(["", "NOT "]),
)  # fmt: skip
_null_test = st.builds(
    lambda name, word: (f"{name} IS {word}NULL", lambda r: (r[name] is None) != bool(word)),
    st.sampled_from(["weight", "created", "tags", "ok"]), st.sampled_from(["", "NOT "]),
)  # fmt: skip
_like_test = st.builds(
    lambda word: (f"title LIKE '%{word}%'", lambda r: word in r["title"]), st.sampled_from(["graph", "number 1", "zzz"])
)
_bool_test = st.sampled_from([("ok", lambda r: r["ok"] is True), ("ok = false", lambda r: r["ok"] is False)])
_leaf = st.one_of(
    _number_test(),
    _date_test(),
    _year_test(),
    _between_test(),
    _in_test(),
    _member_test,
    _null_test,
    _like_test,
    _bool_test,
)
EXPRESSIONS = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.builds(lambda a, b: (f"({a[0]} AND {b[0]})", lambda r: a[1](r) and b[1](r)), inner, inner),
        st.builds(lambda a, b: (f"({a[0]} OR {b[0]})", lambda r: a[1](r) or b[1](r)), inner, inner),
        st.builds(lambda a: (f"NOT ({a[0]})", lambda r: not a[1](r)), inner),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    import numpy as np

    path = tmp_path_factory.mktemp("filters") / "c"
    with Collection.create(path, dimension=4, schema=SCHEMA, text_columns=["title"]) as opened:
        opened.upsert(RECORDS, np.random.default_rng(0).normal(size=(300, 4)))
        yield opened


@_QUICK
@given(EXPRESSIONS)
def test_filters_mean_what_they_say(collection, expression):
    source, holds = expression
    assert collection.count(source) == sum(holds(record) for record in RECORDS)


@_QUICK
@given(EXPRESSIONS, st.integers(1, 400))
def test_a_filter_and_its_negation_are_everything(collection, expression, k):
    source, holds = expression
    wanted = {record["id"] for record in RECORDS if holds(record)}
    vector = [1.0, -0.5, 0.25, 2.0]
    inside = collection.search(vector=vector, k=k, where=source)
    outside = collection.search(vector=vector, k=k, where=f"NOT ({source})")
    assert {hit.id for hit in inside.hits} <= wanted
    assert not {hit.id for hit in outside.hits} & wanted
    assert len(inside.hits) == min(k, len(wanted)) and inside.total == len(wanted)
    assert len(outside.hits) == min(k, 300 - len(wanted)) and outside.total == 300 - len(wanted)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "empty"),
        ("n = 'x'", "'n' holds numbers and 'x' is text"),
        ("title = 3", "'title' holds text and 3 is numbers"),
        ("titel = 'x'", "did you mean 'title'"),
        ('title = "graph"', "texts stand in single quotes"),
        ("n = 1; DROP TABLE records", "';' at character 6"),
        ("n = 1 -- comment", "was expected|no meaning"),
        ("n = 1 UNION SELECT 1", "nothing was expected"),
        ("(SELECT 1) = 1", "no attribute 'SELECT'"),
        ("load_extension('x') = 1", "no function"),
        ("year(n) = 1", "takes a date"),
        ("created > 'soon'", "write it as '2018-01-31'"),
        ("tags = 't1'", "value IN tags"),
        ("3 IN n", "is no list"),
        ("n IN ()", "a value was expected|attribute or a value"),
        ("n BETWEEN 1", "'and' was expected"),
        ("n = 'it''s", "no closing quote"),
        ("(n = 1", r"'\)' was expected"),
        ("n = 1)", "nothing was expected"),
        ("n", "a comparison was expected"),
        ("NOT", "an attribute or a value was expected"),
        ("1 = 1", "needs an attribute"),
        ("(" * 100 + "n = 1" + ")" * 100, "nests deeper"),
        ("n = 1 OR " * 2000 + "n = 1", "joins more than|characters"),
        ("n = 1" + " " * 30_000, "characters"),
        ("title LIKE '" + "%a" * 30 + "'", "too long"),
        ("records.id = 'x'", "no attribute"),
        ("sqlite_master = 1", "no attribute"),
    ],
)
def test_what_is_no_filter_is_one_sentence(collection, source, reason):
    with pytest.raises(FilterError, match=reason) as caught:
        collection.count(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            [
                "n",
                "title",
                "(",
                ")",
                "=",
                "<",
                "'",
                "'x'",
                "3",
                "AND",
                "OR",
                "NOT",
                "IN",
                "LIKE",
                "tags",
                ",",
                "IS",
                "NULL",
            ]
        )
    ).map(" ".join)
)
def test_no_text_does_more_than_raise_filter_error(collection, source):
    try:
        compiled = compile_filter(source, collection.columns)
    except FilterError:
        return
    assert collection.count(compiled.source) <= 300


def test_names_with_spaces_quotes_and_keywords(tmp_path):
    import numpy as np
    import pyarrow as pa

    table = pa.table({"id": ["a", "b"], "a b": [1, 2], 'qu"ote': ["x", "y"], "select": [True, False], "in": [5, 6]})
    with Collection.create(tmp_path / "c", dimension=2) as opened:
        opened.upsert(table, np.eye(2))
        assert opened.count('"a b" = 2') == 1
        assert opened.count('"qu""ote" = \'x\'') == 1
        assert opened.count("select") == 1
        assert opened.count("in = 5") == 1


def test_membership_in_separated_text(tmp_path):
    import numpy as np

    records = [
        {"id": "a", "c": "cs.IR cs.LG"},
        {"id": "b", "c": "cs.LGX"},
        {"id": "c", "c": "math, cs.LG;x"},
        {"id": "d", "c": None},
    ]
    with Collection.create(tmp_path / "c", dimension=4) as opened:
        opened.upsert(records, np.eye(4))
        assert opened.count("'cs.LG' IN c") == 2
        assert opened.count("'cs.LG' NOT IN c") == 2


def test_year_without_an_attribute_of_that_name_is_that_of_the_date(collection):
    assert collection.count("year >= 2018") == collection.count("year(created) >= 2018") > 0


def test_moments_compare_as_moments_however_they_are_written(tmp_path):
    import numpy as np
    import pyarrow as pa

    day, noon = datetime.date(2018, 5, 2), datetime.datetime(2018, 5, 2, 12)
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "d": pa.array([datetime.date(2018, 1, 1), day, None]),
            "n": pa.array([datetime.datetime(2018, 1, 1), noon, None], pa.timestamp("us")),
            "z": pa.array([datetime.datetime(2018, 1, 1), noon, None], pa.timestamp("us", "UTC")),
            "t": pa.array([datetime.time(1, 2), datetime.time(3, 4, 5, 6), None], pa.time64("us")),
        }
    )
    wanted = {
        "d = '2018-01-01'": "a", "d >= '2018'": "ab", "d > '2018'": "b", "d < '2018-05'": "a", "d <= '2018-05-02'": "ab",
        "d = '2018-01-01T00:00'": "a", "n = '2018-01-01'": "a", "n = '2018-05-02 12:00'": "b", "n >= '2018-05-02T12:00:00'": "b",
        "n = '2018-05-02T12:00:00.000000'": "b", "z = '2018-05-02T12:00:00Z'": "b", "z = '2018-05-02T13:00+01:00'": "b",
        "z > '2018-05-02T13:00+01:00'": "", "z = '2018-05-02T12:00'": "b", "n BETWEEN '2018' AND '2018-05-02T12:00'": "ab",
        "d IN ('2018-05-02', '1999-01-01')": "b", "t = '01:02'": "a", "t > '01:02:00'": "b", "NOT d > '2018-02'": "ac",
        "year(z) = 2018 AND month(z) = 5 AND day(n) = 2": "b",
    }  # fmt: skip
    with Collection.create(tmp_path / "c", dimension=3, schema=table.schema) as opened:
        opened.upsert(table, np.eye(3))
        for source, ids in wanted.items():
            assert "".join(sorted(hit.id for hit in opened.search(where=source).hits)) == ids, source
        for wrong in ("2018-13-01", "2018-02-30", "0000", "99999-01-01", "soon", "2018-1-1", "25:00", "", "'; --"):
            with pytest.raises(FilterError, match=r"is a date|no closing|nothing was expected|no meaning"):
                opened.count(f"d = '{wrong}'")


@pytest.mark.parametrize("depth", [1, 10, 25, 40, 60])
def test_nesting_is_answered_or_refused_in_a_sentence(collection, depth):
    """SQLite's own limits never show."""
    for source in (
        "(" * depth + "n < 100" + ")" * depth,
        "NOT (" * depth + "n < 100" + ")" * depth,
        "NOT (n > 5 AND " * depth + "n < 100" + ")" * depth,
        "(n > 5 OR n = 3 AND " * depth + "n < 100" + ")" * depth,
        " AND ".join(["n < 100"] * 8 * depth),
        "lower(" * depth + "title" + ")" * depth + " = 'x'",
    ):
        try:
            count = collection.count(source)
        except FilterError as error:
            assert "flatter" in str(error) or "nest deeper" in str(error)
            assert depth > 8
        else:
            assert 0 <= count <= 300


def test_facets_and_sort_are_held_to_the_same_grammar(collection):
    for hostile in (
        "1",
        "'x'",
        "n; DROP TABLE records",
        "count(*)",
        "lower(" * 3000 + "title",
        "x" * 30_000,
        "(SELECT 1)",
        "",
        "n, n",
    ):
        with pytest.raises(FilterError):
            collection.facets([hostile])
        with pytest.raises(FilterError):
            collection.search(sort=hostile)
    assert collection.search(sort="n" + " " * 800 + "desc", k=1).hits[0].record["n"] == 299

"""Filters drawn over attributes, the truth they are judged by, and spans of selectivity: small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.evaluation.filtered import FilterDrawer, bucket_name, bucket_of, filtered_best, recall_of


@pytest.fixture
def drawer():
    """60 records around two opposite directions: 'left' ones lie at -x, 'right' ones at +x; five have no colour."""
    side = np.array([-1.0, 1.0])[np.arange(60) % 2]
    vectors = np.stack([side, 0.1 * np.sin(np.arange(60))], axis=1).astype(np.float32)
    colours = [None if i < 5 else "left" if side[i] < 0 else "right" for i in range(60)]
    tags = [["all", f"t{i % 3}"] if i else [] for i in range(60)]
    return FilterDrawer(vectors, {"colour": colours}, {"n": np.arange(60)}, {"tags": tags})


def test_values_come_from_the_records(drawer):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(50):
        one = drawer.drawn("EM", "colour", rng)
        seen.add(one.value)
        assert one.mask.sum() in (27, 28) and not one.mask[:5].any() and one.where == f"colour = '{one.value}'"
        some = drawer.drawn("EMIS", "tags", rng)
        assert some.where == f"'{some.value}' IN tags" and some.mask.sum() == (
            59 if some.value == "all" else 19 + (some.value != "t0")
        )
    assert seen == {"left", "right"}


def test_ranges_hold_about_the_share_that_was_drawn(drawer):
    rng = np.random.default_rng(1)
    sizes = set()
    for _ in range(100):
        one = drawer.drawn("R", "n", rng)
        low, high = one.value
        assert one.mask.sum() == high - low + 1 and one.where == f"n BETWEEN {low} AND {high}"
        sizes.add(int(one.mask.sum()))
    assert sizes == {30, 18, 6, 3, 1}


def test_values_against_a_query_lie_on_the_other_side(drawer):
    rng = np.random.default_rng(2)
    assert drawer.against("EM", "colour", np.array([1.0, 0]), rng).value == "left"
    assert drawer.against("EM", "colour", np.array([-1.0, 0]), rng).value == "right"
    assert drawer.near("EM", "colour", ["right"], rng).value == "right"
    assert drawer.near("EM", "colour", ["blue"], rng) is None and drawer.near("EM", "colour", [], rng) is None


def test_too_few_records_a_value(drawer):
    few = FilterDrawer(np.eye(3, dtype=np.float32), {"x": ["a", "b", "c"]}, {}, {})
    with pytest.raises(InputError, match="no value of 'x' is in 10 records"):
        few.against("EM", "x", np.ones(3), np.random.default_rng(0))


def test_the_truth_is_brute_force_with_ties_by_row():
    vectors = np.array([[1, 0], [1, 0], [0.5, 0], [0, 1], [1, 0]], np.float32)
    query = np.array([1, 0], np.float32)
    assert filtered_best(vectors, query, np.ones(5, bool), 2).tolist() == [0, 1]
    assert filtered_best(vectors, query, np.array([0, 1, 1, 1, 1], bool), 3).tolist() == [1, 4, 2]
    assert filtered_best(vectors, query, np.array([0, 0, 0, 1, 0], bool), 3).tolist() == [3]
    assert filtered_best(vectors, query, np.zeros(5, bool), 3).tolist() == []


def test_recall_of_what_was_found():
    assert recall_of(np.array([3, 1, -1, -1]), np.array([1, 2, 3, 4])) == 0.5
    assert recall_of(np.array([-1]), np.array([], np.int64)) == 1.0


def test_spans_of_selectivity():
    assert [bucket_of(one) for one in (0, 0.0002, 0.0005, 0.001, 0.02, 0.05, 0.5, 1.0)] == [0, 0, 1, 2, 3, 4, 5, 5]
    assert bucket_name(0) == "below 0.03 %" and bucket_name(5) == "20 to 100 %"

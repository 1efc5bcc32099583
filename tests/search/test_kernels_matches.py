"""The one-call scan of matches against the steps it stands for."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from isometry.errors import ShapeError
from isometry.search.indexes import AdaptiveIndex, FlatIndex
from isometry.search.kernels.graph import probe
from isometry.search.kernels.matches import mask_rows
from isometry.search.kernels.weigh import met_near


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.floats(0, 1))
def test_places_of_a_mask(seed, n, share):
    mask = np.random.default_rng(seed).random(n) < share**3
    rows = mask_rows(mask, int(mask.sum()))
    np.testing.assert_array_equal(rows, np.flatnonzero(mask))
    assert rows.dtype == np.int64
    for most in (0, 1, len(rows) // 2):
        np.testing.assert_array_equal(mask_rows(mask, most), np.flatnonzero(mask)[: most + 1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 70), st.booleans())
def test_one_call_gives_the_same_rows_and_bits(seed, k, dimension, tied):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((700, dimension)).astype(np.float32)
    if tied:
        vectors = vectors[random.integers(5, size=700)]  # many equal scores
    query = random.standard_normal(dimension).astype(np.float32)
    chosen = np.sort(random.choice(700, 600, replace=False))
    mask = np.isin(np.arange(700), chosen)
    scores, rows, again = FlatIndex().build(vectors).best_of(query, k, chosen)
    expected_scores, expected = FlatIndex(first_stage="float32").build(vectors).search(query[None], k, mask)
    np.testing.assert_array_equal(rows, expected[0])
    assert scores.tobytes() == expected_scores[0].tobytes() and k <= again <= 600


def test_fewer_rows_than_asked_for_are_padded():
    vectors = np.eye(4, dtype=np.float32)
    scores, rows, again = FlatIndex().build(vectors).best_of(vectors[2], 5, np.array([1, 2]))
    assert rows.tolist() == [2, 1, -1, -1, -1] and scores[:2].tolist() == [1, 0] and np.isneginf(scores[2:]).all()
    assert again == 2


def test_a_selective_filter_weighs_nothing_else():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((3000, 24)).astype(np.float32)
    index, mask = AdaptiveIndex(links=6).build(vectors), np.arange(3000) % 60 == 0
    scores, rows, plan = index.search_with_plan(vectors[:1], 5, mask)
    assert plan["stage"] == "exact scan of matches" and plan["guaranteed"] and plan["matches"] == 50
    assert [one["strategy"] for one in plan["choices"]] == ["exact scan of matches", "any other, at least"]
    assert plan["choices"][0]["estimated_ms"] < plan["choices"][1]["estimated_ms"]
    expected_scores, expected = FlatIndex().build(vectors).search(vectors[:1], 5, mask)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    several = FlatIndex().build([vectors[:1000], vectors[1000:]])
    assert not several.one_call(50) and index.exact.one_call(50)
    with pytest.raises(ValueError):
        several.best_of(vectors[0], 5, np.arange(3))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("matches", [1, 9, 40, 900])
def test_a_filter_at_once_is_brute_force_over_any_parts(parts, matches):
    random = np.random.default_rng(matches)
    vectors = random.standard_normal((3000, 24)).astype(np.float32)
    index = AdaptiveIndex(links=0, cells=60).build(np.array_split(vectors, parts))
    mask = np.isin(np.arange(3000), random.choice(3000, matches, replace=False))
    memo = {}
    for _ in range(2):
        scores, rows, plan = index.search_with_plan(vectors[7:8], 7, mask, memo=memo)
        expected_scores, expected = FlatIndex(first_stage="float32").build(vectors).search(vectors[7:8], 7, mask)
        np.testing.assert_array_equal(rows, expected)
        assert scores.tobytes() == expected_scores.tobytes() and plan["matches"] == matches and plan["guaranteed"]
    broken = vectors[7:8].copy()
    broken[0, 3] = np.nan
    with pytest.raises(ShapeError, match="NaN"):
        index.search_with_plan(broken, 7, mask)


def test_cells_are_gone_through_from_the_nearest():
    order, starts = np.arange(12, dtype=np.int32), np.array([0, 3, 6, 9, 12])
    near, mask = np.array([0.1, 0.9, 0.5, 0.7], np.float32), np.arange(12) % 2 == 0  # 0 2 | 4 | 6 8 | 10
    given, nearest, entries = (near, order, starts), np.zeros(2, np.int32), np.zeros(3, np.int32)
    assert met_near(*given, mask, 1, nearest, entries) == (1, 3, 1, 1) and entries[0] == 4
    assert nearest.tolist() == [1, 3]  # though one cell held enough
    assert met_near(*given, mask, 3, nearest, entries) == (3, 9, 4, 3) and entries.tolist() == [4, 10, 6]
    assert met_near(*given, mask, 99, nearest, entries) == (4, 12, 6, 3)
    assert met_near(*given, np.zeros(12, bool), 1, nearest, entries) == (4, 12, 0, 0)
    assert met_near(*given, np.zeros(1, bool), 0, nearest, entries) == (0, 0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 90))
def test_probing_scores_the_matches_of_the_cells_and_no_others(seed, matches):
    random = np.random.default_rng(seed)
    codes, query = random.integers(-127, 128, (90, 5), np.int8), random.standard_normal(5).astype(np.float32)
    order, starts = random.permutation(90).astype(np.int32), np.array([0, 20, 20, 61, 90])
    mask = np.isin(np.arange(90), random.choice(90, matches, replace=False))
    rows, scores = np.empty(6, np.int64), np.empty(6, np.float32)
    scored = probe(order, starts, np.array([2, 0]), codes, np.ones(90, np.float32), query, mask, True, rows, scores)
    inside = np.flatnonzero(mask & np.isin(np.arange(90), order[:61]))
    assert scored == len(inside)
    best = inside[np.argsort(-(codes[inside] @ query))[:6]]
    assert set(rows[rows >= 0]) == set(best)

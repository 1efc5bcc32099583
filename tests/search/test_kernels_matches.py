"""The one-call scan of matches against the steps it stands for."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from isometry.search.indexes import AdaptiveIndex, FlatIndex
from isometry.search.kernels.matches import mask_rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.floats(0, 1))
def test_places_of_a_mask(seed, n, share):
    mask = np.random.default_rng(seed).random(n) < share**3
    rows = mask_rows(mask, int(mask.sum()))
    np.testing.assert_array_equal(rows, np.flatnonzero(mask))
    assert rows.dtype == np.int64


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

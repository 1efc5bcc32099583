"""MaxSim by hand, ball carving, and candidates by fixed dimensional encodings against exact search."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from isometry.compression import FixedDimensionalEncoding
from isometry.errors import InputError, ShapeError
from isometry.search.indexes import MultiVectorIndex
from isometry.search.kernels.maxsim import carve, max_similarity, screened_similarity


def sets(n, low, high, d=16, seed=0):
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((50, d))
    counts = rng.integers(low, high, n)
    mix = topics[rng.integers(50, size=counts.sum())] + 0.3 * rng.standard_normal((counts.sum(), d))
    mix /= np.linalg.norm(mix, axis=1, keepdims=True)
    return mix.astype(np.float32), np.concatenate([[0], np.cumsum(counts)])


def test_scores_by_definition():
    values, offsets = sets(900, 0, 25)
    query = sets(1, 7, 8, seed=1)[0]
    expected = [(query @ values[a:b].T).max(axis=1).sum() if b > a else -np.inf for a, b in pairwise(offsets)]
    np.testing.assert_allclose(max_similarity(query, values, offsets), expected, rtol=1e-5)
    rough = screened_similarity(query, values, offsets)
    full = np.isfinite(expected)
    np.testing.assert_allclose(rough[full], np.array(expected)[full], atol=0.15)


def test_carving_sums_groups():
    query = np.float32([[1, 0], [0, 1], [0.8, 0.6]])
    np.testing.assert_allclose(carve(query, 0.7), [[1.8, 0.6], [0, 1]], atol=1e-6)
    np.testing.assert_array_equal(carve(query, 1.1), query)


def test_exact_search_filters_and_candidates():
    values, offsets = sets(1500, 3, 20)
    asked, at = sets(30, 5, 9, seed=1)
    exact = MultiVectorIndex().build(values, offsets)
    true_scores, true_rows = exact.search(asked, at, 10)
    scores = np.stack([max_similarity(asked[a:b], values, offsets) for a, b in pairwise(at)])
    np.testing.assert_array_equal(true_rows, np.argsort(-scores, axis=1, kind="stable")[:, :10])
    quick = MultiVectorIndex(FixedDimensionalEncoding(4, 8, 20).fit(values), shortlist=300).build(values, offsets)
    found_scores, found = quick.search(asked, at, 10)
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, true_rows, strict=True)]) / 10
    assert shared > 0.9 and quick.last_plan == {"stage": "encodings", "candidates": 30 * 300}
    assert (found_scores <= true_scores + 1e-5).all()
    allowed = np.arange(1500) % 3 == 0
    for index in (exact, quick):
        assert allowed[index.search(asked, at, 10, allowed)[1]].all()
    few = np.arange(1500) < 4
    scores, rows = quick.search(asked, at, 10, few)
    assert (rows[:, 4:] == -1).all() and np.isneginf(scores[:, 4:]).all() and (np.sort(rows[:, :4]) == range(4)).all()


def test_bad_input():
    values, offsets = sets(10, 1, 3)
    index = MultiVectorIndex().build(values, offsets)
    with pytest.raises(InputError, match="k is 0"):
        index.search(values, offsets, 0)
    with pytest.raises(ShapeError, match="offsets"):
        index.search(values, offsets[:-1], 1)
    with pytest.raises(InputError, match="shortlist"):
        MultiVectorIndex(shortlist=0)

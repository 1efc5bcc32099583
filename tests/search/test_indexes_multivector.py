"""MaxSim by hand, ball carving, and candidates by fixed dimensional encodings against exact search."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from isometry.compression import FixedDimensionalEncoding, ProductQuantizer, ScalarQuantizer, SignBinarizer
from isometry.errors import InputError, ShapeError
from isometry.search.indexes import EncodingScan, MultiVectorIndex
from isometry.search.kernels.maxsim import carve, max_similarity, screened_similarity
from isometry.search.kernels.sets import exact_maxsim, turned


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


def test_vectors_of_one_dimension():
    draw = np.random.default_rng(1)
    values, query = draw.standard_normal((4000, 1)).astype(np.float32), draw.standard_normal((9, 1)).astype(np.float32)
    offsets = np.arange(0, 4001, 2)
    expected = np.maximum(query * values[::2, 0], query * values[1::2, 0]).sum(axis=0)
    scores, _ = MultiVectorIndex().build(values, offsets).search(query, np.array([0, 9]), 3)
    np.testing.assert_allclose(scores[0], np.sort(expected)[::-1][:3], rtol=1e-5)


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
    assert shared > 0.9 and quick.last_plan["candidates"] == 30 * 300 and quick.last_plan["stage"] == "encodings"
    score_of = [dict(zip(a.tolist(), b.tolist(), strict=True)) for a, b in zip(true_rows, true_scores, strict=True)]
    for rows, found_row, known in zip(found, found_scores, score_of, strict=True):
        assert all(known.get(row, score) == score for row, score in zip(rows.tolist(), found_row.tolist(), strict=True))
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


@pytest.mark.parametrize("first", ["int8", "float32"])
def test_every_first_stage_gives_the_same_bits(first):
    """Scores and rows do not depend on the first stage, on the selection or on what is asked beside."""
    values, offsets = sets(700, 1, 30, d=24)
    asked, at = sets(12, 1, 40, d=24, seed=3)
    index = MultiVectorIndex(first_stage=first).build(values, offsets)
    scores, rows = index.search(asked, at, 9)
    assert index.last_plan["scored"] < 12 * 700
    exact = np.empty(700, np.float32)
    for i, (start, stop) in enumerate(pairwise(at)):
        query = asked[start:stop]
        exact_maxsim(values, offsets, turned(query), len(query), exact)
        np.testing.assert_array_equal(rows[i], np.lexsort((np.arange(700), -exact))[:9])
        np.testing.assert_array_equal(scores[i], exact[rows[i]])
        np.testing.assert_allclose(exact, max_similarity(query, values, offsets), atol=2e-5)
        allowed = np.random.default_rng(i).random(700) < 0.5
        some_scores, some = index.search(query, np.array([0, len(query)]), 9, allowed)
        want = np.flatnonzero(allowed)[np.lexsort((np.flatnonzero(allowed), -exact[allowed]))[:9]]
        np.testing.assert_array_equal(some[0], want)
        np.testing.assert_array_equal(some_scores[0], exact[want])


def test_scores_of_one_dimension_by_hand():
    values, offsets = np.float32([[1], [-2], [3]]), np.array([0, 1, 1, 3])
    out = np.empty(3, np.float32)
    exact_maxsim(values, offsets, turned(np.float32([[2], [-1]])), 2, out)
    np.testing.assert_array_equal(out, np.float32([1, -np.inf, 8]))


CODES = [None, SignBinarizer(rotate=False), ProductQuantizer(12), ProductQuantizer(24, bits=4), ScalarQuantizer()]


@pytest.mark.parametrize("code", CODES, ids=lambda code: type(code).__name__)
def test_scans_of_codes_follow_the_products(code):
    """The best of a scan are those of the decoded codes, in parts as in one piece, with a filter as without."""
    rng = np.random.default_rng(0)
    vectors, query = rng.standard_normal((900, 96)).astype(np.float32), rng.standard_normal((2, 96)).astype(np.float32)
    fitted = code.fit(vectors) if code is not None else None
    whole = EncodingScan(fitted).build(vectors)
    parts = EncodingScan(fitted)
    parts.restore([parts.coded(vectors[:300]), parts.coded(vectors[300:])], 96)
    assert whole.bytes_in_memory == parts.bytes_in_memory >= 900 * 12
    encoding = FixedDimensionalEncoding(2, 3, 8).fit(vectors)
    served = MultiVectorIndex(encoding, candidates=whole)
    tables = encoding.shared_bytes + (0 if fitted is None else fitted.shared_bytes)
    assert served.bytes_in_memory == whole.bytes_in_memory + tables > whole.bytes_in_memory
    allowed, few = rng.random(900) < 0.5, np.arange(900) % 100 == 7
    for mask in (None, allowed, few):
        scores, rows = whole.search(query, 30, mask)
        np.testing.assert_array_equal(parts.search(query, 30, mask)[1], rows)
        held = np.arange(900) if mask is None else np.flatnonzero(mask)
        truth = query @ vectors.T
        for i in range(2):
            found = rows[i][rows[i] >= 0]
            assert len(found) == min(30, len(held)) and np.isin(found, held).all()
            best = held[np.argsort(-truth[i, held])[:30]]
            assert len(np.intersect1d(found, best)) >= 0.4 * len(best)
            assert (np.diff(scores[i][: len(found)]) <= 0).all()

"""FlatIndex against plain brute force: same rows, same score bits, whatever stage runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, ShapeError
from isometry.search.indexes import FlatIndex
from isometry.search.kernels import int8
from isometry.search.kernels.exact import exact_scorer, exact_scores_numpy
from isometry.types import Index


def brute_force(vectors, queries, k, allowed=None):
    """The definition, written out: every allowed row scored by the numpy routine, sorted by (-score, row)."""
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    best = np.full((len(queries), k), -np.inf, np.float32)
    where = np.full((len(queries), k), -1, np.int64)
    for i, query in enumerate(queries):
        scores = np.empty(len(rows), np.float32)
        exact_scores_numpy(vectors, rows, query, scores)
        order = sorted(range(len(rows)), key=lambda j: (-scores[j], rows[j]))[:k]
        best[i, : len(order)], where[i, : len(order)] = scores[order], rows[order]
    return best, where


def clustered(rng, n, d, spread=0.05):
    """Unit vectors in tight clusters with exact duplicates: near ties everywhere."""
    centres = rng.standard_normal((max(1, n // 40), d))
    vectors = centres[rng.integers(len(centres), size=n)] + spread * rng.standard_normal((n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[n // 2 : n // 2 + n // 10] = vectors[: n // 10]
    return vectors.astype(np.float32)


@pytest.mark.parametrize("first_stage", ["int8", "float32"])
@pytest.mark.parametrize("queries", [1, 3, 11])
@pytest.mark.parametrize("share", [None, 0.9, 0.3, 0.001])
def test_equals_brute_force_on_near_ties(first_stage, queries, share):
    rng = np.random.default_rng(7)
    vectors = clustered(rng, 9000, 37)
    asked = np.concatenate(
        [vectors[: queries - queries // 2], rng.standard_normal((queries // 2, 37), dtype=np.float32)]
    )
    allowed = None if share is None else rng.random(9000) < share
    index = FlatIndex(first_stage=first_stage, threads=2).build([vectors[:5000], vectors[5000:5000], vectors[5000:]])
    scores, rows = index.search(asked, 10, allowed)
    expected_scores, expected_rows = brute_force(vectors, asked, 10, allowed)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 1500), d=st.integers(1, 40), q=st.integers(1, 11), k=st.integers(1, 30), seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6]), share=st.sampled_from([None, 0.0, 0.5, 1.0]),
    stage=st.sampled_from(["int8", "float32"]),
)  # fmt: skip
def test_any_shape_and_scale(n, d, q, k, seed, scale, share, stage):
    rng = np.random.default_rng(seed)
    vectors = (rng.integers(-3, 4, (n, d)) * scale).astype(np.float32)
    queries = rng.integers(-3, 4, (q, d)).astype(np.float32)
    allowed = None if share is None else rng.random(n) < share
    scores, rows = FlatIndex(first_stage=stage).build(vectors).search(queries, k, allowed)
    expected_scores, expected_rows = brute_force(vectors, queries, k, allowed)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("d", [1, 7, 384, 4096])
def test_queries_in_whole_numbers_are_as_near_as_they_say(d):
    rng = np.random.default_rng(d)
    codes = np.concatenate([rng.integers(-127, 128, (40, d)), np.full((2, d), 127)]).astype(np.int8)
    for query in (
        rng.standard_normal(d).astype(np.float32),
        np.full(d, -3.5, np.float32),
        np.eye(d, dtype=np.float32)[0],
    ):
        whole, out = np.empty(d, np.int16), np.empty(42, np.float32)
        scale, error = int8.whole_query(query, whole)
        assert np.linalg.norm(query.astype(float) - float(scale) * whole) <= error
        int8.approximate_whole(codes, whole, scale, 0, 42, out)
        np.testing.assert_allclose(out, float(scale) * (codes.astype(np.int64) @ whole.astype(np.int64)), rtol=1e-6)
    assert int8.whole_query(np.full(d, 1e-38, np.float32), whole) == (0, 0)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_batches_of_short_vectors(d):
    rng = np.random.default_rng(0)
    vectors, queries = rng.integers(-3, 4, (2000, d)).astype(np.float32), rng.integers(-3, 4, (9, d)).astype(np.float32)
    _, rows = FlatIndex(first_stage="int8").build(vectors).search(queries, 3)
    np.testing.assert_array_equal(rows, brute_force(vectors, queries, 3)[1])


def test_compiled_and_numpy_scores_have_the_same_bits():
    rng = np.random.default_rng(1)
    for d in (1, 15, 16, 17, 100, 384):
        vectors, query = rng.standard_normal((300, d), dtype=np.float32), rng.standard_normal(d, dtype=np.float32)
        rows = rng.permutation(300)[:200]
        plain, fast = np.empty(200, np.float32), np.empty(200, np.float32)
        exact_scores_numpy(vectors, rows, query, plain)
        exact_scorer()(vectors, rows, query, fast)
        np.testing.assert_array_equal(plain, fast)
        np.testing.assert_allclose(plain, vectors[rows] @ query, rtol=1e-4, atol=1e-5)


def test_scores_do_not_depend_on_batch_threads_or_first_stage():
    rng = np.random.default_rng(2)
    vectors = clustered(rng, 120_000, 24)
    queries = clustered(rng, 12, 24)
    reference = FlatIndex(first_stage="float32").build(vectors).search(queries, 20)
    for threads in (1, 2):
        index = FlatIndex(first_stage="int8", threads=threads).build(vectors)
        together = index.search(queries, 20)
        assert index.last_plan["stage"] == "int8 product"
        alone = [index.search(query[None], 20) for query in queries]
        assert index.last_plan["stage"] == "int8 scan" and index.last_plan["threads"] == threads
        for i in range(2):
            np.testing.assert_array_equal(together[i], reference[i])
            np.testing.assert_array_equal(np.concatenate([one[i] for one in alone]), reference[i])


def test_increasing_scores_outgrow_the_candidate_room_without_loss():
    vectors = np.zeros((20_000, 4), np.float32)
    vectors[:, 0] = np.linspace(0, 1, 20_000, dtype=np.float32)
    queries = np.repeat(np.float32([[1, 0, 0, 0]]), 5, axis=0)
    _, rows = FlatIndex(first_stage="int8").build(vectors).search(queries, 7)
    assert (rows == np.arange(19_999, 19_992, -1)).all()
    flat = np.ones((20_000, 4), np.float32)
    _, rows = FlatIndex(first_stage="int8").build(flat).search(queries, 7)
    assert (rows == np.arange(7)).all()


def test_memory_mapped_segments_and_extension(tmp_path):
    rng = np.random.default_rng(3)
    vectors = clustered(rng, 5000, 32)
    np.save(tmp_path / "a.npy", vectors[:3000])
    np.save(tmp_path / "b.npy", vectors[3000:])
    first = FlatIndex().build(np.load(tmp_path / "a.npy", mmap_mode="r"))
    both = first.extended(np.load(tmp_path / "b.npy", mmap_mode="r"))
    assert (len(first), len(both)) == (3000, 5000)
    assert both.bytes_in_memory == 5000 * (32 + 12)
    for index, held in ((first, vectors[:3000]), (both, vectors)):
        scores, rows = index.search(vectors[:6], 10)
        expected = brute_force(held, vectors[:6], 10)
        np.testing.assert_array_equal(scores, expected[0])
        np.testing.assert_array_equal(rows, expected[1])


def test_plan_counts_what_was_read():
    vectors = clustered(np.random.default_rng(4), 10_000, 16)
    index = FlatIndex(first_stage="int8", threads=1).build(vectors)
    index.search(vectors[:1], 5)
    plan = index.last_plan
    assert plan["stage"] == "int8 scan" and plan["matches"] == plan["scanned"] == 10_000
    assert plan["bytes"] == 10_000 * (16 + 8) + plan["candidates"] * 16 * 4
    index.search(vectors[:1], 5, np.arange(10_000) < 100)
    assert index.last_plan["stage"] == "int8 scan" and index.last_plan["scanned"] == 100
    index.search(vectors[:2], 5, np.arange(10_000) < 100)
    assert index.last_plan["stage"] == "float32 rows" and index.last_plan["candidates"] == 200


def test_numpy_only_when_numba_is_missing(monkeypatch):
    monkeypatch.setattr("isometry.search.indexes.flat.find_spec", lambda name: None)
    vectors = clustered(np.random.default_rng(5), 3000, 20)
    index = FlatIndex().build(vectors)
    _, rows = index.search(vectors[:5], 5)
    assert index.last_plan["stage"] == "float32 blocks"
    np.testing.assert_array_equal(rows, brute_force(vectors, vectors[:5], 5)[1])


def test_empty_index_and_no_matches():
    scores, rows = FlatIndex().build([]).search(np.zeros((2, 3), np.float32), 4)
    assert (rows == -1).all() and np.isneginf(scores).all() and rows.shape == (2, 4)
    index = FlatIndex().build(np.eye(3, dtype=np.float32))
    _, rows = index.search(np.eye(3, dtype=np.float32), 2, np.zeros(3, bool))
    assert (rows == -1).all()
    assert index.search(np.zeros((0, 3), np.float32), 2)[1].shape == (0, 2)


def test_bad_input_is_named():
    vectors = np.ones((10, 3), np.float32)
    index = FlatIndex().build(vectors)
    with pytest.raises(InputError, match="k is 0"):
        index.search(vectors, 0)
    with pytest.raises(ShapeError, match="dimension 3"):
        index.search(np.ones((1, 4), np.float32), 1)
    with pytest.raises(ShapeError, match="query 1 holds NaN"):
        index.search(np.float32([[1, 1, 1], [1, np.nan, 1]]), 1)
    with pytest.raises(ShapeError, match="boolean mask"):
        index.search(vectors, 1, np.ones(9, bool))
    vectors = vectors.copy()
    vectors[4, 2] = np.inf
    for stage in ("int8", "float32"):
        with pytest.raises(ShapeError, match="vector 14 holds NaN"):
            FlatIndex(first_stage=stage).build(np.ones((10, 3), np.float32)).extended(vectors)
    with pytest.raises(ShapeError, match="float32"):
        FlatIndex().build(np.ones((10, 3)))
    with pytest.raises(InputError, match="first_stage"):
        FlatIndex(first_stage="int4")


def test_is_an_index():
    assert isinstance(FlatIndex(), Index)

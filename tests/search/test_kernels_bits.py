"""Bit-counting scans against plain numpy: same rows, same order, any width, filter and number of queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.search.kernels.bits import block_layout, hamming_top, plane_top, query_planes, query_words


def run_hamming(codes, queries, k, allowed=None):
    bits = codes.shape[1] * 8
    rows, distances = (np.empty((len(queries), 2 * k), np.int64) for _ in range(2))
    counts = np.zeros((len(queries), bits + 2), np.int64)
    mask = np.ones(1, bool) if allowed is None else allowed
    arguments = (block_layout(codes), len(codes), query_words(queries), mask, allowed is not None)
    hamming_top(*arguments, rows, distances, counts)
    return distances[:, :k], rows[:, :k]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 700), width=st.integers(1, 20), q=st.integers(1, 5), k=st.integers(1, 20),
    seed=st.integers(0, 10**6), share=st.sampled_from([None, 0.0, 0.1, 0.9]), coarse=st.booleans(),
)  # fmt: skip
def test_hamming_top_equals_sorting_everything(n, width, q, k, seed, share, coarse):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2 if coarse else 256, (n, width), dtype=np.uint8)
    queries = rng.integers(0, 256, (q, width), dtype=np.uint8)
    allowed = None if share is None else rng.random(n) < share
    distances, rows = run_hamming(codes, queries, k, allowed)
    matching = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    for i in range(q):
        expected = np.bitwise_count(codes[matching] ^ queries[i]).sum(axis=1).astype(np.int64)
        order = np.lexsort((matching, expected))[:k]
        found = len(order)
        np.testing.assert_array_equal(rows[i, :found], matching[order])
        np.testing.assert_array_equal(distances[i, :found], expected[order])
        assert (rows[i, found:] == -1).all()


def test_falling_distances_and_heavy_ties():
    codes = np.packbits(np.tril(np.ones((64, 64), bool))[::-1], axis=1).repeat(50, axis=0)
    distances, rows = run_hamming(codes, np.zeros((1, 8), np.uint8), 70)
    assert distances[0].tolist() == [1] * 50 + [2] * 20
    assert rows[0].tolist() == list(range(3150, 3200)) + list(range(3100, 3120))


@pytest.mark.parametrize("planes", [1, 2, 3])
@pytest.mark.parametrize("own", [1, 2, 4])
@pytest.mark.parametrize("bits", [5, 64, 130])
def test_plane_top_equals_float_products(planes, own, bits):
    rng = np.random.default_rng(bits)
    n, k = 333, 12
    signs = rng.integers(0, 2, (n, planes, bits), dtype=np.uint8)
    values = ((signs * 2.0 - 1) * 2.0 ** -np.arange(planes)[:, None]).sum(axis=1)
    inverse = rng.uniform(0.5, 2, n).astype(np.float32)
    words = query_words(np.packbits(signs, axis=2).reshape(n * planes, -1)).reshape(n, -1)
    packed, scale = query_planes(rng.standard_normal((3, bits)).astype(np.float32), own)
    restored = ((np.unpackbits(packed, axis=2)[:, :, :bits] * 2.0 - 1) * 2.0 ** -np.arange(own)[:, None]).sum(axis=1)
    queries = query_words(packed.reshape(3 * own, -1)).reshape(3, own, -1)
    allowed = rng.random(n) < 0.7
    rows, scores = np.empty((3, k), np.int64), np.empty((3, k), np.float32)
    plane_top(block_layout(words.view(np.uint8)), n, planes, queries, bits, inverse, allowed, True, rows, scores)
    for i in range(3):
        expected = ((restored[i] @ values.T).astype(np.float32) * inverse).astype(np.float32)
        expected[~allowed] = -np.inf
        best = np.lexsort((np.arange(n), -expected))[:k]
        assert set(rows[i]) == set(best)
        np.testing.assert_allclose(np.sort(scores[i]), np.sort(expected[best]), rtol=1e-6)
    assert (scale > 0).all()


def test_query_planes_round_to_the_nearest_odd_level():
    values = np.float32([[3, -1, 0.9, 2.1]])
    packed, scale = query_planes(values, 2)
    signs = np.unpackbits(packed, axis=2)[0, :, :4] * 2.0 - 1
    assert scale[0] == 2
    np.testing.assert_allclose((signs[0] + signs[1] / 2) * scale[0], [3, -1, 1, 3])

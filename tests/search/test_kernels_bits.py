"""Bit-counting scans against plain numpy: same rows, same order, any width, filter and number of queries."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.search.kernels.bits import block_layout, hamming_top, query_words


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

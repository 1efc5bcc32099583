"""Register look-ups against plain numpy: same sums, same rows, any width, filter and number of queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.search.kernels import nibbles
from isometry.search.kernels.nibbles import (
    nibble_layout,
    nibble_rows,
    nibble_tables,
    nibble_top,
    row_factors,
    sign_entries,
)


def digits_of(codes):
    return np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)


def scan(codes, entries, k, factor=None, allowed=None):
    rows, scores = np.empty((len(entries), k), np.int64), np.empty((len(entries), k), np.float32)
    mask = np.ones(1, bool) if allowed is None else allowed
    tables = nibble_tables(entries)
    nibble_top(nibble_layout(codes), len(codes), *tables, row_factors(factor), mask, allowed is not None, rows, scores)
    return rows, scores, tables


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 700), width=st.integers(1, 20), q=st.integers(1, 5), k=st.integers(1, 20),
    seed=st.integers(0, 10**6), share=st.sampled_from([None, 0.0, 0.1, 0.9]), scaled=st.booleans(), coarse=st.booleans(),
)  # fmt: skip
def test_the_k_largest_sums_with_ties_by_row(n, width, q, k, seed, share, scaled, coarse):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2 if coarse else 256, (n, width), dtype=np.uint8)
    entries = rng.standard_normal((q, 2 * width, 16)).astype(np.float32)
    factor = rng.uniform(0.5, 2, n).astype(np.float16) if scaled else None
    allowed = None if share is None else rng.random(n) < share
    rows, scores, (tables, step, base) = scan(codes, entries, k, factor, allowed)
    digits = digits_of(codes)
    for i in range(q):
        sums = tables[i][np.arange(2 * width), digits].astype(np.int64).sum(axis=1)
        expected = (sums.astype(np.float32) * step[i] + base[i]) * (1 if factor is None else factor.astype(np.float32))
        if allowed is not None:
            expected = np.where(allowed, expected, -np.inf)
        best = np.lexsort((np.arange(n), -expected))[:k]
        best = best[np.isfinite(expected[best])]
        kept = rows[i] >= 0
        assert kept.sum() == len(best)
        np.testing.assert_allclose(np.sort(scores[i][kept]), np.sort(expected[best]), rtol=1e-5, atol=1e-5)
        if not scaled:
            assert set(rows[i][kept]) == set(best)
        np.testing.assert_allclose(scores[i][kept], expected[rows[i][kept]], rtol=1e-5, atol=1e-5)
        floats = entries[i][np.arange(2 * width), digits].sum(axis=1)
        assert np.abs(sums * step[i] + base[i] - floats).max() <= 2 * width * step[i] / 2 + 1e-4


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 400), width=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_layout_gives_the_rows_back(n, width, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (n, width), dtype=np.uint8)
    rows = rng.integers(n, size=50)
    np.testing.assert_array_equal(nibble_rows(nibble_layout(codes), rows), codes[rows])


def test_layout_is_that_of_the_docstring():
    codes = np.arange(128, dtype=np.uint8)[:, None]
    blocks = nibble_layout(codes)
    assert blocks.shape == (1, 2, 64)
    for i in (0, 5, 31):
        assert blocks[0, 0, 2 * i] == (i & 15) | (64 + i & 15) << 4
        assert blocks[0, 1, 2 * i + 1] == (32 + i >> 4) | (96 + i >> 4) << 4


def test_entries_of_signs_are_weighted_sums():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 24)).astype(np.float32)
    codes = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    signs = np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
    entries = sign_entries(weights)
    digits = digits_of(codes)
    got = np.stack([entries[i][np.arange(6), digits].sum(axis=1) for i in range(3)])
    np.testing.assert_allclose(got, weights @ signs.T, atol=1e-5)


def test_symmetric_distance_of_two_bit_codes_is_exact_in_integers():
    # Paper 18: levels -1.5 .. 1.5, two coordinates to a digit; T = 2 <v(i), v(j)> + 9 is 0 .. 18 and sums exactly.
    rng = np.random.default_rng(1)
    levels = np.array([-1.5, -0.5, 0.5, 1.5])
    grid = np.array([(a, b) for b in levels for a in levels])
    documents, query = rng.integers(0, 16, (300, 40)), rng.integers(0, 16, 40)
    codes = (documents[:, ::2] | documents[:, 1::2] << 4).astype(np.uint8)
    entries = (2 * grid[query] @ grid.T + 9)[None].astype(np.float32)
    rows, scores, _ = scan(codes, entries * 7, 300)
    inner = (grid[documents] * grid[query]).sum(axis=(1, 2))
    assert len(set(rows[0])) == 300
    np.testing.assert_allclose(scores[0] / 7, 2 * inner[rows[0]] + 9 * 40, atol=40 * 18 / 254)


@pytest.mark.skipif(not nibbles.SHUFFLE_WIDTH, reason="no shuffle instruction known for this processor")
def test_the_plain_sums_equal_the_shuffled_ones():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, 3 * 14 * 64, dtype=np.uint8)
    tables = rng.integers(0, 128, 14 * 16, dtype=np.uint8)
    for at in (0, 14 * 64, 28 * 64):
        one, other = np.empty(128, np.uint16), np.empty(128, np.uint16)
        nibbles._block_sums_plain(codes, at, tables, 0, 7, one)
        nibbles._block_sums_shuffled(codes, at, tables, 0, 7, other)
        np.testing.assert_array_equal(one, other)


def test_no_sum_of_a_pair_exceeds_a_byte_and_constant_tables_stay_finite():
    rng = np.random.default_rng(3)
    entries = rng.standard_normal((20, 6, 16)).astype(np.float32) * np.geomspace(1e-6, 1e6, 20)[:, None, None]
    tables, step, _ = nibble_tables(entries.astype(np.float32))
    most = tables.max(axis=2).astype(int).reshape(20, 3, 2).sum(axis=2)
    assert most.max() <= 255 and most.max(axis=1).min() >= 253
    tables, step, base = nibble_tables(np.full((1, 4, 16), 3, np.float32))
    assert tables.max() == 0 and np.isfinite(step).all() and base[0] == 12

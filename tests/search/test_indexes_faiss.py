"""HNSW and IVF: recall, filters, exact tails, and files that are checked before they are believed."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.errors import CorruptionError, NotFoundError, ShapeError
from isometry.search.indexes import FlatIndex, HNSWIndex, IVFIndex
from isometry.types import Index

KINDS = [lambda: HNSWIndex(breadth=128), lambda: IVFIndex(cells=30, probes=12)]


def data(n=3000, d=24, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def overlap(a, b):
    return np.mean([len(np.intersect1d(x, y)) for x, y in zip(a, b, strict=True)]) / a.shape[1]


@pytest.mark.parametrize("kind", KINDS, ids=["hnsw", "ivf"])
def test_recall_filters_and_exact_tail(kind):
    x, queries = data(), data(40, seed=1)
    exact = FlatIndex().build(x)
    allowed = np.random.default_rng(2).random(3000) < 0.5
    for built in (3000, 1000, 0):
        index = kind().build_prefix(x, built)
        assert isinstance(index, Index) and len(index) == 3000
        for mask in (None, allowed):
            scores, rows = index.search(queries, 10, mask)
            true_scores, true_rows = exact.search(queries, 10, mask)
            assert overlap(rows, true_rows) > (0.999 if built == 0 else 0.8)
            assert (scores <= true_scores).all() and (mask is None or mask[rows].all())
    scores, rows = kind().build(x).search(queries, 5, np.zeros(3000, bool))
    assert (rows == -1).all() and np.isneginf(scores).all()


@pytest.mark.parametrize("kind", KINDS, ids=["hnsw", "ivf"])
def test_saved_files_are_checked(kind, tmp_path):
    x, queries = data(), data(5, seed=1)
    index = kind().build_prefix(x, 2500)
    path = tmp_path / "index"
    index.save(path, source=["a", "b"])
    again = kind().load(path, x, source=["a", "b"])
    np.testing.assert_array_equal(again.search(queries, 7)[1], index.search(queries, 7)[1])
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(CorruptionError, match="other segments"):
        kind().load(path, x, source=["a"])
    with pytest.raises(CorruptionError, match="does not fit"):
        kind().load(path, x[:100], source=["a", "b"])
    good = path.read_bytes()
    for at in (3, 40, 200, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(CorruptionError):
            kind().load(path, x, source=["a", "b"])
    for length in (0, 20, 100, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CorruptionError):
            kind().load(path, x, source=["a", "b"])
    with pytest.raises(NotFoundError):
        kind().load(tmp_path / "none", x, source=[])
    with pytest.raises(ShapeError, match="built is"):
        kind().build_prefix(x, 3001)


@pytest.mark.parametrize("make", [HNSWIndex, IVFIndex])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_named(make, value):
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    vectors[217, 3] = value
    with pytest.raises(ShapeError, match="vector 217 holds NaN or infinity"):
        make().build(vectors)

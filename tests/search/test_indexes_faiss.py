"""HNSW and IVF: recall, filters, exact tails, and files that are checked before they are believed."""

from __future__ import annotations

from threading import Event

import faiss
import numpy as np
import pytest

from isometry.compression import ProductQuantizer, ScalarQuantizer, SignBinarizer
from isometry.errors import CorruptionError, InputError, NotFoundError, ShapeError
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


CODES = [
    (ScalarQuantizer(), 24), (ScalarQuantizer(per_dimension=False), 24), (ScalarQuantizer(bits=4), 12),
    (ProductQuantizer(12), 12), (ProductQuantizer(12, bits=4), 6),
]  # fmt: skip


@pytest.mark.parametrize("kind", [HNSWIndex, IVFIndex])
@pytest.mark.parametrize(("code", "size"), CODES, ids=[" ".join(repr(code).split()) for code, _ in CODES])
def test_codes_take_the_place_of_floats(kind, code, size, tmp_path):
    """What is held shrinks by exactly the floats, scores stay exact, and a file is of one code."""
    x, queries = data(), data(40, seed=1)
    search = {"breadth": 200} if kind is HNSWIndex else {"cells": 30, "probes": 15}
    index, plain = kind(**search, over_fetch=10, code=code).build(x), kind(**search).build(x)
    shared = 4 * 256 * 24 + 200
    assert abs(plain.bytes_in_memory - index.bytes_in_memory - 3000 * (4 * 24 - size)) <= shared
    true_scores, true_rows = FlatIndex().build(x).search(queries, 10)
    scores, rows = index.search(queries, 10)
    assert overlap(rows, true_rows) > 0.7 and (scores <= true_scores).all()
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", x[rows], queries), atol=1e-6)
    index.save(tmp_path / "index", source=["a"])
    again = kind(**search, over_fetch=10, code=code).load(tmp_path / "index", x, source=["a"])
    np.testing.assert_array_equal(again.search(queries, 10)[1], rows)
    with pytest.raises(CorruptionError, match="by another part"):
        kind().load(tmp_path / "index", x, source=["a"])


@pytest.mark.parametrize("kind", KINDS, ids=["hnsw", "ivf"])
def test_searches_go_on_while_the_index_is_built(kind, monkeypatch):
    x, queries = data(), data(40, seed=1)
    index, gate, made = kind().build(x[:1000]), Event(), type(kind())._made
    monkeypatch.setattr(type(index), "_made", lambda self, vectors: (gate.wait(20), made(self, vectors))[1])
    future = index.build_in_background(x)
    exact = FlatIndex().build(x).search(queries, 10)
    assert len(index) == 3000 and not future.done()
    assert overlap(index.search(queries, 10)[1], exact[1]) > 0.8
    assert (index.last_plan["built"], index.last_plan["tail"]) == (1000, 2000)
    other = kind()
    waiting = other.build_in_background(x)
    np.testing.assert_array_equal(other.search(queries, 10)[1], exact[1])
    gate.set()
    assert future.result(60) is index and waiting.result(60) is other
    index.search(queries, 10)
    assert (index.last_plan["built"], index.last_plan["tail"]) == (3000, 0)


def test_a_failed_build_is_told_and_searches_stay_exact():
    x = data(100)
    index = IVFIndex(code=ProductQuantizer(12))
    with pytest.raises(InputError, match="100 vectors are too few"):
        index.build_in_background(x).result(60)
    np.testing.assert_array_equal(index.search(x[:5], 3)[1], FlatIndex().build(x).search(x[:5], 3)[1])
    with pytest.raises(InputError, match="no built part"):
        index.save("nowhere", source=[])


def test_a_loaded_index_is_read_from_the_file(tmp_path):
    """The codes of a loaded index are the bytes of the map, not a copy of them."""
    x = data()
    HNSWIndex().build(x).save(tmp_path / "index", source=[])
    again = HNSWIndex().load(tmp_path / "index", x, source=[])
    mapped = again._state.mapped
    start = mapped.ctypes.data
    held = int(faiss.downcast_index(again._state.index.storage).codes.data())
    assert start < held < start + len(mapped)
    assert again.bytes_in_memory == 0


@pytest.mark.parametrize("code", [SignBinarizer(), ProductQuantizer(12, rotate=True), "int8"])
def test_codes_that_faiss_cannot_hold_are_refused(code):
    with pytest.raises(InputError, match="the code is"):
        HNSWIndex(code=code)

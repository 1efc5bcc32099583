"""CodeIndex: exact scores, filters honoured, recall that grows with the shortlist and ends at the exact result."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.compression import (
    ContrastivePQ,
    ProductQuantizer,
    RaBitQ,
    RecurrentBinary,
    ScalarQuantizer,
    SignBinarizer,
    Truncate,
)
from isometry.errors import InputError, ShapeError
from isometry.search.indexes import CodeIndex, FlatIndex
from isometry.types import Index


def data(n=4000, d=32, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((60, d))
    x = centres[rng.integers(60, size=n)] + 0.6 * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


CODES = [
    SignBinarizer(64),
    RecurrentBinary(32),
    RecurrentBinary(21, loops=2),
    ProductQuantizer(9, bits=4),
    ProductQuantizer(8, bits=6),
    ProductQuantizer(11),
    ContrastivePQ(8, epochs=1, batch_size=1024, rotate=False),
    RaBitQ(2),
    ScalarQuantizer(4),
    Truncate(16),
]


@pytest.mark.parametrize("code", CODES, ids=lambda code: type(code).__name__)
def test_scores_filters_and_recall(code):
    x = data()
    held, queries = x[:3900], x[3900:]
    code = code.fit(held)
    exact = FlatIndex().build(held)
    index = CodeIndex(code, shortlist=80).build([held[:1000], held[1000:]])
    assert isinstance(index, Index) and len(index) == 3900
    per_row = index.bytes_in_memory / 3900
    assert code.bytes_per_vector <= per_row < code.bytes_per_vector + 12
    rng = np.random.default_rng(1)
    for allowed in (None, rng.random(3900) < 0.5, rng.random(3900) < 0.04, rng.random(3900) < 0.01):
        scores, rows = index.search(queries, 10, allowed)
        true_scores, true_rows = exact.search(queries, 10, allowed)
        shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(rows, true_rows, strict=True)]) / 10
        assert shared > 0.9
        assert (np.diff(scores, axis=1) <= 0).all() and (scores <= true_scores).all()
        if allowed is not None:
            assert allowed[rows].all()
    complete = CodeIndex(code, shortlist=3900).build(held).search(queries, 10)
    np.testing.assert_array_equal(complete[1], exact.search(queries, 10)[1])
    np.testing.assert_array_equal(complete[0], exact.search(queries, 10)[0])


def test_one_query_equals_its_row_in_a_batch():
    x = data()
    index = CodeIndex(SignBinarizer(100).fit(x)).build(x)
    together = index.search(x[:9], 5)
    for i in range(9):
        alone = index.search(x[i : i + 1], 5)
        np.testing.assert_array_equal(alone[0][0], together[0][i])
        np.testing.assert_array_equal(alone[1][0], together[1][i])
    assert index.last_plan["stage"] == "digit scan" and index.last_plan["candidates"] == 100
    assert index.last_plan["bytes"] == 4000 * 13 + 100 * 32 * 4


def test_fine_vectors_order_what_codes_find(tmp_path):
    x, y = data(), data(seed=1)
    np.save(tmp_path / "fine.npy", y[:3900])
    mapped = np.load(tmp_path / "fine.npy", mmap_mode="r")
    index = CodeIndex(SignBinarizer(64).fit(x[:3900]), shortlist=50).build(x[:3900], [mapped[:700], mapped[700:]])
    scores, rows = index.search(x[3900:], 10, fine=y[3900:])
    candidates = CodeIndex(index.compressor, shortlist=50).build(x[:3900]).search(x[3900:], 50)[1]
    for i, row in enumerate(candidates):
        row = np.sort(row)
        expected = row[np.argsort(-(mapped[row] @ y[3900 + i]), kind="stable")[:10]]
        np.testing.assert_array_equal(rows[i], expected)
    everything = CodeIndex(index.compressor, shortlist=3900).build(x[:3900], mapped)
    exact = FlatIndex().build(y[:3900]).search(y[3900:], 10)
    np.testing.assert_array_equal(everything.search(x[3900:], 10, fine=y[3900:])[1], exact[1])
    again = CodeIndex(index.compressor, shortlist=50).restore(x[:3900], index.arrays(), mapped)
    np.testing.assert_array_equal(again.search(x[3900:], 10, fine=y[3900:])[0], scores)
    narrow = CodeIndex(index.compressor, shortlist=50).build(x[:3900], np.ascontiguousarray(y[:3900, :7]))
    assert narrow.search(x[3900:], 10, fine=np.ascontiguousarray(y[3900:, :7]))[1].shape == (100, 10)
    for wrong in (lambda: index.search(x, 5), lambda: CodeIndex(index.compressor).build(x).search(x, 5, fine=y)):
        with pytest.raises(InputError, match="go together"):
            wrong()
    with pytest.raises(ShapeError, match="fine vectors for"):
        CodeIndex(index.compressor).build(x, y[:9])
    with pytest.raises(ShapeError, match="one each"):
        index.search(x[:3], 5, fine=y[:2])


def test_bad_input_and_no_matches():
    x = data(300)
    code = SignBinarizer().fit(x)
    with pytest.raises(InputError, match="shortlist"):
        CodeIndex(code, shortlist=0)
    with pytest.raises(ShapeError, match="this code takes"):
        CodeIndex(code).build(x[:, :5].copy())
    index = CodeIndex(code).build(x)
    with pytest.raises(InputError, match="k is 0"):
        index.search(x, 0)
    scores, rows = index.search(x[:2], 3, np.zeros(300, bool))
    assert (rows == -1).all() and np.isneginf(scores).all()

"""What every `Index` must do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isometry.errors import ShapeError
from isometry.types import Index


def check_index(
    make: Callable[[], Index], *, dimension: int = 16, rows: int = 300, exact: bool = True, recall: float = 0.9
) -> None:
    """Shapes, order, masks, padding, ties and refusals; and the true neighbours.

    Args:
        make: gives a fresh index, whose score is the inner product.
        dimension / rows: of the vectors that are tried.
        exact: whether it must find exactly the nearest; else `recall` of the ten nearest on average, and a narrow
            mask may leave it short of rows.
    """
    random = np.random.default_rng(5)
    vectors = random.standard_normal((rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rows // 2] = vectors[3]
    queries = np.concatenate([vectors[:4], random.standard_normal((3, dimension)).astype(np.float32)])
    index = make()
    assert index.build(vectors) is index, "build does not return the index"
    k = min(10, rows)
    scores, found = index.search(queries, k)
    _check_shape(scores, found, len(queries), k)
    truth = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    nearest = np.argsort(-truth, axis=1, kind="stable")[:, :k]
    if exact:
        own = np.take_along_axis(truth, found, 1)
        assert np.allclose(own, np.take_along_axis(truth, nearest, 1), atol=1e-5), "not the nearest rows"
        assert np.allclose(scores, own, atol=1e-4), "scores are not the inner products"
    hits = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), nearest.tolist(), strict=True)])
    assert hits >= (1 - 1e-9 if exact else recall), f"finds {hits:.3f} of the {k} nearest"
    again = index.search(queries, k)
    assert np.array_equal(again[0], scores) and np.array_equal(again[1], found), "a repeated search differs"
    alone = index.search(queries[:1], k)
    assert np.array_equal(alone[1], found[:1]), "one query alone finds other rows than among others"
    if exact:
        assert found[3, :2].tolist() == [3, rows // 2], "equal scores do not come in the order of their rows"
    _check_masks(index, queries, rows, exact, truth)
    _check_refusals(make, index, queries, vectors)


def _check_shape(scores: np.ndarray, found: np.ndarray, queries: int, k: int) -> None:
    assert scores.shape == found.shape == (queries, k), f"shapes {scores.shape} and {found.shape}, not {(queries, k)}"
    assert scores.dtype == np.float32 and found.dtype == np.int64, f"types {scores.dtype} and {found.dtype}"
    assert bool((scores[:, :-1] >= scores[:, 1:]).all()), "scores do not fall from left to right"
    for row in found.tolist():
        real = [number for number in row if number >= 0]
        assert len(set(real)) == len(real), "a row is found twice"
        assert row == real + [-1] * (len(row) - len(real)), "padding stands before found rows"
    assert bool(((found < 0) == np.isneginf(scores)).all()), "padding must be row -1 with score -inf"


def _check_masks(index: Index, queries: np.ndarray, rows: int, exact: bool, truth: np.ndarray) -> None:
    third = np.arange(rows) % 3 == 1
    scores, found = index.search(queries, 5, third)
    _check_shape(scores, found, len(queries), 5)
    assert bool(third[found[found >= 0]].all()), "a row outside the mask is found"
    if exact:
        assert bool((found >= 0).all()), "fewer rows than k are found while the mask allows enough"
        best = np.argsort(-np.where(third, truth, -np.inf), axis=1, kind="stable")[:, :5]
        assert np.array_equal(found, best), "not the nearest rows within the mask"
    few = np.zeros(rows, bool)
    few[[7, 2]] = True
    scores, found = index.search(queries, 5, few)
    _check_shape(scores, found, len(queries), 5)
    assert set(found.ravel().tolist()) <= {-1, 2, 7}, "a row outside a mask of two is found"
    if exact:
        assert bool((np.sort(found, axis=1)[:, 3:] == [2, 7]).all()), "two allowed rows are not both found"
    scores, found = index.search(queries, 5, np.zeros(rows, bool))
    assert bool((found == -1).all()) and bool(np.isneginf(scores).all()), "an empty mask must give padding alone"
    everything = index.search(queries[:2], rows + 7)
    _check_shape(everything[0], everything[1], 2, rows + 7)
    if exact:
        assert bool(((everything[1] >= 0).sum(1) == rows).all()), "k beyond the number of rows must find every row"
    none = index.search(queries[:0], 5)
    assert none[0].shape == none[1].shape == (0, 5), "no queries must give no rows"


def _check_refusals(make: Callable[[], Index], index: Index, queries: np.ndarray, vectors: np.ndarray) -> None:
    bad = queries.copy()
    bad[1, 2] = np.nan
    _refuses(lambda: index.search(bad, 3), "a query with NaN")
    _refuses(lambda: index.search(queries[:, :-1], 3), "queries of another dimension")
    _refuses(lambda: index.search(queries, 3, np.ones(len(vectors) + 1, bool)), "a mask of another length")
    spoilt = vectors.copy()
    spoilt[1, 1] = np.inf
    _refuses(lambda: make().build(spoilt), "vectors with infinity")


def _refuses(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ShapeError as error:
        assert len(str(error).splitlines()) == 1, f"{what}: the message is not one sentence"
        return
    raise AssertionError(f"{what}: not refused with ShapeError")

"""The suites find what is wrong: each spoilt part is caught with its own sentence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from isometry.errors import ShapeError
from isometry.testing import check_compressor, check_encoder, check_index


class Letters:
    """Letter counts, as an encoder."""

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        counts = np.zeros((len(inputs), 64), np.float32)
        for row, text in enumerate(inputs):
            for letter in text:
                counts[row, ord(letter) % 64] += 1
        return counts


class Exact:
    """Inner products by numpy, as an index."""

    def build(self, vectors):
        if not np.isfinite(vectors).all():
            raise ShapeError("vectors hold NaN or infinity")
        self.vectors = vectors
        return self

    def search(self, queries, k, allowed=None):
        if queries.shape[1] != self.vectors.shape[1] or not np.isfinite(queries).all():
            raise ShapeError("queries do not fit the vectors")
        if allowed is not None and len(allowed) != len(self.vectors):
            raise ShapeError("the mask does not fit the vectors")
        scores = (queries.astype(np.float64) @ self.vectors.T.astype(np.float64)).astype(np.float32)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, rows, 1)
        rows = np.where(np.isneginf(best), -1, rows)
        short = ((0, 0), (0, max(0, k - len(self.vectors))))
        return np.pad(best, short, constant_values=-np.inf), np.pad(rows, short, constant_values=-1).astype(np.int64)


class Bytes(BaseEstimator):
    """One byte per coordinate over a fixed range, as a compressor."""

    def __init__(self, most=1.0):
        self.most = most

    def _checked(self, X):
        if not np.isfinite(X).all() or X.shape[1] != getattr(self, "n_features_in_", X.shape[1]):
            raise ShapeError("vectors do not fit")
        return X

    def fit(self, X, y=None):
        self.n_features_in_ = self._checked(X).shape[1]
        return self

    def transform(self, X):
        return np.clip(np.rint((self._checked(X) / self.most + 1) * 127.5), 0, 255).astype(np.uint8)

    def inverse_transform(self, codes):
        return ((codes.astype(np.float32) / 127.5) - 1) * np.float32(self.most)

    @property
    def bytes_per_vector(self):
        return self.n_features_in_

    def scorer(self, queries):
        queries = self._checked(queries)
        return lambda codes: np.einsum("qd,md->qm", queries, self.inverse_transform(codes))


def test_good_parts_pass():
    check_encoder(Letters())
    check_index(Exact)
    check_compressor(Bytes())


def spoilt(part, method, change):
    """A subclass whose method's result is changed."""
    real = getattr(part, method)
    return type(part.__name__, (part,), {method: lambda self, *a, **k: change(real(self, *a, **k))})


@pytest.mark.parametrize(
    "sentence, change",
    [
        ("not float32", lambda v: v.astype(np.float64)),
        ("C-contiguous", np.asfortranarray),
        ("NaN", lambda v: np.where(v == 0, np.float32(np.nan), v)),
        ("texts gave shape", lambda v: v[:-1]),
        ("other vectors", lambda v: v + np.random.default_rng().random(v.shape, np.float32) * 1e-3),
        ("alone and among others", lambda v: v + np.float32(len(v))),
    ],
)
def test_wrong_encoders_are_caught(sentence, change):
    with pytest.raises(AssertionError, match=sentence):
        check_encoder(spoilt(Letters, "encode", change)())


@pytest.mark.parametrize(
    "sentence, change",
    [
        ("types", lambda found: (found[0], found[1].astype(np.int32))),
        ("do not fall", lambda found: (found[0][:, ::-1], found[1][:, ::-1])),
        ("not the inner products", lambda found: (found[0] * 2, found[1])),
        ("not the nearest", lambda found: (found[0], (found[1] + 1) % 300)),
    ],
)
def test_wrong_indexes_are_caught(sentence, change):
    with pytest.raises(AssertionError, match=sentence):
        check_index(spoilt(Exact, "search", change))


def test_an_index_that_ignores_the_mask_is_caught():
    class Deaf(Exact):
        def search(self, queries, k, allowed=None):
            return super().search(queries, k)

    with pytest.raises(AssertionError, match="outside the mask"):
        check_index(Deaf)


@pytest.mark.parametrize(
    "method, sentence, change",
    [
        ("transform", "codes are", lambda codes: codes.astype(np.int16)),
        ("transform", "bytes per vector", lambda codes: codes[:, :-1]),
        ("fit", "does not return", lambda fitted: None),
        ("inverse_transform", "the scorer lies", lambda back: back * 2),
        ("scorer", "finite float32", lambda score: lambda codes: score(codes).astype(np.float64)),
    ],
)
def test_wrong_compressors_are_caught(method, sentence, change):
    part = spoilt(Bytes, method, change)
    if method == "inverse_transform":
        part.scorer = lambda self, queries: (
            lambda codes: np.einsum("qd,md->qm", self._checked(queries), Bytes.inverse_transform(self, codes))
        )
    with pytest.raises(AssertionError, match=sentence):
        check_compressor(part())


def test_our_indexes_and_compressors_conform():
    pytest.importorskip("faiss")
    from isometry.compression import ProductQuantizer, RaBitQ, RecurrentBinary, ScalarQuantizer, SignBinarizer, Truncate
    from isometry.search.indexes import FlatIndex

    check_index(FlatIndex)
    for compressor in (ProductQuantizer(), RaBitQ(), RecurrentBinary(), ScalarQuantizer(), SignBinarizer(), Truncate()):
        check_compressor(compressor)

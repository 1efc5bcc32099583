"""RaBitQ through faiss: the training-free rival of every learnt code."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import CodeEstimator
from isometry.compression.sign import random_rotation
from isometry.errors import InputError, MissingExtraError
from isometry.types import Scorer


class RaBitQ(CodeEstimator):
    """Randomised bits with unbiased inner products (Gao and Long, SIGMOD 2024), encoded and decoded by faiss.

    Vectors are centred, projected on their `dimension` leading principal directions where that is asked for, rotated at
    random, and coded by `bits` bits a coordinate plus faiss' factors (8 bytes at one bit, 12 above), which are counted.

    Args:
        bits: 1 to 9 bits a coordinate.
        dimension: principal directions kept; None keeps all.
        random_state: seed of the rotation.
    """

    def __init__(self, bits: int = 1, *, dimension: int | None = None, random_state: int | None = 0) -> None:
        self.bits = bits
        self.dimension = dimension
        self.random_state = random_state

    @property
    def bytes_per_vector(self) -> int:
        return int(self._quantiser().code_size)

    def _learn(self, X: np.ndarray) -> None:
        if not 1 <= self.bits <= 9:
            raise InputError(f"bits is {self.bits}; RaBitQ takes 1 to 9.")
        kept = X.shape[1] if self.dimension is None else self.dimension
        if not 1 <= kept <= X.shape[1]:
            raise InputError(f"dimension is {kept}; the vectors have {X.shape[1]} coordinates.")
        self.mean_ = X.mean(axis=0)
        rotation = random_rotation(kept, check_random_state(self.random_state))
        if kept < X.shape[1]:
            centred = (X - self.mean_).astype(np.float64)
            _, directions = np.linalg.eigh(centred.T @ centred)
            rotation = directions[:, ::-1][:, :kept].astype(np.float32) @ rotation
        self.rotation_ = np.ascontiguousarray(rotation)

    def _quantiser(self):  # type: ignore[no-untyped-def]
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError("RaBitQ", "search") from error
        return faiss.RaBitQuantizer(self.rotation_.shape[1], faiss.METRIC_INNER_PRODUCT, self.bits)

    def _encode(self, X: np.ndarray) -> np.ndarray:
        import faiss

        quantiser = self._quantiser()
        # In float64: a float32 product's last bits depend on where in the batch a row stands, and codes must not.
        turned = ((X - self.mean_).astype(np.float64) @ self.rotation_.astype(np.float64)).astype(np.float32)
        codes = np.zeros((len(X), quantiser.code_size), np.uint8)
        quantiser.compute_codes_core(faiss.swig_ptr(turned), faiss.swig_ptr(codes), len(X), None)
        return codes

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        # faiss decodes the first bit only, but its score is linear in the query: the scores of the axes are the vector.
        turned = self._scores(np.eye(self.rotation_.shape[1], dtype=np.float32), codes).T
        return (turned @ self.rotation_.T + self.mean_).astype(np.float32)

    def _scores(self, turned: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Estimated inner products (q, m) of rotated queries with coded residuals."""
        import faiss

        index = faiss.IndexRaBitQ(self.rotation_.shape[1], faiss.METRIC_INNER_PRODUCT, self.bits)
        faiss.copy_array_to_vector(np.zeros(self.rotation_.shape[1], np.float32), index.center)
        index.is_trained, index.qb = True, 0
        index.add_sa_codes(codes)
        found, rows = index.search(np.ascontiguousarray(turned), len(codes))
        scores = np.empty_like(found)
        np.put_along_axis(scores, rows, found, axis=1)
        return scores

    def scorer(self, queries: np.ndarray) -> Scorer:
        check_is_fitted(self)
        queries = self._check(queries, reset=False)
        turned, constant = queries @ self.rotation_, (queries @ self.mean_)[:, None]

        def score(codes: np.ndarray) -> np.ndarray:
            return self._scores(turned, self._check_codes(codes)) + constant

        return score

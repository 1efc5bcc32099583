"""Product quantisation, with an optional learnt rotation, trained by faiss."""

from __future__ import annotations

import numpy as np

from isometry.compression._base import CodeEstimator
from isometry.errors import InputError, MissingExtraError
from isometry.types import Scorer


class ProductQuantizer(CodeEstimator):
    """Each of several sub-vectors replaced by the nearest of 2^bits centroids (Jegou et al., 2011); OPQ with `rotate`.

    Vectors are padded with zeros to a multiple of `subvectors`. With fewer rows than centroids the rows themselves are
    the centroids, so that the fitted rows decode to themselves.

    Args:
        subvectors: parts of a vector; None for one for every eight coordinates.
        bits: 1 to 8 bits for each part.
        rotate: learn OPQ's rotation first (Ge et al., 2013).
        random_state: seed of the k-means.
    """

    def __init__(
        self, subvectors: int | None = None, *, bits: int = 8, rotate: bool = False, random_state: int = 0
    ) -> None:
        self.subvectors = subvectors
        self.bits = bits
        self.rotate = rotate
        self.random_state = random_state

    @property
    def bytes_per_vector(self) -> int:
        return (self.centroids_.shape[0] * self.bits + 7) // 8

    def _learn(self, X: np.ndarray) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError("ProductQuantizer", "search") from error
        if not 1 <= self.bits <= 8:
            raise InputError(f"bits is {self.bits}; a product quantiser takes 1 to 8.")
        parts = max(1, X.shape[1] // 8) if self.subvectors is None else self.subvectors
        if not 1 <= parts <= X.shape[1]:
            raise InputError(f"subvectors is {parts}; the vectors have {X.shape[1]} coordinates.")
        width = -(-X.shape[1] // parts)
        padded = np.zeros((len(X), parts * width), np.float32)
        padded[:, : X.shape[1]] = X
        count = 2**self.bits
        self.rotation_ = None
        if self.rotate and len(X) >= count:
            turn = faiss.OPQMatrix(padded.shape[1], parts)
            turn.pq = faiss.ProductQuantizer(padded.shape[1], parts, self.bits)
            turn.pq.cp.seed += self.random_state
            turn.pq.cp.min_points_per_centroid = 1
            turn.train(padded)
            self.rotation_ = faiss.vector_to_array(turn.A).reshape(padded.shape[1], padded.shape[1]).T.copy()
            padded = padded @ self.rotation_
        if len(X) < count:
            rows = np.arange(count) % len(X)
            self.centroids_ = np.ascontiguousarray(padded[rows].reshape(count, parts, width).transpose(1, 0, 2))
        else:
            quantiser = faiss.ProductQuantizer(padded.shape[1], parts, self.bits)
            quantiser.cp.seed += self.random_state
            quantiser.cp.min_points_per_centroid = 1
            quantiser.train(padded)
            self.centroids_ = faiss.vector_to_array(quantiser.centroids).reshape(parts, count, width).copy()

    def tables(self, queries: np.ndarray) -> np.ndarray:
        """Inner products of each part of queries (q, d) with its centroids: (q, parts, 2^bits) float32."""
        turned = self.turned(queries).reshape(len(queries), len(self.centroids_), -1)
        return np.ascontiguousarray(np.einsum("qpw,pcw->qpc", turned, self.centroids_), dtype=np.float32)

    def turned(self, X: np.ndarray) -> np.ndarray:
        """Vectors (n, d), padded and rotated, in the space of the centroids."""
        return self._turned(self._check(X, reset=False))

    def _turned(self, X: np.ndarray) -> np.ndarray:
        parts, _, width = self.centroids_.shape
        padded = np.zeros((len(X), parts * width), np.float32)
        padded[:, : X.shape[1]] = X
        return padded if self.rotation_ is None else np.ascontiguousarray(padded @ self.rotation_)

    def faiss_quantiser(self):  # type: ignore[no-untyped-def]
        """The faiss.ProductQuantizer with these centroids, for faiss' own indexes."""
        import faiss

        parts, _, width = self.centroids_.shape
        quantiser = faiss.ProductQuantizer(parts * width, parts, self.bits)
        faiss.copy_array_to_vector(self.centroids_.ravel(), quantiser.centroids)
        return quantiser

    def _encode(self, X: np.ndarray) -> np.ndarray:
        return self.faiss_quantiser().compute_codes(self._turned(X))

    def _decode_turned(self, codes: np.ndarray) -> np.ndarray:
        return self.faiss_quantiser().decode(codes)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        turned = self._decode_turned(codes)
        if self.rotation_ is not None:
            turned = turned @ self.rotation_.T
        return np.ascontiguousarray(turned[:, : self.n_features_in_])

    def scorer(self, queries: np.ndarray) -> Scorer:
        turned = self._turned(self._check(queries, reset=False))

        def score(codes: np.ndarray) -> np.ndarray:
            return turned @ self._decode_turned(self._check_codes(codes)).T

        return score

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        self.rotation_ = None
        super()._restore(state)

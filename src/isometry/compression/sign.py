"""One bit for each of several directions."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import CodeEstimator
from isometry.errors import InputError
from isometry.types import Scorer


def random_rotation(dimension: int, seed: np.random.RandomState) -> np.ndarray:
    """A rotation (d, d) float32 drawn uniformly."""
    q, r = np.linalg.qr(seed.standard_normal((dimension, dimension)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


class SignBinarizer(CodeEstimator):
    """Signs of the centred vector along random directions: the training-free binary code.

    Up to d bits the directions are columns of one random rotation; beyond, of as many independent rotations as are
    needed, so that they stay a tight frame. A value of exactly zero counts as positive. Bits are packed with the first
    direction in the highest bit of the first byte.

    Args:
        bits: number of directions; None for one for each coordinate.
        center: subtract the mean of the fitted vectors first.
        rotate: off takes the coordinates themselves (then bits must be None or d).
        random_state: seed of the directions.

    `scorer` weighs each sign with the mean magnitude seen along its direction: the best one-bit reconstruction.
    """

    def __init__(
        self, bits: int | None = None, *, center: bool = True, rotate: bool = True, random_state: int | None = 0
    ) -> None:
        self.bits = bits
        self.center = center
        self.rotate = rotate
        self.random_state = random_state

    @property
    def bytes_per_vector(self) -> int:
        return (len(self.magnitude_) + 7) // 8

    def _learn(self, X: np.ndarray) -> None:
        dimension = X.shape[1]
        bits = dimension if self.bits is None else self.bits
        if bits < 1 or (not self.rotate and bits != dimension):
            raise InputError(f"bits is {bits}; without rotation there is one for each of the {dimension} coordinates.")
        self.mean_ = X.mean(axis=0) if self.center else np.zeros(dimension, np.float32)
        self.directions_: np.ndarray | None = None
        if self.rotate:
            seed = check_random_state(self.random_state)
            turns = [random_rotation(dimension, seed) for _ in range(-(-bits // dimension))]
            self.directions_ = np.ascontiguousarray(np.concatenate(turns, axis=1)[:, :bits])
        self.magnitude_ = np.abs(self._project(X)).mean(axis=0)

    def _project(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) @ self.directions_ if self.rotate else X - self.mean_

    def _encode(self, X: np.ndarray) -> np.ndarray:
        return np.packbits(self._project(X) >= 0, axis=1)

    def _signs(self, codes: np.ndarray) -> np.ndarray:
        bits = len(self.magnitude_)
        return np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        bits, dimension = len(self.magnitude_), self.n_features_in_
        centred = self._signs(codes) * self.magnitude_
        if self.directions_ is not None:
            centred = centred @ self.directions_.T * min(1.0, dimension / bits)
        return (centred + self.mean_).astype(np.float32)

    def query_values(self, queries: np.ndarray) -> np.ndarray:
        """Queries (q, d) as weights (q, bits) whose sum over a code's signs is the asymmetric score less a constant."""
        check_is_fitted(self)
        queries = self._check(queries, reset=False)
        share = np.float32(min(1.0, self.n_features_in_ / len(self.magnitude_)))
        return (queries @ self.directions_ if self.rotate else queries) * (self.magnitude_ * share)

    def scorer(self, queries: np.ndarray) -> Scorer:
        weights = self.query_values(queries)
        queries = self._check(queries, reset=False)
        constant = (queries @ self.mean_)[:, None]

        def score(codes: np.ndarray) -> np.ndarray:
            return weights @ self._signs(self._check_codes(codes)).T + constant

        return score

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        self.directions_ = None
        super()._restore(state)

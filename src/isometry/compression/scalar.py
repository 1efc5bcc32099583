"""Each coordinate rounded to a few levels between learnt limits."""

from __future__ import annotations

import numpy as np

from isometry.compression._base import CodeEstimator
from isometry.errors import InputError


class ScalarQuantizer(CodeEstimator):
    """Uniform rounding of every coordinate to 8 or 4 bits.

    Args:
        bits: 8 or 4; two 4-bit values share a byte, the even coordinate in the low half.
        per_dimension: limits learnt for each coordinate; off learns one pair for all.
        clip: share of values cut off at each end when limits are learnt (0 keeps minimum and maximum).

    The largest error inside the limits is half a step, (high - low) / (2 (2^bits - 1)); values outside are clamped.
    """

    def __init__(self, bits: int = 8, *, per_dimension: bool = True, clip: float = 0.0) -> None:
        self.bits = bits
        self.per_dimension = per_dimension
        self.clip = clip

    @property
    def bytes_per_vector(self) -> int:
        return (self.n_features_in_ * self.bits + 7) // 8

    def _learn(self, X: np.ndarray) -> None:
        if self.bits not in (4, 8):
            raise InputError(f"bits is {self.bits!r}; choose 8 or 4.")
        if not 0 <= self.clip < 0.5:
            raise InputError(f"clip is {self.clip}; give a share of at least 0 and below 0.5.")
        axis = 0 if self.per_dimension else None
        low, high = np.quantile(X, (self.clip, 1 - self.clip), axis=axis)
        self.low_ = np.asarray(low, np.float32)
        step = np.asarray((high - low) / (2**self.bits - 1), np.float32)
        self.step_ = np.where(step > 0, step, np.float32(1))

    def _encode(self, X: np.ndarray) -> np.ndarray:
        levels = np.clip(np.rint((X - self.low_) / self.step_), 0, 2**self.bits - 1).astype(np.uint8)
        if self.bits == 8:
            return levels
        if levels.shape[1] % 2:
            levels = np.pad(levels, ((0, 0), (0, 1)))
        return levels[:, ::2] | levels[:, 1::2] << 4

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        levels = codes
        if self.bits == 4:
            levels = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : self.n_features_in_]
        return (levels * self.step_ + self.low_).astype(np.float32)

"""Keeps the first coordinates, as models trained on nested prefixes allow."""

from __future__ import annotations

import numpy as np

from isometry.compression._base import CodeEstimator
from isometry.errors import InputError


class Truncate(CodeEstimator):
    """The first `dimension` coordinates, brought back to length one, stored as plain floats.

    Args:
        dimension: coordinates kept; None keeps all.
        renormalise: divide by the length of what is kept (cosine); off keeps the plain prefix.
        precision: "float32" or "float16".

    >>> code = Truncate(2, renormalise=False).fit_transform(np.float32([[1, 2, 3]]))
    >>> code.view(np.float32).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, dimension: int | None = None, *, renormalise: bool = True, precision: str = "float32") -> None:
        self.dimension = dimension
        self.renormalise = renormalise
        self.precision = precision

    @property
    def bytes_per_vector(self) -> int:
        return self.kept_ * np.dtype(self.precision).itemsize

    def _learn(self, X: np.ndarray) -> None:
        if self.precision not in ("float32", "float16"):
            raise InputError(f"precision is {self.precision!r}; choose 'float32' or 'float16'.")
        kept = X.shape[1] if self.dimension is None else self.dimension
        if not 1 <= kept <= X.shape[1]:
            raise InputError(f"dimension is {kept}; the vectors have {X.shape[1]} coordinates.")
        self.kept_ = kept

    def _encode(self, X: np.ndarray) -> np.ndarray:
        kept = X[:, : self.kept_]
        if self.renormalise:
            length = np.linalg.norm(kept, axis=1, keepdims=True)
            kept = np.divide(kept, length, out=np.zeros_like(kept), where=length > 0)
        return np.ascontiguousarray(kept.astype(self.precision)).view(np.uint8)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        out = np.zeros((len(codes), self.n_features_in_), np.float32)
        out[:, : self.kept_] = codes.view(self.precision)
        return out

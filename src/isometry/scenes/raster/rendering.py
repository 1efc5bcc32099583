"""What a picture of Gaussians is made of, and what its gradient gives; the same from the CPU and from a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rendering:
    """One picture.

    Attributes:
        colour: `(h, w, 3)` float32, background included.
        depth: `(h, w)` float32, sum of weight times camera z.
        rest: `(h, w)` float32, light that passes everything.
        ids: `(h, w)` int32, Gaussian of the largest weight or -1.
        visible: `(n,)` bool, which Gaussians touch the picture.
    """

    colour: np.ndarray
    depth: np.ndarray
    rest: np.ndarray
    ids: np.ndarray
    visible: np.ndarray
    _state: Any = None

    @property
    def expected_depth(self) -> np.ndarray:
        """Camera z that the weights expect `(h, w)`; infinite where nothing is drawn."""
        weight = 1.0 - self.rest
        return np.where(weight > 1e-3, self.depth / np.maximum(weight, 1e-6), np.inf).astype(np.float32)


@dataclass(frozen=True)
class Gradients:
    """Derivatives of a loss by the parameters of `Gaussians`, and `centres (n, 2)` by the place on the picture."""

    means: np.ndarray
    log_scales: np.ndarray
    quaternions: np.ndarray
    logits: np.ndarray
    harmonics: np.ndarray
    centres: np.ndarray

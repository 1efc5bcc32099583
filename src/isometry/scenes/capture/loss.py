# mypy: allow-untyped-defs
"""L1 and structural similarity of two pictures, with the gradient; PSNR.

SSIM as in the reference 3DGS: Gaussian window of 11 pixels and sigma 1.5, zeros beyond the border, mean over pixels
and channels.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.scenes._numba import compiled

_TAPS = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
_TAPS = (_TAPS / _TAPS.sum()).astype(np.float32)


class Target:
    """A picture to be reached `(h, w, 3)`, with its own window means kept.

    Args:
        known: `(h, w)` bool; other pixels count as equal.
    """

    def __init__(self, colours: np.ndarray, known: np.ndarray | None = None) -> None:
        self.colours = np.ascontiguousarray(colours, np.float32)
        self.unknown = None if known is None or known.all() else ~known
        planes = np.ascontiguousarray(self.colours.transpose(2, 0, 1))
        self._planes, self._work = planes, np.empty((5, *planes.shape), np.float32)
        self._mean, self._square = _blurred(planes), _blurred(planes * planes)

    def compare(self, picture: np.ndarray, structure: float) -> tuple[float, np.ndarray]:
        """(1 - structure) L1 + structure (1 - SSIM), and its derivative by `picture`, both `(h, w, 3)` float32."""
        picture = self._filled(picture)
        difference = picture - self.colours
        size = picture.size
        loss = (1 - structure) * float(np.abs(difference).sum(dtype=np.float64)) / size
        gradient = np.sign(difference) * np.float32((1 - structure) / size)
        if structure > 0:
            similarity, slope = self._similarity(picture)
            loss += structure * (1 - similarity)
            gradient -= np.float32(structure) * slope
        if self.unknown is not None:
            gradient[self.unknown] = 0
        return loss, gradient

    def ssim(self, picture: np.ndarray) -> float:
        """Mean structural similarity, 1 for equal pictures."""
        return self._similarity(self._filled(picture))[0]

    def psnr(self, picture: np.ndarray) -> float:
        """Peak signal to noise in decibel over the known pixels, colours clipped to 0..1."""
        squared = (np.clip(picture, 0, 1) - self.colours).astype(np.float64) ** 2
        if self.unknown is not None:
            squared = squared[~self.unknown]
        return float(-10 * math.log10(max(float(squared.mean()), 1e-12)))

    def _filled(self, picture: np.ndarray) -> np.ndarray:
        if self.unknown is None:
            return picture
        return np.where(self.unknown[..., None], self.colours, picture)

    def _similarity(self, picture: np.ndarray) -> tuple[float, np.ndarray]:
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
        mean, square, both = _blurred(planes), _blurred(planes * planes), _blurred(planes * self._planes)
        p, q, r = self._work[0], self._work[1], self._work[2]
        total = _ssim_slopes(mean, square, both, self._mean, self._square, p, q, r)
        slope = _blurred(p) + 2 * planes * _blurred(q) + self._planes * _blurred(r)
        return total / planes.size, slope.transpose(1, 2, 0) / np.float32(planes.size)


def _blurred(planes: np.ndarray) -> np.ndarray:
    out, work = np.empty_like(planes), np.empty_like(planes)
    _blur(planes, _TAPS, work, out)
    return out


@compiled
def _blur(planes, taps, work, out):
    channels, height, width = planes.shape
    half = len(taps) // 2
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                work[c, y, x] = np.float32(0.0)
            for k in range(len(taps)):
                row = y + k - half
                if 0 <= row < height:
                    weight = taps[k]
                    for x in range(width):
                        work[c, y, x] += weight * planes[c, row, x]
        for y in range(height):
            for x in range(width):
                out[c, y, x] = np.float32(0.0)
            for k in range(len(taps)):
                shift = k - half
                weight = taps[k]
                for x in range(max(0, -shift), min(width, width - shift)):
                    out[c, y, x] += weight * work[c, y, x + shift]


@compiled
def _ssim_slopes(mean, square, both, other, other_square, p, q, r):
    total = 0.0
    channels, height, width = mean.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                m, o = mean[c, y, x], other[c, y, x]
                a1 = 2 * m * o + 1e-4
                a2 = 2 * (both[c, y, x] - m * o) + 9e-4
                b1 = m * m + o * o + 1e-4
                b2 = square[c, y, x] - m * m + other_square[c, y, x] - o * o + 9e-4
                s = a1 * a2 / (b1 * b2)
                total += s
                p[c, y, x] = 2 * o * (a2 - a1) / (b1 * b2) + 2 * m * s * (1 / b2 - 1 / b1)
                q[c, y, x] = -s / b2
                r[c, y, x] = 2 * a1 / (b1 * b2)
    return total

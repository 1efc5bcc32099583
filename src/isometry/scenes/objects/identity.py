"""Learned identity codes: 16 numbers a Gaussian whose splatted sums a linear classifier tells apart.

Paper 1, section 2 of its note: values of the cousin that the note found in code (cross entropy over log of the number of
classes, and a term that pulls the class probabilities of neighbours in space together: k = 5, weight 2, a sample of 1,000
every second step). Ours: scene and alphas are frozen, so the picture of the codes is a sparse matrix times the codes,
which is built once per view; no rasteriser runs in the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from isometry.errors import InputError
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.objects.lift import Views
from isometry.scenes.raster import weights_matrix

_CODE = 16
_SAMPLE = 1000


@dataclass(frozen=True)
class Identities:
    """Codes `(n, 16)` and a classifier `(17, classes)` (last row: constant), class 0 the background."""

    codes: np.ndarray
    classifier: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Of every Gaussian's class `(n, classes)`."""
        return _softmax(self.codes @ self.classifier[:-1] + self.classifier[-1])

    def labels(self, threshold: float = 0.3) -> np.ndarray:
        """The likeliest object `(n,)` int32, 0 where none is likelier than `threshold` and the background."""
        probabilities = self.probabilities
        best = probabilities.argmax(axis=1)
        best[probabilities.max(axis=1) < threshold] = 0
        return best.astype(np.int32)


def learn_identities(
    gaussians: Gaussians, views: Views, count: int, *, steps: int = 300, rate: float = 0.05, consistency: float = 2.0,
    neighbours: int = 5, seed: int = 0,
) -> Identities:  # fmt: skip
    """Learn codes from views with labels of 0 to `count`; one view a step.

    Args:
        consistency: weight of the 3D term, the note's lambda; 0 leaves it out.
        rate: of Adam.

    Raises:
        InputError: no view, or fewer Gaussians than neighbours.
    """
    if not views:
        raise InputError("identities cannot be learned from no view at all")
    if len(gaussians) <= neighbours:
        raise InputError(f"{len(gaussians)} Gaussians are too few for {neighbours} neighbours each")
    rng = np.random.default_rng(seed)
    classes = count + 1
    tables, wanted = [], []
    for camera, labels in views:
        table, flat = weights_matrix(gaussians, camera), labels.ravel()
        rows = np.nonzero((flat >= 0) & (np.diff(table.indptr) > 0))[0]
        tables.append(table[rows])
        wanted.append(flat[rows])
    near = cKDTree(gaussians.means).query(gaussians.means, k=neighbours + 1)[1][:, 1:]
    codes = rng.normal(0, 0.1, (len(gaussians), _CODE))
    classifier = np.vstack([rng.normal(0, 0.1, (_CODE, classes)), np.zeros(classes)])
    moments = [np.zeros_like(a) for a in (codes, codes, classifier, classifier)]
    for step in range(1, steps + 1):
        view = int(rng.integers(len(views)))
        d_codes, d_classifier = _picture_slopes(tables[view], wanted[view], codes, classifier, np.log(classes))
        if consistency and step % 2 == 0:
            _space_slopes(codes, classifier, near, consistency, rng, d_codes, d_classifier)
        for value, slope, first, second in ((codes, d_codes, moments[0], moments[1]),
                                            (classifier, d_classifier, moments[2], moments[3])):  # fmt: skip
            first *= 0.9
            first += 0.1 * slope
            second *= 0.999
            second += 0.001 * slope * slope
            value -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-15)
    return Identities(codes, classifier)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _picture_slopes(
    table: sparse.csr_array, wanted: np.ndarray, codes: np.ndarray, classifier: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    drawn = table @ codes
    d = _softmax(drawn @ classifier[:-1] + classifier[-1])
    d[np.arange(len(wanted)), wanted] -= 1
    d /= max(1, len(wanted)) * scale
    return table.T @ (d @ classifier[:-1].T), np.vstack([drawn.T @ d, d.sum(axis=0)])


def _space_slopes(
    codes: np.ndarray, classifier: np.ndarray, near: np.ndarray, weight: float, rng: np.random.Generator,
    d_codes: np.ndarray, d_classifier: np.ndarray,
) -> None:  # fmt: skip
    """Adds the gradient of weight / classes * mean KL(p_i || p_j) over sampled Gaussians i and their neighbours j."""
    chosen = rng.permutation(len(codes))[:_SAMPLE]
    others = near[chosen]
    m, k = others.shape
    p = _softmax(codes[chosen] @ classifier[:-1] + classifier[-1])
    q = _softmax(codes[others.ravel()] @ classifier[:-1] + classifier[-1]).reshape(m, k, -1)
    scale = weight / (m * k * p.shape[1])
    ratio = np.log(p + 1e-10)[:, None, :] - np.log(q + 1e-10)
    apart = (p[:, None, :] * ratio).sum(axis=2, keepdims=True)
    d_mine = scale * (p[:, None, :] * (ratio - apart)).sum(axis=1)
    d_others = (scale * (q - p[:, None, :])).reshape(m * k, -1)
    for rows, d in ((chosen, d_mine), (others.ravel(), d_others)):
        np.add.at(d_codes, rows, d @ classifier[:-1].T)
        d_classifier[:-1] += codes[rows].T @ d
        d_classifier[-1] += d.sum(axis=0)

"""Vectors on a plane, so that a collection can be looked at."""

from __future__ import annotations

import importlib.util
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.types import Progress

Method = Literal["umap", "pca"]
FEWEST = 50  # below this many vectors UMAP's neighbourhoods say nothing and PCA is used
LANDMARKS = 15_000  # UMAP arranges this many; further vectors go to the place of their nearest ones
NEIGHBOURS = 15
NEAREST = 3
_EPOCH = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Projection:
    """Points float32 `(n, 2)` in the unit square, how they were made, and how many of them the method arranged itself."""

    points: np.ndarray
    method: Method
    arranged: int


def best_method(count: int) -> Method:
    """UMAP where it is installed and there are enough vectors for it, else PCA."""
    return "umap" if count >= FEWEST and importlib.util.find_spec("umap") is not None else "pca"


def project(
    vectors: np.ndarray,
    *,
    method: Method | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Projection:
    """Lay float32 vectors `(n, d)` out on a plane: near vectors come to lie near each other, far ones need not lie far.

    UMAP (McInnes, Healy and Melville, arXiv:1802.03426; umap-learn) begins from the PCA layout and reads exact cosine
    neighbours. Of more than 15,000 vectors it arranges a random 15,000; each other goes to the mean place of its 3 nearest
    ones. The same vectors and seed give the same points on one machine.

    Args:
        method: None chooses UMAP where it is installed and n >= 50, else PCA.
        progress: called with percent done and 100.
    Raises: `ShapeError`, `InputError` for vectors that are not finite, `MissingExtraError` where UMAP is asked for and
        is not installed.
    """
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2:
        raise ShapeError(f"vectors have shape (n, d), not {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError("a vector holds NaN or infinity and has no place on a map")
    method = method or best_method(len(vectors))
    if method == "umap" and len(vectors) < FEWEST:
        raise InputError(f"UMAP needs {FEWEST} vectors and there are {len(vectors)}; use method 'pca'")
    if method == "umap":
        return _umap(vectors, seed, progress or (lambda done, total: None))
    return Projection(_into_square(_principal(vectors)), "pca", len(vectors))


def _principal(vectors: np.ndarray) -> np.ndarray:
    if len(vectors) < 2 or not np.ptp(vectors, axis=0).any():
        return np.zeros((len(vectors), 2), np.float32)
    from sklearn.decomposition import PCA

    kept = min(2, *vectors.shape)
    flat = PCA(kept, svd_solver="covariance_eigh").fit_transform(vectors)
    return np.pad(flat, ((0, 0), (0, 2 - kept))).astype(np.float32)


def _umap(vectors: np.ndarray, seed: int, progress: Progress) -> Projection:
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtraError("UMAP", "reduce") from error
    from sklearn.neighbors import NearestNeighbors

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    chosen = np.arange(len(unit))
    if len(unit) > LANDMARKS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(unit), LANDMARKS, replace=False))
    marks = unit[chosen]
    near = min(NEIGHBOURS, len(marks) - 1)
    search = NearestNeighbors(n_neighbors=near, algorithm="brute", metric="euclidean").fit(marks)
    distances, neighbours = search.kneighbors(marks)
    progress(10, 100)
    start = _principal(marks)
    start = 10 * start / max(float(np.abs(start).max()), 1e-12)
    last = 90 if len(chosen) == len(unit) else 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn says at every call that a seed makes it run on one thread
        arranged = UMAP(
            n_neighbors=near, min_dist=0.08, random_state=seed, n_jobs=1, init=start, transform_seed=seed,
            precomputed_knn=(neighbours.astype(np.int32), distances.astype(np.float32)),
            force_approximation_algorithm=True,
            tqdm_kwds={"file": _Epochs(progress, 10, last), "disable": False, "mininterval": 0.2, "ncols": 60},
        ).fit_transform(marks)  # fmt: skip
    points = np.empty((len(unit), 2), np.float32)
    points[chosen] = arranged
    others = np.setdiff1d(np.arange(len(unit)), chosen, assume_unique=True)
    for begin in range(0, len(others), 4096):
        part = others[begin : begin + 4096]
        _, nearest = search.kneighbors(unit[part], n_neighbors=NEAREST)
        points[part] = _middle(arranged[nearest])
        progress(last + (99 - last) * min(begin + 4096, len(others)) // len(others), 100)
    progress(100, 100)
    return Projection(_into_square(points), "umap", len(chosen))


def _middle(places: np.ndarray) -> np.ndarray:
    """Of `(m, 3, 2)` the mean, or the nearest neighbour's own place where the others lie far from it."""
    spread = np.abs(places - places[:, :1]).max(axis=(1, 2))
    return np.where((spread < 1.0)[:, None], places.mean(axis=1), places[:, 0])


def _into_square(points: np.ndarray) -> np.ndarray:
    """Scaled alike in both directions so that all lie within the unit square, in its middle."""
    if not len(points):
        return points.reshape(0, 2).astype(np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max()) or 1.0
    return np.clip((points - (low + high) / 2) / size + 0.5, 0.0, 1.0).astype(np.float32)


class _Epochs:
    """Takes what tqdm writes of UMAP's epochs and passes it on as percent."""

    def __init__(self, progress: Progress, low: int, high: int) -> None:
        self._progress, self._low, self._high = progress, low, high

    def write(self, text: str) -> None:
        found = _EPOCH.search(text)
        if found and int(found[2]):
            self._progress(self._low + (self._high - self._low) * int(found[1]) // int(found[2]), 100)

    def flush(self) -> None:
        """tqdm asks for it."""

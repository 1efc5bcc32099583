"""Semantic textual similarity: does the cosine of two sentences follow people's grades?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances, paired_manhattan_distances

from isometry.errors import InputError
from isometry.evaluation.tasks._base import Result, SubsetResult, check_lengths, document_vectors, evaluate_subsets
from isometry.types import Encoder


@dataclass(frozen=True)
class GradedPairs:
    """n pairs of sentences with n grades, in any unit."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    grades: tuple[float, ...]

    def __post_init__(self) -> None:
        check_lengths(first=self.first, second=self.second, grades=self.grades)


@dataclass(frozen=True)
class STS:
    """Spearman correlation of the cosine with the grades (mteb: `cosine_spearman`).

    An item's value is the pseudo-value of the rank correlation (`spearman_items`).
    """

    name: str
    data: Mapping[str, GradedPairs]
    kind = "STS"
    metric = "cosine_spearman"

    def texts(self) -> Iterator[str]:
        for pairs in self.data.values():
            yield from pairs.first
            yield from pairs.second

    def evaluate(self, encoder: Encoder) -> Result:
        def judge(pairs: GradedPairs) -> SubsetResult:
            left, right = document_vectors(encoder, pairs.first), document_vectors(encoder, pairs.second)
            grades = np.asarray(pairs.grades, dtype=np.float64)
            cosine = 1 - paired_cosine_distances(left, right)
            items = spearman_items(cosine, grades)
            others = {
                "cosine": cosine,
                "manhattan": -paired_manhattan_distances(left, right),
                "euclidean": -paired_euclidean_distances(left, right),
            }
            metrics = {}
            for name, closeness in others.items():
                metrics[f"{name}_pearson"] = _pearson(closeness, grades)
                metrics[f"{name}_spearman"] = _pearson(rankdata(closeness), rankdata(grades))
            return SubsetResult(float(items.mean()), items, metrics)

        return evaluate_subsets(self, judge)


def spearman_items(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pseudo-values `(n,)` of Spearman's correlation of x and y `(n,)`, ties by mid-ranks; their mean is the correlation.

    The derivative covers what an item does to everybody's ranks, not only its own product of ranks.

    Raises:
        InputError: all of x or all of y are equal: there is no correlation.
    """
    f, g = (rankdata(column) / len(column) - (1 + 1 / len(column)) / 2 for column in (x, y))
    if f.std() == 0 or g.std() == 0:
        what = "similarities" if f.std() == 0 else "grades"
        raise InputError(f"all {what} are equal, so that there is no rank correlation")
    covariance, left, right = (_moment_influence(*columns) for columns in ((x, f, y, g), (x, f, x, f), (y, g, y, g)))
    correlation = (f * g).mean() / (f.std() * g.std())
    scaled = covariance / (f.std() * g.std()) - correlation / 2 * (left / f.var() + right / g.var())
    return correlation + scaled


def _moment_influence(x: np.ndarray, f: np.ndarray, y: np.ndarray, g: np.ndarray) -> np.ndarray:
    """n times the derivative of mean(f g) by each item's weight, f and g being centred ranks of x and y."""
    return f * g - (f * g).mean() + _share_below(x, g) + _share_below(y, f)


def _share_below(x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Mean over j of h_j * (1 where x_i < x_j, 1/2 where equal), centred over i: what item i adds to ranks above it."""
    order = np.argsort(x, kind="stable")
    _, first, counts = np.unique(x[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(h[order], first)
    above = np.cumsum(sums[::-1])[::-1] - sums / 2
    values = np.empty(len(x))
    values[order] = np.repeat(above, counts) / len(x)
    return values - values.mean()


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0

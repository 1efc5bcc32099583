"""Pair classification: are paraphrases closer than other pairs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances, paired_manhattan_distances

from isometry.errors import InputError
from isometry.evaluation.tasks._base import Result, SubsetResult, check_lengths, document_vectors, evaluate_subsets
from isometry.types import Encoder


@dataclass(frozen=True)
class LabelledPairs:
    """n pairs of sentences; labels are 1 (same) or 0."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        check_lengths(first=self.first, second=self.second, labels=self.labels)
        if set(self.labels) != {0, 1}:
            raise InputError(f"labels must be 0 and 1, both of them, not {sorted(set(self.labels))}")


@dataclass(frozen=True)
class PairClassification:
    """Average precision over all thresholds, best of cosine, dot product, Euclidean and Manhattan (mteb: `max_ap`).

    An item's value is the pseudo-value of the average precision (`average_precision_items`) of the best closeness.
    """

    name: str
    data: Mapping[str, LabelledPairs]
    kind = "PairClassification"
    metric = "max_ap"

    def texts(self) -> Iterator[str]:
        for pairs in self.data.values():
            yield from pairs.first
            yield from pairs.second

    def evaluate(self, encoder: Encoder) -> Result:
        def judge(pairs: LabelledPairs) -> SubsetResult:
            left, right = document_vectors(encoder, pairs.first), document_vectors(encoder, pairs.second)
            labels = np.asarray(pairs.labels)
            closeness = {
                "cosine": 1 - paired_cosine_distances(left, right),
                "dot": np.einsum("nd,nd->n", left, right),
                "euclidean": -paired_euclidean_distances(left, right),
                "manhattan": -paired_manhattan_distances(left, right),
            }
            items = {name: average_precision_items(values, labels) for name, values in closeness.items()}
            metrics = {f"{name}_ap": float(values.mean()) for name, values in items.items()}
            best = max(items, key=lambda name: metrics[f"{name}_ap"])
            for name, values in closeness.items():
                metrics[f"{name}_accuracy"] = best_accuracy(values, labels)
                metrics[f"{name}_f1"] = best_f1(values, labels)
            return SubsetResult(float(items[best].mean()), items[best], metrics)

        return evaluate_subsets(self, judge)


def average_precision_items(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pseudo-values `(n,)` of average precision; equal scores share one threshold, as in scikit-learn."""
    positive = labels.astype(np.float64)
    # thresholds from the highest score down; how many positives and items lie at or above each
    levels, place = np.unique(-scores, return_inverse=True)
    at = np.bincount(place, positive, minlength=len(levels))
    above_positive = np.cumsum(at)
    above = np.cumsum(np.bincount(place, minlength=len(levels))).astype(np.float64)
    precision = above_positive / above
    total = positive.sum()
    value = (at * precision).sum() / total
    # an item at a level counts in that level's precision and in every lower one's
    from_here = np.cumsum((at / above)[::-1])[::-1]
    diluted = np.cumsum((at * above_positive / above**2)[::-1])[::-1]
    derivative = positive * (precision[place] - value) + positive * from_here[place] - diluted[place]
    return value + len(labels) * derivative / total


def best_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy at the threshold that is best for it; no threshold parts equal scores or lies below all (as in mteb)."""
    hits, cuts = _by_score(scores, labels)
    right = np.cumsum(hits) + (1 - hits).sum() - np.cumsum(1 - hits)
    return float(right[cuts].max(initial=0) / len(hits))


def best_f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """F1 at the threshold that is best for it."""
    hits, cuts = _by_score(scores, labels)
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + hits.sum())
    return float(f1[cuts].max(initial=0))


def _by_score(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels from the highest score down, and the places behind which a threshold can lie."""
    order = np.argsort(-scores, kind="stable")
    return labels[order], np.flatnonzero(np.diff(scores[order]) != 0)

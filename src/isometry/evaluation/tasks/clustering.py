"""Clustering: do k-means clusters follow the labels?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import adjusted_mutual_info_score

from isometry.errors import InputError
from isometry.evaluation.tasks._base import Result, SubsetResult, check_lengths, document_vectors, evaluate_subsets
from isometry.types import Encoder


@dataclass(frozen=True)
class LabelledTexts:
    """n texts with n labels; a label is a tuple from the coarsest level down, of one level where there is no more."""

    inputs: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        check_lengths(inputs=self.inputs, labels=self.labels)
        if any(not label for label in self.labels):
            raise InputError("a label is empty")


@dataclass(frozen=True)
class Clustering:
    """V-measure of mini-batch k-means on bootstrap draws, mean over draws and levels (mteb: `v_measure`).

    Each draw takes `draw_size` texts with replacement (as mteb's code does, whatever its comment says; repeated texts
    lift the figure a little, for all models alike). An item is a text; its value is the pseudo-value of the V-measure
    with the clusters taken as given.

    Args:
        draws: clustering experiments.
        draw_size: texts in each; None for as many as there are, at most mteb's 16,384.
    """

    name: str
    data: Mapping[str, LabelledTexts]
    draws: int = 10
    draw_size: int | None = None
    seed: int = 42
    kind = "Clustering"
    metric = "v_measure"

    def texts(self) -> Iterator[str]:
        for texts in self.data.values():
            yield from texts.inputs

    def evaluate(self, encoder: Encoder) -> Result:
        def judge(texts: LabelledTexts) -> SubsetResult:
            size = self.draw_size or min(len(texts.inputs), 16_384)
            vectors = document_vectors(encoder, texts.inputs)
            items, ami = cluster_items(vectors, texts.labels, self.draws, size, self.seed)
            return SubsetResult(float(items.mean()), items, {"v_measure": float(items.mean()), "ami": ami})

        return evaluate_subsets(self, judge)


def cluster_items(
    vectors: np.ndarray, labels: Sequence[tuple[str, ...]], draws: int, size: int, seed: int
) -> tuple[np.ndarray, float]:
    """Pseudo-values `(n,)` of the V-measure, whose mean is its mean over draws and levels; and the mean AMI."""
    rng = random.Random(seed)
    levels = max(map(len, labels))
    influence = np.zeros(len(labels))
    values, amis = [], []
    for level in range(levels):
        rows = np.array([row for row, label in enumerate(labels) if len(label) > level])
        names, codes = np.unique([labels[row][level] for row in rows], return_inverse=True)
        if len(names) < 2:
            raise InputError(f"level {level} has one label only: there is nothing to tell apart")
        for _ in range(draws):
            drawn = np.array(rng.choices(range(len(rows)), k=size))
            model: Any = MiniBatchKMeans(
                n_clusters=len(names), batch_size=512, init="k-means++", n_init=1, random_state=seed
            )
            clusters = model.fit_predict(vectors[rows[drawn]])
            value, changes = v_measure_influence(codes[drawn], clusters)
            values.append(value)
            amis.append(adjusted_mutual_info_score(codes[drawn], clusters))
            np.add.at(influence, rows[drawn], changes * len(labels) / size)
    return np.mean(values) + influence / len(values), float(np.mean(amis))


def v_measure_influence(labels: np.ndarray, clusters: np.ndarray) -> tuple[float, np.ndarray]:
    """V-measure of integer labels and clusters `(n,)`, and n times its derivative by each item's weight (sum 0).

    V = 2 I / (H(labels) + H(clusters)); one label or one cluster on both sides counts as 1, as in scikit-learn.
    """
    pair = labels.astype(np.int64) * (int(clusters.max()) + 1) + clusters
    (of_labels, d_labels), (of_clusters, d_clusters), (joint, d_joint) = map(_entropy, (labels, clusters, pair))
    total = of_labels + of_clusters
    if total == 0:
        return 1.0, np.zeros(len(labels))
    shared = total - joint
    d_total = d_labels + d_clusters
    value = 2 * shared / total
    return float(value), (2 * (d_total - d_joint) - value * d_total) / total


def _entropy(codes: np.ndarray) -> tuple[float, np.ndarray]:
    _, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    surprise = -np.log(counts / len(codes))
    entropy = float((counts * surprise).sum() / len(codes))
    return entropy, surprise[place] - entropy

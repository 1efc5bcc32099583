"""Classification: how far do eight labelled texts a class go?"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

from isometry.errors import InputError
from isometry.evaluation.tasks._base import Result, SubsetResult, check_lengths, document_vectors, evaluate_subsets
from isometry.types import Encoder


@dataclass(frozen=True)
class TrainTest:
    """Labelled texts to draw from, and labelled texts to judge on."""

    train: tuple[str, ...]
    train_labels: tuple[str, ...]
    test: tuple[str, ...]
    test_labels: tuple[str, ...]

    def __post_init__(self) -> None:
        check_lengths(train=self.train, train_labels=self.train_labels)
        check_lengths(test=self.test, test_labels=self.test_labels)
        if len(set(self.train_labels)) < 2:
            raise InputError("the texts to train on have one label only")


@dataclass(frozen=True)
class Classification:
    """Accuracy of a logistic regression on a few labelled vectors a class, mean over draws (mteb: `accuracy`).

    Every draw takes `per_label` texts of each label without replacement and fits scikit-learn's regression with 100
    iterations. An item is a test text; its value is the share of the draws that got it right.
    """

    name: str
    data: Mapping[str, TrainTest]
    draws: int = 10
    per_label: int = 8
    seed: int = 42
    kind = "Classification"
    metric = "accuracy"

    def texts(self) -> Iterator[str]:
        for data in self.data.values():
            for rows in drawn_rows(data.train_labels, self.draws, self.per_label, self.seed):
                yield from (data.train[row] for row in rows)
            yield from data.test

    def evaluate(self, encoder: Encoder) -> Result:
        def judge(data: TrainTest) -> SubsetResult:
            draws = drawn_rows(data.train_labels, self.draws, self.per_label, self.seed)
            used = sorted(set().union(*draws))
            place = {row: i for i, row in enumerate(used)}
            train = document_vectors(encoder, [data.train[row] for row in used])
            test = document_vectors(encoder, data.test)
            truth = np.array(data.test_labels)
            right = np.zeros((len(draws), len(truth)))
            f1, precision = [], []
            for i, rows in enumerate(draws):
                model: Any = LogisticRegression(max_iter=100, random_state=self.seed)
                with warnings.catch_warnings():
                    # 100 iterations are part of the definition, whether they suffice or not
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model.fit(train[[place[row] for row in rows]], [data.train_labels[row] for row in rows])
                found = model.predict(test)
                right[i] = found == truth
                f1.append(f1_score(truth, found, average="macro", zero_division=0))
                names = np.unique(truth)
                if len(names) == 2:
                    precision.append(average_precision_score(truth == names[1], found == names[1]))
            items = right.mean(axis=0)
            metrics = {"accuracy": float(items.mean()), "f1": float(np.mean(f1))}
            metrics |= {"ap": float(np.mean(precision))} if precision else {}
            return SubsetResult(float(items.mean()), items, metrics)

        return evaluate_subsets(self, judge)


def drawn_rows(labels: Sequence[str], draws: int, per_label: int, seed: int) -> list[list[int]]:
    """Rows of each draw: at most `per_label` of every label, by a shuffle that goes on from draw to draw (as mteb's)."""
    order = list(range(len(labels)))
    found = []
    for _ in range(draws):
        np.random.RandomState(seed).shuffle(order)
        counts: dict[str, int] = defaultdict(int)
        rows = []
        for row in order:
            if counts[labels[row]] < per_label:
                rows.append(row)
                counts[labels[row]] += 1
        found.append(rows)
    return found

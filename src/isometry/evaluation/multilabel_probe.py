"""One-vs-rest logistic regression on frozen vectors, scored with the number of labels known.

Protocol of the node-embedding papers (DeepWalk's scoring script, paper 30 section 4): shuffle the items, train on a
share, give each test item its k_i most probable labels (k_i = how many it has), report micro- and macro-F1.
All classes are fitted together by L-BFGS on one matrix of weights; the objective is liblinear's (C times the log-losses
plus half the squared weights, intercept included), so the optimum is the same and the time is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse, special

from isometry.errors import InputError, ShapeError


@dataclass(frozen=True)
class ProbeScore:
    """F1 averaged over labels' counts (micro) and over labels (macro), with the sizes of the split."""

    micro_f1: float
    macro_f1: float
    train: int
    test: int


class MultiLabelProbe:
    """Judges vectors `(n, d)` by how well a linear classifier on them finds labels.

    Args:
        train_share: share of the items to train on, strictly between 0 and 1.
        C: inverse strength of the penalty, as in liblinear (paper 30: 0.1; without row normalisation 1).
        tolerance: stop when no entry of the gradient is larger than this times the number of training items.
        max_iterations: of L-BFGS.
    """

    def __init__(
        self, train_share: float = 0.1, C: float = 0.1, tolerance: float = 1e-5, max_iterations: int = 500
    ) -> None:
        if not 0 < train_share < 1 or not C > 0:
            raise InputError(f"train_share lies between 0 and 1 and C above 0, not {train_share} and {C}")
        self.train_share, self.C, self.tolerance, self.max_iterations = train_share, C, tolerance, max_iterations

    def score(self, vectors: np.ndarray, labels: Any, seed: int = 0) -> ProbeScore:
        """One shuffle.

        Args:
            vectors: `(n, d)` finite.
            labels: class numbers `(n,)` (-1 = none) or indicators `(n, c)`, sparse or dense. Items without a label are
                left out of both sides.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ShapeError(f"a probe needs finite vectors of shape (n, d), not {vectors.shape}")
        indicators = label_matrix(labels)
        if len(indicators) != len(vectors):
            raise ShapeError(f"there are {len(indicators)} rows of labels for {len(vectors)} vectors")
        known = np.flatnonzero(indicators.any(axis=1))
        order = np.random.default_rng(seed).permutation(known)
        count = int(self.train_share * len(order))
        if count < 1 or count == len(order):
            raise InputError(f"{len(order)} labelled items cannot be split into {self.train_share:g} and the rest")
        train, test = order[:count], order[count:]
        weights = fit_logistic(vectors[train], indicators[train], self.C, self.tolerance, self.max_iterations)
        scores = vectors[test] @ weights[:-1] + weights[-1]
        # a label never seen in training has nothing to say
        scores[:, ~indicators[train].any(axis=0)] = -np.inf
        micro, macro = f1_scores(indicators[test], top_labels(scores, indicators[test].sum(axis=1)))
        return ProbeScore(micro, macro, len(train), len(test))


def label_matrix(labels: Any) -> np.ndarray:
    """Class numbers `(n,)` (-1 = none) or indicators to a boolean matrix `(n, c)`."""
    if sparse.issparse(labels):
        return np.asarray(labels.toarray() != 0)
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return labels != 0
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < -1).any():
        raise ShapeError("labels are class numbers (n,), -1 for none, or indicators (n, c)")
    return labels[:, None] == np.arange(labels.max(initial=-1) + 1)


def fit_logistic(
    X: np.ndarray, Y: np.ndarray, C: float, tolerance: float = 1e-5, max_iterations: int = 500
) -> np.ndarray:
    """Weights `(d + 1, c)`, the last row the intercepts, of c logistic regressions on X `(n, d)`, Y `(n, c)`.

    Minimises, over the classes, the sum of |w|^2 / 2 + C sum_i log(1 + exp(-y_i w.x_i)), y = +-1, intercept penalised.
    """
    augmented = np.concatenate([X, np.ones((len(X), 1), dtype=X.dtype)], axis=1).astype(np.float32)
    signs = np.where(Y, np.float32(-1), np.float32(1))
    shape = (augmented.shape[1], signs.shape[1])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        margins = (augmented @ weights.astype(np.float32)) * signs
        loss = float(np.logaddexp(np.float32(0), margins).sum(dtype=np.float64))
        gradient = augmented.T @ (special.expit(margins) * signs)
        return 0.5 * float(flat @ flat) + C * loss, (weights + C * gradient).ravel()

    result = optimize.minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxcor": 10, "gtol": tolerance * len(X), "ftol": 1e-9},
    )
    return result.x.reshape(shape).astype(np.float32)


def top_labels(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The counts[i] best-scored labels of each row, as booleans `(n, c)`; equal scores by lower label."""
    order = np.argsort(-scores, axis=1, kind="stable")
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, np.arange(scores.shape[1]) < np.asarray(counts)[:, None], axis=1)
    return chosen


def f1_scores(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """(micro, macro) F1 of boolean matrices `(n, c)`; a label neither there nor predicted counts 0, as in sklearn."""
    both = (truth & predicted).sum(axis=0).astype(np.float64)
    total = truth.sum(axis=0) + predicted.sum(axis=0)
    per_label = np.divide(2 * both, total, out=np.zeros_like(both), where=total > 0)
    return float(2 * both.sum() / max(1, total.sum())), float(per_label.mean())

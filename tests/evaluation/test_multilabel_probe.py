from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from isometry.errors import InputError, ShapeError
from isometry.evaluation import MultiLabelProbe
from isometry.evaluation.multilabel_probe import f1_scores, fit_logistic, label_matrix, top_labels


def multi_label_data(n=240, d=12, c=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(np.float32)
    Y = X @ rng.standard_normal((d, c)) + rng.standard_normal((n, c)) > 1.2
    Y[np.arange(n), rng.integers(0, c, n)] = True
    return X, Y


@pytest.mark.parametrize("C", [0.1, 1.0])
def test_weights_are_liblinears(C):
    X, Y = multi_label_data()
    ours = fit_logistic(X, Y, C, tolerance=1e-8)
    for j in range(Y.shape[1]):
        theirs = LogisticRegression(C=C, solver="liblinear", tol=1e-8, max_iter=1000).fit(X, Y[:, j])
        np.testing.assert_allclose(ours[:-1, j], theirs.coef_[0], atol=2e-3)
        assert ours[-1, j] == pytest.approx(theirs.intercept_[0], abs=2e-3)


def test_score_is_the_published_protocol():
    X, Y = multi_label_data()
    found = MultiLabelProbe(train_share=0.5, C=1.0, tolerance=1e-8).score(X, sparse.csr_array(Y), seed=3)
    order = np.random.default_rng(3).permutation(len(X))
    train, test = order[:120], order[120:]
    model = OneVsRestClassifier(LogisticRegression(C=1.0, solver="liblinear")).fit(X[train], Y[train].astype(int))
    probabilities = model.predict_proba(X[test])
    predicted = np.zeros_like(Y[test])
    for i, count in enumerate(Y[test].sum(axis=1)):
        predicted[i, np.argsort(-probabilities[i])[:count]] = True
    assert found.micro_f1 == pytest.approx(f1_score(Y[test], predicted, average="micro"), abs=0.005)
    assert found.macro_f1 == pytest.approx(f1_score(Y[test], predicted, average="macro"), abs=0.005)
    assert (found.train, found.test) == (120, 120)


def test_f1_and_decoding_by_hand():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    predicted = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    assert f1_scores(truth, predicted) == pytest.approx((6 / 8, (4 / 5 + 2 / 3 + 0) / 3))
    chosen = top_labels(np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5]]), np.array([2, 1]))
    assert chosen.tolist() == [[False, True, True], [True, False, False]]


def test_labels_of_every_shape():
    assert label_matrix(np.array([1, -1, 0])).tolist() == [[False, True], [False, False], [True, False]]
    assert label_matrix(sparse.csr_array([[0, 2]])).tolist() == [[False, True]]
    with pytest.raises(ShapeError, match="class numbers"):
        label_matrix(np.array([0.5, 1.0]))


def test_unlabelled_items_are_left_out_and_unseen_labels_never_chosen():
    X = np.random.default_rng(0).standard_normal((60, 4))
    labels = np.full(60, -1)
    labels[:40] = np.arange(40) % 2
    labels[7] = 2
    found = MultiLabelProbe(train_share=0.5).score(X, labels)
    assert found.train + found.test == 40


@pytest.mark.parametrize("share", [0.0, 1.0, -1])
def test_bad_share(share):
    with pytest.raises(InputError, match="between 0 and 1"):
        MultiLabelProbe(train_share=share)


def test_bad_vectors():
    with pytest.raises(ShapeError, match="finite vectors"):
        MultiLabelProbe().score(np.full((4, 2), np.nan), np.zeros(4, int))
    with pytest.raises(ShapeError, match="3 rows of labels for 4 vectors"):
        MultiLabelProbe().score(np.ones((4, 2)), np.zeros(3, int))
    with pytest.raises(InputError, match="cannot be split"):
        MultiLabelProbe().score(np.ones((4, 2)), np.zeros(4, int))

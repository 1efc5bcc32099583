from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import roc_auc_score

from isometry.errors import InputError, ShapeError
from isometry.evaluation import LinkPrediction
from isometry.evaluation.link_prediction import auc


def graph(n=40, p=0.2, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < p, 1).astype(float)
    upper[np.arange(n - 1), np.arange(1, n)] = 2
    return sparse.csr_array(upper + upper.T)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.6))
def test_split_hides_edges_and_leaves_no_node_alone(seed, share):
    A = graph(seed=seed)
    split = LinkPrediction(share).split(A, seed)
    dense, left = A.toarray(), split.adjacency.toarray()
    assert (left == left.T).all()
    assert (left.sum(axis=1) > 0).all()
    a, b = split.positives.T
    assert (dense[a, b] > 0).all()
    assert not left[a, b].any()
    restored = left.copy()
    restored[a, b] = dense[a, b]
    restored[b, a] = dense[a, b]
    np.testing.assert_array_equal(restored, dense)
    c, d = split.negatives.T
    assert (c < d).all()
    assert not dense[c, d].any()
    assert len({*map(tuple, split.negatives.tolist())}) == len(split.positives) == len(split.negatives)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auc_is_sklearns(positive, negative):
    truth = [1] * len(positive) + [0] * len(negative)
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(roc_auc_score(truth, positive + negative))


def test_perfect_and_blind_vectors():
    A = graph(20, 0.3)
    task = LinkPrediction(0.2, "inner")
    split = task.split(A)
    # the adjacency's own square root: inner products are the edges themselves
    values, vectors = np.linalg.eigh(A.toarray() + 8 * np.eye(20))
    assert task.score(vectors * np.sqrt(np.maximum(values, 0)), split) == 1.0
    assert task.score(np.ones((20, 3)), split) == 0.5
    assert LinkPrediction(0.2).score(np.zeros((20, 3)), split) == 0.5


def test_bad_input():
    with pytest.raises(InputError, match="symmetric"):
        LinkPrediction().split(sparse.csr_array(np.triu(np.ones((3, 3)), 1)))
    with pytest.raises(InputError, match="no edge can be hidden"):
        LinkPrediction().split(sparse.csr_array(np.array([[0, 1], [1, 0]])))
    with pytest.raises(InputError, match="unlinked pairs"):
        LinkPrediction(0.5).split(sparse.csr_array(np.ones((6, 6)) - np.eye(6)))
    split = LinkPrediction().split(graph())
    with pytest.raises(ShapeError, match=r"\(40, d\)"):
        LinkPrediction().score(np.ones((39, 2)), split)
    with pytest.raises(InputError, match="between 0 and 1"):
        LinkPrediction(1.0)

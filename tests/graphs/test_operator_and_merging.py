from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

from isometry.errors import InputError, ShapeError
from isometry.graphs import PowerMerger, SimilarityOperator


def weighted_graph(n=12, seed=0):
    upper = np.triu(
        np.random.default_rng(seed).random((n, n)) * (np.random.default_rng(seed + 1).random((n, n)) < 0.5), 1
    )
    return upper + upper.T


@pytest.mark.parametrize("matrix", ["transition", "adjacency", "symmetric", "laplacian"])
@pytest.mark.parametrize("directed", [False, True])
def test_operator_equals_its_dense_matrix(matrix, directed):
    A = weighted_graph()
    if directed:
        A[2, 5] += 1.5
    degrees = A.sum(axis=1)
    M = {
        "transition": A / degrees[:, None],
        "adjacency": A,
        "symmetric": A / np.sqrt(np.outer(degrees, degrees)),
        "laplacian": np.eye(12) - A / np.sqrt(np.outer(degrees, degrees)),
    }[matrix]
    L = np.diag((degrees / degrees.sum()) ** -0.3)
    S = 0.7 * L + 0.5 * M @ L + 2.0 * M @ M @ M @ L
    operator = SimilarityOperator(A, (0.5, 0.0, 2.0), -0.3, matrix, self_influence=0.7)
    np.testing.assert_allclose(operator @ np.eye(12), S, rtol=1e-9)
    np.testing.assert_allclose(operator.T @ np.eye(12), S.T, rtol=1e-9)
    x = np.arange(12.0)
    np.testing.assert_allclose(operator @ x, S @ x, rtol=1e-9)
    np.testing.assert_allclose(operator.rmatvec(x), S.T @ x, rtol=1e-9)
    np.testing.assert_allclose((aslinearoperator(operator) @ operator) @ x, S @ S @ x, rtol=1e-9)


def test_sparse_start_takes_the_same_road():
    A = sparse.csr_array(weighted_graph(30, 3))
    X = sparse.random_array((30, 40), density=0.01, rng=np.random.default_rng(1), dtype=np.float64).tocsr()
    operator = SimilarityOperator(A, (1.0, 1.0))
    for few, full in zip(operator.powers(X), operator.powers(X.toarray()), strict=True):
        np.testing.assert_allclose(few, full, atol=1e-12)


def test_isolated_rows_stay_zero():
    A = weighted_graph()
    A[4, :] = A[:, 4] = 0
    for matrix in ("transition", "symmetric"):
        S = SimilarityOperator(A, matrix=matrix) @ np.eye(12)
        assert np.isfinite(S).all()
        assert not S[4].any()


def test_merger_sums_concatenates_and_normalises():
    a, b = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(PowerMerger((1, 10)).merge([a, b]), [[0.6, 10.8], [10.0, 0.0]])
    np.testing.assert_allclose(PowerMerger((1, 10), normalization=False).merge([a, b]), [[3, 24], [10, 0]])
    np.testing.assert_allclose(PowerMerger((2, 1), "concat").merge(iter([a, b])), [[1.2, 1.6, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(PowerMerger((0, 1), "concat", False).merge([a, b]), b)


def test_learned_weights_choose_the_block_that_knows():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    knows = rng.standard_normal((4, 8))[labels] + 0.3 * rng.standard_normal((200, 8))
    noise = rng.standard_normal((200, 8))
    merger = PowerMerger().fit([noise, knows, rng.standard_normal((200, 8))], labels)
    weights = np.abs(merger.weights)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[1] > 0.9
    indicators = sparse.csr_array(labels[:, None] == np.arange(4))
    again = PowerMerger().fit([noise, knows], indicators).weights
    assert again[1] > 0.9
    # the closed form is a maximum: no random weights share more of the spread between the classes
    blocks = [
        noise / np.linalg.norm(noise, axis=1, keepdims=True),
        knows / np.linalg.norm(knows, axis=1, keepdims=True),
    ]

    def ratio(w):
        z = sum(x * block for x, block in zip(w, blocks, strict=True))
        z = z - z.mean(axis=0)
        means = np.stack([z[labels == c].mean(axis=0) for c in range(4)])
        return 50 * (means**2).sum() / (z**2).sum()

    assert ratio(again) >= max(ratio(rng.standard_normal(2)) for _ in range(200)) - 1e-9


def test_merger_says_what_is_wrong():
    a = np.ones((3, 2))
    with pytest.raises(InputError, match="no weights"):
        PowerMerger().merge([a])
    with pytest.raises(ShapeError, match="2 weights and got 1 blocks"):
        PowerMerger((1, 1)).merge([a])
    with pytest.raises(ShapeError, match="1 weights and got 2 blocks"):
        PowerMerger((1,)).merge([a, a])
    with pytest.raises(ShapeError, match="2 rows of labels for 3 nodes"):
        PowerMerger().fit([a], np.array([0, 1]))

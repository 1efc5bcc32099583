"""FastRP against the equations of paper 30: the lettered checks of its note, then bad input and options."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from isometry.errors import InputError, ShapeError
from isometry.graphs import FastRP, RandomProjection, SimilarityOperator


def random_graph(n=50, p=0.15, seed=0, weighted=False, connected=True):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < p, 1).astype(np.float64)
    if connected:
        upper[np.arange(n - 1), np.arange(1, n)] = 1
    if weighted:
        upper *= rng.uniform(0.5, 3, (n, n))
    return upper + upper.T


def raw(**options):
    """The sum of powers before any normalisation."""
    return FastRP(normalization=False, standardize=False, **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block_size", [None, 7])
def test_a_iteration_equals_the_dense_sum(weighted, block_size):
    A = random_graph(weighted=weighted)
    weights, beta = (0.5, 0.0, 1.0, 6.67), -0.64
    model = raw(dimension=32, weights=weights, beta=beta, random_state=3, block_size=block_size)
    found = model.fit_transform(sparse.csr_array(A))
    degrees = A.sum(axis=1)
    T = A / degrees[:, None]
    L = np.diag((degrees / degrees.sum()) ** beta)
    R = model.projection_.matrix().toarray()
    expected = sum(w * np.linalg.matrix_power(T, i + 1) @ L @ R for i, w in enumerate(weights))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_a_normalised_and_standardised_as_the_published_steps():
    A = random_graph(seed=2)
    model = FastRP(dimension=16, weights=(1.0, 2.0), beta=-0.5, random_state=1)
    found = model.fit_transform(A)
    degrees = A.sum(axis=1)
    T = A / degrees[:, None]
    U = np.diag(degrees**-0.5) @ model.projection_.matrix().toarray()
    total = np.zeros((50, 16))
    for weight in (1.0, 2.0):
        U = T @ U
        norms = np.linalg.norm(U, axis=1, keepdims=True)
        total += weight * U / np.where(norms > 0, norms, 1)
    expected = (total - total.mean(axis=0)) / total.std(axis=0)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_d_relabelling_permutes_the_output():
    A = random_graph(seed=4)
    names = [f"node {i}" for i in range(50)]
    order = np.random.default_rng(0).permutation(50)
    first = FastRP(dimension=24).fit_transform(A, nodes=names)
    second = FastRP(dimension=24).fit_transform(A[np.ix_(order, order)], nodes=[names[i] for i in order])
    np.testing.assert_allclose(second, first[order], atol=1e-4)


def test_e_beta_is_without_effect_on_a_regular_graph():
    ring = sum(np.roll(np.eye(40), shift, axis=1) for shift in (1, -1, 2, -2))
    for normalization in (True, False):
        flat = FastRP(dimension=16, beta=0.0, normalization=normalization).fit_transform(ring)
        steep = FastRP(dimension=16, beta=-0.9, normalization=normalization).fit_transform(ring)
        np.testing.assert_allclose(flat, steep, atol=1e-4)


def test_f_a_component_sees_only_itself():
    A, B, C = random_graph(20, seed=1), random_graph(15, seed=2), random_graph(15, 0.4, seed=3)
    with_b = sparse.block_diag([A, B], format="csr")
    with_c = sparse.block_diag([A, C], format="csr")
    # without column scaling by the total degree and without standardising, nothing else joins the components
    options = {"dimension": 16, "standardize": False, "beta": 0.0}
    first, second = FastRP(**options).fit_transform(with_b), FastRP(**options).fit_transform(with_c)
    np.testing.assert_array_equal(first[:20], second[:20])
    assert np.abs(first[20:] - second[20:]).max() > 0.01


def test_g_complete_graph_goes_to_the_mean_row():
    n = 30
    A = np.ones((n, n)) - np.eye(n)
    operator = SimilarityOperator(A, weights=(1,) * 6, beta=-0.5)
    R = RandomProjection(8).fit_keys(np.arange(n)).matrix()
    mean = operator.start(R).mean(axis=0)
    spreads = [np.abs(U - mean).max() for U in operator.powers(R)]
    assert spreads[1] < spreads[0] / (n - 2)
    assert spreads[5] < 1e-5 * np.abs(mean).max() + 1e-7
    # and on any connected graph with a triangle, many powers give the stationary row: degrees as weights
    A = random_graph(25, 0.3, seed=6)
    operator = SimilarityOperator(A, weights=(1,) * 200, beta=0.0)
    R = RandomProjection(8).fit_keys(np.arange(25)).matrix()
    *_, last = operator.powers(R)
    stationary = (A.sum(axis=1) / A.sum()) @ R.toarray()
    np.testing.assert_allclose(last, np.tile(stationary, (25, 1)), atol=1e-5)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("matrix", ["transition", "adjacency", "symmetric"])
@pytest.mark.parametrize("block_size", [None, 5])
def test_h_isolated_node_is_a_zero_row(standardize, matrix, block_size):
    A = random_graph(30)
    A[7, :] = A[:, 7] = 0
    found = FastRP(dimension=16, standardize=standardize, matrix=matrix, block_size=block_size).fit_transform(A)
    assert np.isfinite(found).all()
    assert not found[7].any()
    assert np.abs(found).sum(axis=1)[np.arange(30) != 7].min() > 0


def test_i_one_power_is_the_first_product():
    A = random_graph()
    model = raw(dimension=16, weights=(1.0,))
    found = model.fit_transform(A)
    operator = SimilarityOperator(A, weights=(1.0,), beta=-0.64)
    np.testing.assert_allclose(found, operator.step(operator.start(model.projection_.matrix())), rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**32), st.sampled_from(["sum", "concat"]))
def test_blocks_give_the_same_vectors(n, block_size, seed, merge):
    A = random_graph(n, seed=seed)
    options = {"dimension": 17, "weights": (0.5, 0.0, 2.0), "random_state": seed, "merge": merge}
    whole = FastRP(**options).fit_transform(A)
    blocks = FastRP(block_size=block_size, **options).fit_transform(A)
    assert whole.shape == (n, 17 if merge == "sum" else 34)
    np.testing.assert_allclose(blocks, whole, atol=2e-3)


def test_edgeless_graph_is_all_zero():
    assert not FastRP(dimension=8).fit_transform(sparse.csr_array((5, 5))).any()


def test_new_nodes_fall_into_the_fitted_space():
    A = random_graph(40, seed=3)
    names = list(range(100, 140))
    model = FastRP(dimension=64).fit(A, nodes=names)
    same = model.transform(A, nodes=names)
    np.testing.assert_allclose(same, model.fit_transform(A, nodes=names), atol=1e-5)
    # a new node that copies node 0's neighbours lands beside it, and the old ones hardly move
    grown = np.zeros((41, 41))
    grown[:40, :40] = A
    grown[40, :40] = grown[:40, 40] = A[0]
    later = model.transform(grown, nodes=[*names, "new"])

    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(later[40], later[0]) > 0.99
    assert np.mean([cosine(later[i], same[i]) for i in range(40)]) > 0.8


def test_features_join_the_start():
    A = random_graph(30)
    features = np.eye(30, 6)[np.arange(30) % 6]
    plain = FastRP(dimension=32).fit_transform(A)
    model = FastRP(dimension=32)
    dense = model.fit_transform(A, features=features)
    assert np.abs(dense - plain).max() > 0.1
    sparse_features = FastRP(dimension=32).fit_transform(A, features=sparse.csr_array(features))
    np.testing.assert_allclose(sparse_features, dense, atol=1e-5)
    blocked = FastRP(dimension=32, block_size=9).fit_transform(A, features=features)
    np.testing.assert_allclose(blocked, dense, atol=1e-4)
    np.testing.assert_allclose(
        FastRP(dimension=32, feature_weight=0.0).fit_transform(A, features=features), plain, atol=1e-5
    )
    with pytest.raises(InputError, match="both fit and transform"):
        model.transform(A)
    with pytest.raises(ShapeError, match="fitted with 6 features, got 5"):
        model.transform(A, features=features[:, :5])


def test_progress_can_stop_it():
    calls = []

    def progress(done, total):
        calls.append((done, total))
        return done < 2

    with pytest.raises(KeyboardInterrupt):
        FastRP(dimension=16, block_size=4).fit(random_graph(), progress=progress)
    assert calls == [(1, 8), (2, 8)]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda A: A[:, :-1], ShapeError, "one row and one column per node"),
        (lambda A: -A, InputError, "negative weight"),
        (lambda A: A * np.nan, ShapeError, "NaN or infinite"),
        (lambda A: A[:0, :0], ShapeError, "one row and one column per node"),
        (lambda A: np.full((3, 3), "x"), ShapeError, "square matrix of numbers"),
    ],
)
def test_bad_adjacency_is_one_sentence(change, error, words):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=words):
        FastRP(dimension=8).fit(change(random_graph(12)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": ()}, "at least one of them not zero"),
        ({"weights": (0.0, 0.0)}, "at least one of them not zero"),
        ({"weights": (np.nan,)}, "finite numbers"),
        ({"beta": np.inf}, "beta must be a finite number"),
        ({"dimension": 0}, "dimension must be a whole number"),
        ({"projection": "dense"}, "no projection 'dense'"),
        ({"matrix": "walk"}, "no matrix 'walk'"),
        ({"merge": "mean"}, "no way of merging 'mean'"),
        ({"block_size": 0}, "block_size must be above 0"),
    ],
)
def test_bad_options_are_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        FastRP(**{"dimension": 8, **options}).fit(random_graph(12))


def test_names_must_fit():
    A = random_graph(12)
    with pytest.raises(ShapeError, match="11 node names for 12 rows"):
        FastRP(dimension=8).fit(A, nodes=list("abcdefghijk"))
    with pytest.raises(InputError, match="distinct"):
        FastRP(dimension=8).fit(A, nodes=list("aabcdefghijk"))
    with pytest.raises(InputError, match="without node names"):
        FastRP(dimension=8).fit(A).transform(A, nodes=list("abcdefghijkl"))


def test_blogcatalog_quality_is_the_published_one(shared_data):
    """One projection seed, one shuffle: at least the floor of the note's laptop proof."""
    from isometry.evaluation import MultiLabelProbe
    from isometry.graphs import read_graph

    graph = read_graph(shared_data / "graphs" / "blogcatalog.npz")
    assert (len(graph.nodes), graph.edge_count) == (10_312, 333_983)
    found = MultiLabelProbe(train_share=0.1, C=0.1).score(FastRP().fit_transform(graph.adjacency), graph.labels)
    assert found.micro_f1 >= 0.360
    assert found.macro_f1 >= 0.215

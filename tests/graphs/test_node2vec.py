from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from isometry.errors import InputError
from isometry.evaluation import LinkPrediction, MultiLabelProbe
from isometry.graphs import FastRP, Node2Vec, read_graph, sample_walks, train_skipgram


def two_cliques(size=12):
    block = np.ones((size, size)) - np.eye(size)
    A = np.zeros((2 * size + 1, 2 * size + 1))
    A[:size, :size] = A[size : 2 * size, size : 2 * size] = block
    A[size - 1, size] = A[size, size - 1] = 1
    return sparse.csr_array(A)  # the last node is alone


def test_walks_follow_edges_and_start_everywhere():
    A = two_cliques()
    walks = sample_walks(A, walks_per_node=3, walk_length=9, seed=4)
    assert walks.shape == (75, 9)
    assert sorted(walks[:25, 0]) == list(range(25))
    dense = A.toarray()
    for walk in walks:
        if walk[0] == 24:
            assert walk.tolist() == [24] + [-1] * 8
        else:
            assert (dense[walk[:-1], walk[1:]] == 1).all()
    np.testing.assert_array_equal(walks, sample_walks(A, walks_per_node=3, walk_length=9, seed=4))


def test_first_step_is_in_proportion_to_the_weight():
    A = np.array([[0, 1, 3], [1, 0, 0], [3, 0, 0]], dtype=float)
    walks = sample_walks(A, walks_per_node=4000, walk_length=2)
    first = walks[walks[:, 0] == 0, 1]
    assert (first == 2).mean() == pytest.approx(0.75, abs=3 * np.sqrt(0.75 * 0.25 / 4000))


def test_biased_step_has_node2vecs_distribution():
    # from 0 to 1: then back to 0 (1/p), on to 2 (joined to 0: 1) or to 3 (not joined: 1/q)
    A = np.zeros((4, 4))
    for a, b in [(0, 1), (1, 2), (0, 2), (1, 3)]:
        A[a, b] = A[b, a] = 1
    p, q = 4.0, 0.5
    walks = sample_walks(A, walks_per_node=20_000, walk_length=3, p=p, q=q)
    third = walks[(walks[:, 0] == 0) & (walks[:, 1] == 1), 2]
    expected = np.array([1 / p, 1, 1 / q]) / (1 / p + 1 + 1 / q)
    found = np.array([(third == node).mean() for node in (0, 2, 3)])
    np.testing.assert_allclose(found, expected, atol=3 * 0.5 / np.sqrt(len(third)))


def test_cliques_part_and_the_lonely_node_is_zero():
    model = Node2Vec(dimension=16, walks_per_node=40, walk_length=20, window=4, random_state=1)
    vectors = model.fit_transform(two_cliques())
    assert not vectors[24].any()
    unit = vectors[:24] / np.linalg.norm(vectors[:24], axis=1, keepdims=True)
    same = np.arange(24)[:, None] // 12 == np.arange(24) // 12
    similar = unit @ unit.T
    assert similar[same].mean() > similar[~same].mean() + 0.3
    np.testing.assert_array_equal(vectors, model.fit_transform(two_cliques()))


def test_negatives_are_drawn_by_frequency_to_three_quarters():
    from isometry.graphs.skipgram import _alias_table

    weights = np.array([5.0, 1.0, 0.0, 2.0])
    accept, alias = _alias_table(weights)
    drawn = np.zeros(4)
    for column in range(4):
        drawn[column] += accept[column] / 4
        drawn[alias[column]] += (1 - accept[column]) / 4
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=1e-12)


def test_one_pair_moves_as_the_gradient_says():
    """One walk 0-1, no negatives, window 1: centre 0 sees 1, then centre 1 sees 0, each one step of log-sigmoid."""
    walks = np.array([[0, 1]], dtype=np.int32)
    before = train_skipgram(walks, 2, 3, window=1, negatives=0, learning_rate=1e-12, seed=5)
    after = train_skipgram(walks, 2, 3, window=1, negatives=0, learning_rate=0.5, seed=5)
    # contexts begin at zero, so both vectors stay where they are in their first meeting and only contexts move
    np.testing.assert_allclose(after, before, atol=1e-6)
    twice = train_skipgram(np.array([[0, 1], [0, 1]], dtype=np.int32), 2, 3, 1, 0, learning_rate=0.5, seed=5)
    context = 0.5 * 0.5 * before[1]  # rate * (1 - sigmoid(0)) * vector of the neighbour: context of node 0
    step = 0.5 * (1 - 1 / (1 + np.exp(-before[1] @ context)))
    np.testing.assert_allclose(twice[1], before[1] + step * context, atol=1e-6)


@pytest.mark.parametrize("options", [{"p": 0}, {"q": np.inf}, {"walks_per_node": 0}, {"window": 0}, {"dimension": 0}])
def test_bad_options(options):
    with pytest.raises(InputError):
        Node2Vec(**options).fit(two_cliques())


def test_progress_stops_it():
    with pytest.raises(KeyboardInterrupt):
        Node2Vec(dimension=4).fit(two_cliques(), progress=lambda done, total: False)


def test_quality_on_cora(shared_data):
    graph = read_graph(shared_data / "graphs" / "planetoid-cora.npz")
    vectors = Node2Vec(dimension=64, walks_per_node=6, window=5).fit_transform(graph.adjacency)
    assert MultiLabelProbe(train_share=0.1, C=1.0).score(vectors, graph.labels).micro_f1 > 0.70


def test_links_are_predicted_on_cora(shared_data):
    graph = read_graph(shared_data / "graphs" / "planetoid-cora.npz")
    task = LinkPrediction(0.1)
    split = task.split(graph.adjacency, seed=1)
    vectors = FastRP(dimension=256, weights=(1, 1, 1, 1, 1), beta=0.0).fit_transform(split.adjacency)
    assert task.score(vectors, split) > 0.75
    shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
    assert task.score(shuffled, split) == pytest.approx(0.5, abs=0.06)

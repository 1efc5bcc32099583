"""The planner's arithmetic, every strategy against brute force, and what an adaptive index promises."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from isometry.errors import InputError, ShapeError
from isometry.search.indexes import AdaptiveIndex, FlatIndex
from isometry.search.kernels.acorn import acorn_walk
from isometry.search.kernels.graph import pop, probe, push, walk
from isometry.search.planner import STRATEGIES, Costs, Situation, Tables, estimates
from isometry.testing import check_index

COSTS = Costs(scan=10, gather=20, batch=2, hop=40, test=1, centroid=20, query=1000, look=3, weigh=4000)
TABLES = Tables(
    np.array([[10.0, 4], [1000, 40]]),
    np.array([[10.0, 32], [100, 128]]),
    np.array([[32.0, 500], [512, 5000]]),
    np.array([[0.1, 2.0], [0.4, 4.0]]),
)


@pytest.fixture(scope="module")
def clustered():
    """2000 vectors around 20 centres, and an index."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((20, 24))
    made = centres[np.arange(2000) % 20] + 0.4 * random.standard_normal((2000, 24))
    made = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return made, AdaptiveIndex(links=8).build(made)


def test_tables_are_read_on_logarithmic_scales():
    assert TABLES.cells_for(10, 50) == 4 and TABLES.cells_for(1, 50) == 4
    assert TABLES.cells_for(100, 50) == 13  # the geometric mean of 4 and 40 is 12.6
    assert TABLES.cells_for(5000, 50) == 50 and TABLES.breadth_for(200) == 256
    assert TABLES.scored_by(128) == pytest.approx(500 * 10 ** (np.log(4) / np.log(16)))


def test_costs_of_an_unfiltered_query():
    found = {
        e.strategy: e for e in estimates(Situation(100_000, 100_000, 10, 384, 300, 32, 1.0, 4, 1500), TABLES, COSTS)
    }
    assert set(found) == {"exact scan", "cells", "graph"}
    assert found["exact scan"].microseconds == 1 + 1000
    assert found["cells"].microseconds == pytest.approx(5 + 300 * 0.02 + 1500 * 0.02)
    assert found["graph"].microseconds == pytest.approx(5 + 300 * 0.02 + 500 * 0.04)
    assert found["graph"].rows == 500


def test_a_walk_in_the_filter_keeps_the_matches_of_an_unfiltered_one():
    assert TABLES.matches_for(10, 1.0) == 38  # 32 x 4^log10(1.3)
    assert TABLES.matches_for(10, 0.1) == 16  # a tenth of 128 x 125 / 100
    assert TABLES.matches_for(10, 0.01) == 16 and TABLES.matches_for(50, 1e-4) >= 50


def test_acorn_walks_as_wide_as_was_measured():
    assert TABLES.acorn_factor(0.1) == 2 and TABLES.acorn_factor(0.2) == pytest.approx(2 * 2**0.5)
    assert TABLES.acorn_factor(0.9) == 4 and TABLES.acorn_factor(0.05) == np.inf
    three = Tables(np.array([[10.0, 4]]), np.array([[10.0, 32]]), np.array([[32.0, 500]]))
    assert three.acorn_factor(0.5) == np.inf  # an index of an earlier version


def test_few_matches_are_scanned_and_far_ones_not_walked_to():
    few = estimates(Situation(100_000, 50, 10, 384, 300, 32, 0.0005, 300, 50), TABLES, COSTS)
    assert few[0].strategy == "exact scan of matches" and few[0].microseconds == 1 + 1
    far = {e.strategy for e in estimates(Situation(100_000, 20_000, 10, 384, 300, 32, 0.001, 200, 9000), TABLES, COSTS)}
    assert "acorn" not in far and "graph, in filter" not in far
    near = {e.strategy for e in estimates(Situation(100_000, 20_000, 10, 384, 300, 32, 0.5, 5, 900), TABLES, COSTS)}
    assert {"acorn", "graph, in filter", "graph, over-fetched", "cells"} <= near
    cells = next(e for e in estimates(Situation(100_000, 20_000, 10, 384, 300, 32, 0.5, 6, 900), TABLES, COSTS)
                 if e.strategy == "cells")  # fmt: skip
    assert cells.microseconds == pytest.approx(5 + 300 * 0.02 + 900 * 0.02 + 6 / 300 * 100_000 * 0.003)


def test_heaps():
    values = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    scores, rows = np.empty(50, np.float32), np.empty(50, np.int32)
    for number, value in enumerate(values):
        push(scores, rows, number, value, number)
    order = []
    for size in range(50, 0, -1):
        order.append(rows[0])
        pop(scores, rows, size)
    assert order == np.argsort(-values).tolist()


def test_walks_on_a_chain():
    """Rows 0 - 1 - ... - 9 in a line, each nearer to the query than the one before."""
    codes = np.arange(1, 11, dtype=np.int8)[:, None]
    chain = np.array([[i - 1 if i else 1, i + 1 if i < 9 else -1] for i in range(10)], np.int32)
    scale, query, start = np.ones(10, np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    rows, scores = np.empty(2, np.int64), np.empty(2, np.float32)
    nobody, odd = np.zeros(1, bool), np.arange(10) % 2 == 1
    assert walk(chain, codes, scale, query, start, nobody, False, 99, rows, scores) == 10
    assert set(rows) == {8, 9} and set(scores) == {9.0, 10.0}
    assert walk(chain, codes, scale, query, start, nobody, False, 4, rows, scores) >= 4 and set(rows) == {2, 3}
    walk(chain, codes, scale, query, start, odd, True, 99, rows, scores)
    assert set(rows) == {7, 9}
    scored = acorn_walk(chain, codes, scale, query, start + 1, odd, 99, rows, scores)
    assert set(rows) == {7, 9} and scored == 5  # 1, 3, 5, 7, 9: each through the even row between
    none = np.arange(10) == 0
    acorn_walk(chain, codes, scale, query, start, none, 99, rows, scores)
    assert set(rows) == {0, -1} and scores.min() == -np.inf
    cells = (np.arange(10), np.array([0, 4, 10]), np.array([0]))
    found = probe(*cells, codes, scale, query, nobody, False, rows, scores)
    assert found == 4 and set(rows) == {2, 3}


def test_conformance():
    check_index(lambda: AdaptiveIndex(links=8), exact=False)
    check_index(lambda: AdaptiveIndex(links=0), exact=False)


@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
def test_every_strategy_gives_matching_rows_and_true_scores(clustered, strategy):
    vectors, index = clustered
    random = np.random.default_rng(3)
    exact = FlatIndex().build(vectors)
    queries = vectors[random.choice(2000, 20, replace=False)] + 0.2 * random.standard_normal((20, 24)).astype(
        np.float32
    )
    far = np.argsort(vectors @ queries[0])[:300]
    for mask in (random.random(2000) < 0.5, random.random(2000) < 0.05, np.isin(np.arange(2000), far)):
        scores, rows, plan = index.search_with_plan(queries, 10, mask, strategy=strategy)
        true_scores, true_rows = exact.search(queries, 10, mask)
        assert mask[rows].all() and (rows >= 0).all()
        assert np.allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), atol=1e-5)
        assert (scores <= true_scores + 1e-6).all() and plan["matches"] == mask.sum()
        hits = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(rows, true_rows, strict=True)])
        assert hits > (0.95 if strategy is None else 0.7)
        if strategy in ("exact scan", "exact scan of matches"):
            np.testing.assert_array_equal(rows, true_rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 40))
def test_any_filter_gives_as_many_matches_as_there_are(clustered, seed, share, k):
    _, index = clustered
    random = np.random.default_rng(seed)
    mask = random.random(2000) < share**4
    query = random.standard_normal((1, 24)).astype(np.float32)
    _, rows = index.search(query, k, mask)
    _, others = index.search(query, k, ~mask)
    assert (rows >= 0).sum() == min(k, mask.sum()) and mask[rows[rows >= 0]].all()
    assert (others >= 0).sum() == min(k, 2000 - mask.sum()) and not mask[others[others >= 0]].any()
    assert len(np.unique(rows[rows >= 0])) == (rows >= 0).sum()


def test_same_vectors_same_index(clustered):
    vectors, index = clustered
    again = AdaptiveIndex(links=8).build([vectors[:700], vectors[700:]])
    for name, array in index.arrays().items():
        if name not in ("probes", "breadths", "scored"):
            np.testing.assert_array_equal(array, again.arrays()[name], err_msg=name)


def test_bad_input_is_one_sentence(clustered):
    _, index = clustered
    for call, kind in (
        (lambda: index.search(np.zeros((1, 24), np.float32), 0), InputError),
        (lambda: index.search(np.full((1, 24), np.nan, np.float32), 3), ShapeError),
        (lambda: index.search(np.zeros((1, 23), np.float32), 3), ShapeError),
        (lambda: AdaptiveIndex(recall=2), InputError),
        (lambda: AdaptiveIndex().build(np.empty((0, 4), np.float32)), ShapeError),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert (index.search(np.ones((1, 24), np.float32), 3000)[1] >= 0).sum() == 2000


def test_costs_are_measured_at_first_use_and_kept(clustered):
    vectors, index = clustered
    again = AdaptiveIndex().restore(vectors, index.arrays())
    costs = again.costs
    assert costs is again.costs and (costs.array > 0).all() and np.isfinite(costs.array).all()
    plan = again.search_with_plan(vectors[:1], 5, np.arange(len(vectors)) % 2 == 0)[2]
    assert plan["measured_ms"] > 0
    assert all(one["estimated_ms"] > costs.query / 1e6 - 1e-4 for one in plan["choices"])


@pytest.mark.parametrize("n", [1, 2, 9, 300])
def test_costs_of_small_indexes(n):
    vectors = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32)
    costs = AdaptiveIndex(links=4).build(vectors).costs
    assert (costs.array > 0).all() and np.isfinite(costs.array).all()

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, ShapeError
from isometry.search.indexes import FlatIndex
from isometry.training.margins import MarginRule
from isometry.training.negatives import (
    Bm25,
    consistent_rows,
    guided_rows,
    mine_negatives,
    reciprocal_rank_fusion,
    standardised_sum,
)


def unit(rows, d, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_hand_case_margin_and_report():
    """Query at 0 degrees, positive at 30 (cos .866); candidates at 10, 20, 40, 60, 90 degrees."""
    documents = on_circle(30, 10, 20, 40, 60, 90)
    query = on_circle(0)
    plain = mine_negatives(query, documents, [[0]], 2)
    assert plain.rows.tolist() == [[1, 2]]
    strict = mine_negatives(query, documents, [[0]], 2, rule=MarginRule("relative", 0.05), oracle=[[0, 1, 4]])
    assert strict.rows.tolist() == [[3, 4]]
    np.testing.assert_allclose(strict.scores, [[math.cos(math.radians(40)), 0.5]], atol=1e-6)
    report = strict.report
    assert (report.candidates, report.too_close, report.padded) == (5, 2, 0)
    assert report.kept_fraction == pytest.approx(0.6)
    assert report.false_negatives == 0.5 and report.removed_false == 0.5
    assert "60.0% pass" in report.lines()[0]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 50),
    st.integers(1, 5),
    st.sampled_from(["absolute", "relative"]),
    st.floats(0.0, 0.3),
    st.sampled_from(["hardest", "random"]),
)
def test_every_negative_is_below_its_threshold_and_no_positive(seed, count, kind, margin, choose):
    documents, queries = unit(60, 6, seed), unit(8, 6, seed + 1)
    positives = [[i, i + 10] for i in range(8)]
    rule = MarginRule(kind, margin)
    mined = mine_negatives(queries, documents, positives, count, rule=rule, choose=choose, last_rank=30, seed=seed)
    for q in range(8):
        best = max(queries[q] @ documents[p] for p in positives[q])
        assert not set(mined.rows[q]) & set(positives[q])
        assert len(set(mined.rows[q])) == count
        if mined.report.padded == 0:
            assert (mined.scores[q] <= rule.threshold(best) + 1e-6).all()
    again = mine_negatives(queries, documents, positives, count, rule=rule, choose=choose, last_rank=30, seed=seed)
    assert (again.rows == mined.rows).all()


def test_an_index_of_the_project_gives_the_same():
    documents, queries = unit(200, 16, 0), unit(20, 16, 1)
    positives = [[i] for i in range(20)]
    exact = mine_negatives(queries, documents, positives, 5, rule=MarginRule())
    found = mine_negatives(queries, documents, positives, 5, rule=MarginRule(), index=FlatIndex().build(documents))
    assert (exact.rows == found.rows).all()


def test_window_is_clamped_and_padding_is_counted():
    documents = on_circle(0, 5, 10, 15)
    mined = mine_negatives(on_circle(0), documents, [[0]], 3, first_rank=1, last_rank=50)
    assert mined.rows[0, :2].tolist() == [2, 3] and mined.rows[0, 2] == 1
    assert mined.report.padded == mined.report.starved == 1
    assert len(mined.report.lines()) == 2


def test_forbidden_rows_and_bad_input():
    documents = on_circle(0, 5, 10, 15)
    mined = mine_negatives(on_circle(0), documents, [[0]], 1, forbidden=[[1]])
    assert mined.rows.tolist() == [[2]]
    with pytest.raises(InputError, match="query 0 has no positive"):
        mine_negatives(on_circle(0), documents, [[]], 1)
    with pytest.raises(InputError, match="too few"):
        mine_negatives(on_circle(0), documents, [[0]], 4)
    with pytest.raises(ShapeError, match="one for each"):
        mine_negatives(on_circle(0), documents, [[0], [1]], 1)
    with pytest.raises(InputError, match="empty"):
        mine_negatives(on_circle(0), documents, [[0]], 1, first_rank=5, last_rank=5)


def test_consistency_keeps_what_the_teacher_finds():
    documents = on_circle(0, 10, 20, 30, 40)
    queries = np.repeat(on_circle(0), 3, axis=0)
    positives = [[0], [2], [4, 1]]
    assert consistent_rows(queries, documents, positives, top=2).tolist() == [True, False, True]
    assert consistent_rows(queries, documents, positives, top=3).tolist() == [True, True, True]
    index = FlatIndex().build(documents)
    assert consistent_rows(queries, documents, positives, top=2, index=index).tolist() == [True, False, True]
    assert consistent_rows(queries, documents, positives, top=99).all()
    with pytest.raises(InputError, match="at least 1"):
        consistent_rows(queries, documents, positives, top=0)


def test_a_tie_with_the_last_rank_is_kept():
    documents = on_circle(0, 10, -10)
    assert consistent_rows(on_circle(0), documents, [[2]], top=2).tolist() == [True]


def test_guided_rows():
    query, positive = on_circle(0), on_circle(30)
    negatives = on_circle(10, 30, 50)[None]
    assert guided_rows(query, positive, negatives).tolist() == [[False, True, True]]
    assert guided_rows(query, positive, negatives, MarginRule("absolute", 0.1)).tolist() == [[False, False, True]]


def test_bm25_hand_formula():
    """One word, three documents of equal length: IDF * f * 2.2 / (f + 1.2)."""
    found = Bm25(["cat dog", "cat cat", "sun sky"]).scores("Cat")
    idf = math.log(1 + 1.5 / 2.5)
    np.testing.assert_allclose(found, [idf * 2.2 / 2.2, idf * 2 * 2.2 / 3.2, 0.0], rtol=1e-6)
    assert (Bm25(["a b"]).scores("z") == 0).all()
    assert Bm25([]).scores("z").shape == (0,)


def test_fusion():
    one, two = np.array([[3.0, 2.0, 1.0]]), np.array([[1.0, 3.0, 2.0]])
    np.testing.assert_allclose(
        reciprocal_rank_fusion(one, two), [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]], rtol=1e-6
    )
    np.testing.assert_allclose(standardised_sum(one, 10 * one + 5), standardised_sum(one), atol=1e-6)
    with pytest.raises(ShapeError):
        reciprocal_rank_fusion(one, two[:, :2])

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.evaluation import score_rankings

METRICS = ("ndcg@10", "recall@5", "recall@100", "p@3", "map", "mrr")
TREC = dict(zip(METRICS, ["ndcg_cut_10", "recall_5", "recall_100", "P_3", "map", "recip_rank"], strict=True))

documents = st.integers(0, 30).map(str)
judgements = st.dictionaries(
    st.integers(0, 9).map(str), st.dictionaries(documents, st.integers(0, 3), min_size=1), min_size=1, max_size=10
).filter(lambda judged: any(grade for grades in judged.values() for grade in grades.values()))


@settings(max_examples=80, deadline=None)
@given(judgements, st.data())
def test_values_are_pytrec_evals(judged, data):
    rankings = {query: data.draw(st.lists(documents, unique=True, min_size=1)) for query in judged}
    found = score_rankings(judged, rankings, METRICS)
    run = {query: {doc: 1.0 / (rank + 1) for rank, doc in enumerate(docs)} for query, docs in rankings.items()}
    theirs = pytrec_eval.RelevanceEvaluator(judged, set(TREC.values())).evaluate(run)
    for name, measure in TREC.items():
        expected = [theirs[query][measure] for query in found.queries]
        np.testing.assert_allclose(found.values[name], expected, atol=1e-9)
    assert found.left_out == sum(not any(grades.values()) for grades in judged.values())


@settings(max_examples=80, deadline=None)
@given(judgements, st.integers(1, 12), st.data())
def test_cutoffs_are_the_plain_definitions(judged, k, data):
    rankings = {query: data.draw(st.lists(documents, unique=True)) for query in judged}
    found = score_rankings(judged, rankings, [f"mrr@{k}", f"p@{k}", f"recall@{k}", f"ndcg@{k}", f"map@{k}"])
    for i, query in enumerate(found.queries):
        grades = judged[query]
        relevant = {doc for doc, grade in grades.items() if grade > 0}
        top = rankings[query][:k]
        places = [rank for rank, doc in enumerate(top, start=1) if doc in relevant]
        gains = [grades.get(doc, 0) for doc in top]
        ideal = sorted(grades.values(), reverse=True)[:k]
        expected = {
            "mrr": 1 / places[0] if places else 0,
            "p": len(places) / k,
            "recall": len(places) / len(relevant),
            "ndcg": np.dot(gains, 1 / np.log2(np.arange(2, len(gains) + 2)))
            / np.dot(ideal, 1 / np.log2(np.arange(2, len(ideal) + 2))),
            "map": sum((n + 1) / place for n, place in enumerate(places)) / len(relevant),
        }
        for family, value in expected.items():
            assert found.values[f"{family}@{k}"][i] == pytest.approx(value, abs=1e-9), family


def test_the_order_given_is_the_order_judged():
    """trec_eval would put equal scores in the reverse order of ids; a ranking has no equal scores."""
    found = score_rankings({"q": {"a": 1}}, {"q": ["a", "z"]}, ["mrr"])
    assert found.values["mrr"].tolist() == [1.0]
    assert score_rankings({"q": {"a": 1}}, {"q": ["z", "a"]}, ["mrr"]).values["mrr"].tolist() == [0.5]


def test_queries_without_positives_are_left_out_and_counted():
    found = score_rankings({"a": {"x": 1}, "b": {"x": 0}, "c": {"y": -1}}, {"a": ["x"]}, ["ndcg@10"])
    assert found.queries == ("a",)
    assert found.left_out == 2
    assert found.means() == {"ndcg@10": 1.0}


def test_a_query_never_run_is_an_error_and_an_empty_answer_is_zero():
    judged = {"a": {"x": 1}, "b": {"x": 1}}
    with pytest.raises(InputError, match=r"1 of 2 judged queries were never run \(the first is 'b'\)"):
        score_rankings(judged, {"a": ["x"]})
    found = score_rankings(judged, {"a": ["x"], "b": [], "unjudged": ["x"]})
    assert found.values["ndcg@10"].tolist() == [1.0, 0.0]
    assert {name: values.tolist() for name, values in found.values.items()}["map"] == [1.0, 0.0]


def test_unjudged_hits_and_negative_grades():
    found = score_rankings({"a": {"x": 1, "y": -2}}, {"a": ["y", "w", "v", "x"]}, ["ndcg@10", "recall@10"])
    assert found.unjudged == 0.5
    assert found.values["recall@10"].tolist() == [1.0]
    assert found.values["ndcg@10"][0] == pytest.approx(1 / np.log2(5))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ndgc@10", "did you mean 'ndcg@10'"),
        ("recall", "no metric 'recall'"),
        ("p@0", "above 0"),
        ("map@x", "no metric"),
    ],
)
def test_unknown_metrics(name, words):
    with pytest.raises(InputError, match=words):
        score_rankings({"a": {"x": 1}}, {"a": ["x"]}, [name])


def test_bad_rankings():
    with pytest.raises(InputError, match="twice in its ranking"):
        score_rankings({"a": {"x": 1}}, {"a": ["x", "x"]})
    with pytest.raises(InputError, match="nothing to judge"):
        score_rankings({"a": {"x": 0}}, {"a": ["x"]})
    with pytest.raises(InputError, match="nothing to judge"):
        score_rankings({}, {})

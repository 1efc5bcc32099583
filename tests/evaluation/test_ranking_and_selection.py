"""Orders of models, critical differences, and the choice of tasks: closed forms and invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isometry.errors import InputError
from isometry.evaluation.ranking import (
    ScoreTable,
    borda,
    compare_models,
    critical_difference,
    groups_alike,
    mean_by_kind,
    rank_intervals,
    ranks,
)
from isometry.evaluation.selection import (
    cut_curve,
    hard_negatives,
    predictability,
    preservation_curve,
    random_agreement,
    rank_agreement,
    scored_pairs,
    select_tasks,
)
from isometry.evaluation.tasks import Judged, Result, Retrieval, SubsetResult

NAN = float("nan")


def table(values, kinds=None, models=None):
    values = np.asarray(values, float)
    return ScoreTable(
        tuple(models or (f"m{i}" for i in range(values.shape[0]))),
        tuple(f"t{i}" for i in range(values.shape[1])),
        tuple(kinds or ["STS"] * values.shape[1]),
        values,
    )


def test_borda_by_hand():
    values = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.3], [0.7, 0.5, 0.2]])
    assert borda(values).tolist() == [2 + 1 + 0, 1 + 1 + 2, 0 + 1 + 1]
    assert ranks(borda(values)).tolist() == [2, 1, 3]
    assert borda(np.ones((3, 4))).tolist() == [4.0, 4.0, 4.0]
    assert ranks(np.array([5.0, 5.0, 1.0])).tolist() == [1, 1, 3]


def test_a_task_that_was_not_run():
    values = np.array([[0.9, NAN], [0.8, 0.4], [0.7, 0.5]])
    assert borda(values).tolist() == [2.0, 1.0, 1.0]
    assert borda(values, missing="average").tolist() == [4.0, 1.0, 1.0]


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_borda_sums_to_the_same_and_ignores_any_rising_scale(models, tasks, seed):
    values = np.random.default_rng(seed).integers(0, 4, (models, tasks)).astype(float)
    assert borda(values).sum() == pytest.approx(tasks * models * (models - 1) / 2)
    assert borda(np.exp(values)).tolist() == borda(values).tolist()


def test_means_by_kind():
    found = mean_by_kind(table([[0.2, 0.4, 0.9], [0.1, 0.1, NAN]], ["STS", "STS", "Retrieval"]))
    assert found["STS"].tolist() == pytest.approx([0.3, 0.1])
    assert found["Retrieval"][0] == 0.9 and np.isnan(found["Retrieval"][1])


@pytest.mark.parametrize("grades", [1000, 4])
def test_friedman_with_and_without_ties(grades):
    values = np.random.default_rng(grades).integers(0, grades, (4, 14)).astype(float)
    values[0] += grades / 3
    found = critical_difference(values)
    chi = stats.friedmanchisquare(*values).statistic
    f = 13 * chi / (14 * 3 - chi)
    assert found.p == pytest.approx(stats.f.sf(f, 3, 39))
    # Demšar 2006, section 3.2.2: q 2.569, 4 models, 14 tasks
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert found.difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=0.001)
    assert found.average_ranks.sum() == pytest.approx(10)
    assert critical_difference(np.ones((3, 4))).p == 1.0


def test_groups_that_are_not_told_apart():
    assert groups_alike(np.array([1.0, 1.5, 3.0, 3.2, 5.0]), 1.6) == [(0, 1), (1, 2), (2, 3)]
    assert groups_alike(np.array([1.0, 2.0]), 0.5) == []


def result(task, items, kind="STS"):
    items = np.asarray(items, float)
    return Result(task, kind, "m", {"en": SubsetResult(float(items.mean()), items)})


def many(seed=0, gap=0.0, n=80):
    rng = np.random.default_rng(seed)
    shared = {task: rng.standard_normal(n) for task in "abcdef"}
    return {
        f"m{i}": {t: result(t, shared[t] + 0.3 * rng.standard_normal(n) + gap * i) for t in shared} for i in range(3)
    }


def test_rank_intervals_are_tight_where_models_are_apart_and_wide_where_not():
    apart = rank_intervals(many(gap=1.0), resamples=300)
    assert apart == {"m0": (3, 3), "m1": (2, 2), "m2": (1, 1)}
    assert rank_intervals(many(gap=1.0), over="tasks", by="mean", resamples=300) == apart
    alike = rank_intervals(many(gap=0.0), resamples=300)
    assert all(low < high for low, high in alike.values())
    assert rank_intervals(many(), resamples=300) == alike
    one_lacks = many()
    del one_lacks["m0"]["a"]
    with pytest.raises(InputError, match="every model on every task"):
        rank_intervals(one_lacks)


def test_models_compared_task_by_task():
    results = many(gap=1.0)
    found = compare_models(results["m1"], results["m0"])
    assert [one.task for one in found] == list("abcdef")
    assert all(one.comparison.effect == pytest.approx(1, abs=0.2) for one in found)
    assert all(one.comparison.p <= one.p_holm < 0.05 for one in found)
    shorter = {"a": result("a", np.zeros(5))}
    with pytest.raises(InputError, match="task 'a': the models were judged on other items"):
        compare_models(results["m0"], shorter)


def correlated(models=30, seed=0):
    """Three tasks of their own, one that is a mixture of two, one that is a copy."""
    rng = np.random.default_rng(seed)
    own = rng.random((models, 3))
    mixture = 0.5 * own[:, 0] + 0.5 * own[:, 1] + 0.02 * rng.standard_normal(models)
    return table(np.column_stack([own, mixture, own[:, 2]]), ["STS", "STS", "STS", "STS", "STS"])


def test_a_copy_is_predicted_without_error_and_goes_first():
    found = select_tasks(correlated(), 0.8, 0.5)
    first = found.removed[0]
    assert first.task == "t2" and first.spearman == 1.0 and first.z_error == pytest.approx(0, abs=1e-20)
    assert {"t0", "t1", "t3"} - set(found.kept) and "t4" in found.kept
    assert not found.underdetermined
    assert select_tasks(correlated(6), 0.8, 0.5).underdetermined is False
    assert select_tasks(correlated(5), 0.99, 0.01).underdetermined is True


def test_what_must_stay_stays():
    values = correlated().values
    alone = table(values, ["STS", "STS", "Retrieval", "STS", "Clustering"])
    assert {"t2", "t4"} <= set(select_tasks(alone).kept)
    assert "t2" in select_tasks(correlated(), keep=["t2"]).kept
    assert "t2" in select_tasks(correlated(), allowed=lambda task, left: task != "t2").kept
    flat = table(np.column_stack([values, np.full(30, 0.5)]))
    assert select_tasks(flat).constant == ("t5",)
    with pytest.raises(InputError, match="no task 'x' to keep"):
        select_tasks(alone, keep=["x"])
    with pytest.raises(InputError, match="at least 3 models"):
        select_tasks(table(values[:2]))


def test_a_prediction_does_not_use_the_predicted_model():
    first = correlated()
    other = first.values.copy()
    other[7, 3] += 5.0  # the task to predict, of one model: only its truth moves, not its prediction
    before, after = predictability(first, "t3"), predictability(table(other), "t3")
    errors = lambda values, step: step.z_error * len(values) * values[:, 3].var()  # noqa: E731
    # the other models' predictions do move, since model 7 is among those they are fitted on
    assert errors(other, after) > 20
    alone = first.values.copy()
    x, y = np.delete(alone, 3, axis=1), alone[:, 3]
    from sklearn.linear_model import LinearRegression

    guesses = [
        LinearRegression().fit(np.delete(x, i, 0), np.delete(y, i)).predict(x[i : i + 1])[0] for i in range(len(y))
    ]
    assert before.z_error == pytest.approx((((np.array(guesses) - y) / y.std()) ** 2).mean())
    assert before.spearman == pytest.approx(stats.spearmanr(guesses, y).statistic)


def test_the_curve_starts_at_the_whole_benchmark():
    scores = correlated()
    selection = select_tasks(scores)
    curve = preservation_curve(scores, selection, draws=50)
    assert curve["tasks"] == [5.0 - i for i in range(len(selection.removed) + 1)]
    assert (curve["selected"][0], curve["random"][0], curve["percentile"][0]) == (1.0, 1.0, 1.0)
    assert curve["selected"][-1] == rank_agreement(scores, selection.kept)
    rng = np.random.default_rng(0)
    drawn = random_agreement(scores, 2, 400, rng)
    every = [rank_agreement(scores, [f"t{a}", f"t{b}"]) for a in range(5) for b in range(a)]
    assert set(np.round(drawn, 9)) <= set(np.round(every, 9))


def corpus(count=30):
    texts = {f"d{i}": f"text {i}" for i in range(count)}
    return Judged(texts, {"q": "query", "p": "other"}, {"q": {"d3": 1, "d29": 1}, "p": {"d1": 2}}, {})


def test_hard_negatives_keep_the_union_and_all_that_is_relevant():
    task = Retrieval("r", {"en": corpus()})
    first = {"en": {"q": ["d0", "d1", "d2"], "p": ["d5", "d6", "d7"]}}
    second = {"en": {"q": ["d1", "d9", "d8"], "p": ["d1", "d5", "d2"]}}
    cut = hard_negatives(task, [first, second], top=2)
    data = cut.data["en"]
    assert cut.name == "rHardNegatives"
    assert data.candidates == {"q": ("d0", "d1", "d3", "d9", "d29"), "p": ("d1", "d5", "d6")}
    assert set(data.corpus) == {"d0", "d1", "d3", "d5", "d6", "d9", "d29"}
    assert (scored_pairs(task), scored_pairs(cut)) == (60, 8)
    with pytest.raises(InputError, match="lacks query 'p'"):
        hard_negatives(task, [{"en": {"q": ["d0"]}}], top=2)
    with pytest.raises(InputError, match="at least one ranking"):
        hard_negatives(task, [], top=2)


def test_the_curve_of_cut_corpora():
    from .tasks.letters import Letters, all_tasks

    task = all_tasks()["Retrieval"]
    models = {f"{noise}": (lambda _, noise=noise: Letters(noise)) for noise in (0.1, 1.0, 2.0, 6.0)}
    curve = cut_curve([task], models, pool=["0.1", "2.0"], tops=(1, 3, 40))
    assert curve["top"] == [1.0, 3.0, 40.0]
    assert curve["pairs"] == sorted(curve["pairs"]) and curve["pairs"][0] < 0.2
    # a pool of all 40 documents is the whole corpus
    assert (curve["pairs"][-1], curve["agreement"][-1]) == (1.0, 1.0)
    assert (curve["pool_shift"][-1], curve["other_shift"][-1]) == (0.0, 0.0)
    # who did not build the pool meets fewer of its own mistakes there
    assert curve["other_shift"][0] > curve["pool_shift"][0] >= 0
    with pytest.raises(InputError, match="a pool out of them"):
        cut_curve([task], models, pool=["nobody"])

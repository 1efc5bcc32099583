"""Tasks: closed forms, per-item values whose mean is the metric, and bad data in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, v_measure_score

from isometry.errors import InputError, ShapeError
from isometry.evaluation.tasks import (
    KINDS,
    STS,
    BitextMining,
    Classification,
    Clustering,
    GradedPairs,
    Judged,
    LabelledPairs,
    LabelledTexts,
    PairClassification,
    ParallelTexts,
    Reranking,
    Retrieval,
    TrainTest,
    fingerprint,
)
from isometry.evaluation.tasks.bitext_mining import f1_items
from isometry.evaluation.tasks.classification import drawn_rows
from isometry.evaluation.tasks.clustering import cluster_items, v_measure_influence
from isometry.evaluation.tasks.pair_classification import average_precision_items
from isometry.evaluation.tasks.sts import spearman_items

from .letters import Letters, all_tasks


class Table:
    """Looks vectors up; queries may have others."""

    def __init__(self, **vectors):
        self.vectors = {name: np.asarray(vector, np.float32) for name, vector in vectors.items()}

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        return np.array([self.vectors[text] for text in inputs])


def numbers(draw, size, kinds):
    return np.array(draw(st.lists(st.integers(0, kinds), min_size=size, max_size=size)), float)


@st.composite
def two_columns(draw, kinds=8):
    size = draw(st.integers(4, 40))
    return numbers(draw, size, kinds), numbers(draw, size, kinds)


@given(two_columns())
@settings(max_examples=60, deadline=None)
def test_spearman_items_have_the_correlation_as_mean(columns):
    x, y = columns
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        with pytest.raises(InputError, match="are equal"):
            spearman_items(x, y)
        return
    assert spearman_items(x, y).mean() == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@given(two_columns())
@settings(max_examples=60, deadline=None)
def test_average_precision_items_have_it_as_mean(columns):
    scores, labels = columns[0], (columns[1] > 3).astype(int)
    if labels.sum() == 0:
        return
    assert average_precision_items(scores, labels).mean() == pytest.approx(average_precision_score(labels, scores))


def weighted(values, statistic, step=1e-6):
    """Pseudo-values by definition: n times the derivative by each item's weight, from a finite difference."""
    n = len(values[0])
    plain = statistic(np.ones(n))
    found = np.empty(n)
    for row in range(n):
        weights = np.ones(n)
        weights[row] += step
        found[row] = plain + n * (statistic(weights) - plain) / step
    return found


def weighted_spearman(x, y):
    def ranks(values, w):
        below = (w[None, :] * (values[None, :] < values[:, None])).sum(axis=1)
        return (below + (w[None, :] * (values[None, :] == values[:, None])).sum(axis=1) / 2) / w.sum()

    def statistic(w):
        f, g = ranks(x, w), ranks(y, w)
        f, g = f - (w * f).sum() / w.sum(), g - (w * g).sum() / w.sum()
        return (w * f * g).sum() / np.sqrt((w * f * f).sum() * (w * g * g).sum())

    return statistic


def test_pseudo_values_are_the_derivatives_they_claim_to_be():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, 30).astype(float), rng.standard_normal(30)
    y[::3] = x[::3]
    found = spearman_items(x, y)
    assert found == pytest.approx(weighted((x, y), weighted_spearman(x, y)), abs=1e-4)
    labels = (rng.random(30) < 0.4).astype(int)
    expected = weighted((x,), lambda w: average_precision_score(labels, x, sample_weight=w))
    assert average_precision_items(x, labels) == pytest.approx(expected, abs=1e-4)
    a, b = rng.integers(0, 3, 30), rng.integers(0, 4, 30)

    def v_measure(w):
        table = np.zeros((3, 4))
        np.add.at(table, (a, b), w)
        p = table / table.sum()
        entropy = lambda q: -(q[q > 0] * np.log(q[q > 0])).sum()  # noqa: E731
        total = entropy(p.sum(axis=0)) + entropy(p.sum(axis=1))
        return 2 * (total - entropy(p)) / total

    value, influence = v_measure_influence(a, b)
    assert value == pytest.approx(v_measure_score(a, b))
    assert value + influence == pytest.approx(weighted((a,), v_measure), abs=1e-4)


def test_pseudo_values_tell_the_standard_error_of_a_bootstrap():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300)
    y = np.round(x + rng.standard_normal(300))
    rows = rng.integers(0, 300, (1500, 300))
    drawn = np.array([spearmanr(x[r], y[r]).statistic for r in rows]).std()
    assert spearman_items(x, y).std() / np.sqrt(300) == pytest.approx(drawn, rel=0.08)
    labels = (y > 0.5).astype(int)
    drawn = np.array([average_precision_score(labels[r], x[r]) for r in rows]).std()
    assert average_precision_items(x, labels).std() / np.sqrt(300) == pytest.approx(drawn, rel=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_the_items_is_the_value(kind):
    task = all_tasks()[kind]
    result = task.evaluate(Letters())
    assert (result.kind, result.task) == (kind, task.name)
    assert result.per_item.mean() == pytest.approx(result.value)
    assert task.evaluate(Letters()).per_item.tolist() == result.per_item.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_are_those_that_are_encoded(kind):
    task, asked = all_tasks()[kind], set()

    class Spy(Letters):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            asked.update(inputs)
            return super().encode(inputs)

    task.evaluate(Spy())
    assert asked == set(task.texts())


def test_a_fingerprint_changes_with_data_and_settings():
    marks = {fingerprint(task) for task in all_tasks().values()}
    assert len(marks) == 7 and marks == {fingerprint(task) for task in all_tasks().values()}
    first = Clustering("c", {"en": LabelledTexts(("a", "b"), (("x",), ("y",)))})
    assert fingerprint(first) != fingerprint(Clustering("c", first.data, draws=5))
    assert fingerprint(first) != fingerprint(Clustering("c", {"en": LabelledTexts(("a", "c"), (("x",), ("y",)))}))


def test_languages_count_alike_whatever_their_size():
    pairs = lambda n: GradedPairs(  # noqa: E731
        tuple(f"x{i}" for i in range(n)), tuple(f"y{i}" for i in range(n)), tuple(float(i) for i in range(n))
    )
    turned = {f"x{i}": [1, 0] for i in range(9)} | {f"y{i}": [np.cos(1 - i / 9), np.sin(1 - i / 9)] for i in range(9)}
    other = GradedPairs(("x0", "x1", "x2"), ("y0", "y1", "y2"), (3.0, 2.0, 1.0))
    result = STS("s", {"de": pairs(9), "fr": other}).evaluate(Table(**turned))
    assert (result.subsets["de"].value, result.subsets["fr"].value) == (pytest.approx(1), pytest.approx(-1))
    assert result.value == pytest.approx(0)
    assert len(result.per_item) == 12
    assert result.per_item.mean() == pytest.approx(0)


def test_reversed_ranking_has_the_closed_form_of_ndcg():
    corpus = {f"d{i}": f"d{i}" for i in range(10)}
    vectors = {f"d{i}": [np.cos(i / 10), np.sin(i / 10)] for i in range(10)} | {"q": [1, 0]}
    worst = Judged(corpus, {"q": "q"}, {"q": {"d9": 1}}, {})
    assert Retrieval("r", {"en": worst}).evaluate(Table(**vectors)).value == pytest.approx(1 / np.log2(11))
    reranked = Judged(corpus, {"q": "q"}, {"q": {"d1": 1, "d3": 1}}, {"q": ("d3", "d2", "d1")})
    assert Reranking("k", {"en": reranked}).evaluate(Table(**vectors)).value == pytest.approx((1 + 2 / 3) / 2)
    # candidates bind a retrieval task too
    cut = Judged(corpus, {"q": "q"}, {"q": {"d9": 1}}, {"q": ("d9", "d8")})
    assert Retrieval("r", {"en": cut}).evaluate(Table(**vectors)).value == pytest.approx(1 / np.log2(3))


def test_queries_are_encoded_as_queries():
    class TwoWays(Table):
        def encode_queries(self, texts):
            return self.encode([f"query {text}" for text in texts])

    vectors = TwoWays(**{"a": [1, 0], "b": [0, 1], "query a": [0, 1]})
    judged = Judged({"1": "a", "2": "b"}, {"q": "a"}, {"q": {"2": 1}}, {})
    assert Retrieval("r", {"en": judged}).evaluate(vectors).value == 1.0


def test_perfect_vectors_classify_and_cluster_without_error():
    texts = tuple(f"{label}{i}" for label in "abc" for i in range(20))
    labels = tuple(text[0] for text in texts)
    table = Table(**{text: np.eye(3)["abc".index(text[0])] for text in texts})
    data = TrainTest(texts, labels, texts, labels)
    assert Classification("f", {"en": data}).evaluate(table).value == 1.0
    clustered = Clustering("c", {"en": LabelledTexts(texts, tuple((label,) for label in labels))})
    assert clustered.evaluate(table).value == pytest.approx(1.0)


def test_v_measure_does_not_depend_on_the_names_of_labels():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    names = rng.integers(0, 3, 60)
    first = cluster_items(vectors, [(f"{name}",) for name in names], 2, 50, 42)
    other = cluster_items(vectors, [(f"{(name + 1) % 3}",) for name in names], 2, 50, 42)
    assert first[0] == pytest.approx(other[0])


def test_draws_have_eight_of_each_label_and_repeat():
    labels = ["a", "b", "c"] * 30 + ["d"] * 3
    draws = drawn_rows(labels, 4, 8, seed=42)
    assert draws == drawn_rows(labels, 4, 8, seed=42)
    for rows in draws:
        assert len(set(rows)) == len(rows)
        counts = {label: [labels[row] for row in rows].count(label) for label in "abcd"}
        assert counts == {"a": 8, "b": 8, "c": 8, "d": 3}
    assert len({tuple(rows) for rows in draws}) == 4


def test_bitext_items_by_hand():
    # row 2 claims translation 0 too, which halves what row 0 earns there
    assert f1_items(np.array([0, 1, 0])).tolist() == [2 / 3, 1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GradedPairs(("a",), ("b", "c"), (1.0,)), "of one length"),
        (lambda: GradedPairs((), (), ()), "not empty"),
        (lambda: LabelledPairs(("a", "b"), ("b", "c"), (1, 1)), "0 and 1, both"),
        (lambda: TrainTest(("a",), ("x",), ("b",), ("x",)), "one label only"),
        (lambda: LabelledTexts(("a",), ((),)), "a label is empty"),
        (lambda: ParallelTexts(("a",), ()), "of one length"),
        (lambda: Judged({"d": "x"}, {"q": "y"}, {"q": {"d": 0}}, {}), "no relevant document"),
        (lambda: Judged({"d": "x"}, {"q": "y"}, {"q": {"d": 1}}, {"q": ("e",)}), "is not in the corpus"),
        (lambda: Reranking("k", {"en": Judged({"d": "x"}, {"q": "y"}, {"q": {"d": 1}}, {})}), "has no candidates"),
    ],
)
def test_bad_data_is_one_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_bad_vectors_name_the_task():
    task = BitextMining("b", {"de-en": ParallelTexts(("a", "b"), ("b", "a"))})
    with pytest.raises(InputError, match="task 'b', subset 'de-en': the encoder gave NaN or infinity for text 2 of 2"):
        task.evaluate(Table(a=[1, 0], b=[np.nan, 0]))
    same = STS("s", {"en": GradedPairs(("a", "b", "a"), ("b", "a", "a"), (1.0, 2.0, 3.0))})
    with pytest.raises(InputError, match="task 's', subset 'en': all similarities are equal"):
        same.evaluate(Table(a=[1, 0], b=[1, 0]))
    one = PairClassification("p", {"en": LabelledPairs(("a", "b"), ("b", "a"), (0, 1))})

    class Short(Table):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            return super().encode(inputs[:1])

    with pytest.raises((ShapeError, InputError), match=r"shape \(1, 2\) for 2 texts"):
        one.evaluate(Short(a=[1, 0], b=[0, 1]))

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, ShapeError
from isometry.evaluation import (
    RetrievalResult,
    RetrievalScores,
    bootstrap_interval,
    compare_runs,
    exact_rankings,
    paired_bootstrap,
    write_report,
)


def result(name, shift=0.0, n=40, seed=0):
    values = np.clip(np.random.default_rng(seed).random((2, n)) + shift, 0, 1)
    scores = RetrievalScores(tuple(map(str, range(n))), {"ndcg@10": values[0], "map": values[1]}, 3, 0.25)
    return RetrievalResult.of(name, "made up (test)", scores)


def test_intervals_are_over_queries():
    found = result("a")
    mean, low, high = bootstrap_interval(found.scores.values["map"])
    assert found.intervals["map"] == pytest.approx((float(mean), float(low), float(high)))
    document = found.to_dict()
    assert document["metrics"]["map"] == {"value": float(mean), "interval": pytest.approx([float(low), float(high)])}
    assert (document["queries"], document["queries_without_relevant"], document["unjudged@10"]) == (40, 3, 0.25)


def test_one_query_has_no_interval():
    found = RetrievalResult.of("a", "d", RetrievalScores(("q",), {"map": np.array([0.4])}, 0, 0.0))
    assert found.intervals == {"map": (0.4, 0.4, 0.4)}


def test_comparison_is_paired_and_corrected():
    first, second = result("a", 0.05, seed=1), result("b", seed=1)
    ndcg, average = compare_runs(first, second)
    expected = paired_bootstrap(first.scores.values["ndcg@10"], second.scores.values["ndcg@10"])
    assert ndcg.comparison == expected
    assert ndcg.p_holm == pytest.approx(min(1, 2 * min(ndcg.comparison.p, average.comparison.p)))
    assert ndcg.comparison.effect > 0
    with pytest.raises(InputError, match="other queries"):
        compare_runs(first, result("c", n=39))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000))
def test_batches_rank_as_the_whole(n, d, k, batch, seed):
    rng = np.random.default_rng(seed)
    # few distinct values make ties, which must keep the order of the documents
    documents, queries = rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (4, d))
    ids = [f"d{i}" for i in range(n)]
    pieces = [(ids[i : i + batch], documents[i : i + batch]) for i in range(0, n, batch)]
    found = exact_rankings(queries, pieces, k)

    def unit(x):
        return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    scores = unit(queries) @ unit(documents).T
    for line, row in zip(found, scores, strict=True):
        assert len(line) == min(k, n)
        places = [int(name[1:]) for name in line]
        assert len(set(places)) == len(places)
        np.testing.assert_allclose(row[places], np.sort(row)[::-1][:k], atol=1e-6)


def test_rankings_refuse_what_is_no_vector():
    with pytest.raises(ShapeError, match="finite vectors"):
        exact_rankings(np.full((1, 2), np.nan), [], 3)
    with pytest.raises(ShapeError, match="2 documents have vectors"):
        exact_rankings(np.ones((1, 2)), [(["a", "b"], np.ones((2, 3)))], 3)


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_report_is_whole_and_repeatable(tmp_path, suffix):
    results = [result("our <model>", 0.1), result("baseline", seed=1)]
    first = write_report(tmp_path / f"a{suffix}", results, {"mode": "vector & text"}).read_bytes()
    second = write_report(tmp_path / f"b{suffix}", results, {"mode": "vector & text"}).read_bytes()
    assert first == second
    text = first.decode()
    assert len(re.findall("data:image/png;base64,iVBOR", text)) == 2
    assert not re.search(r'(src|href)="(?!data:)', text)
    low, high = results[0].intervals["map"][1:]
    assert f"[{low:.3f}, {high:.3f}]" in text
    assert "3 without a relevant document left out" in text
    if suffix == ".html":
        assert "our &lt;model&gt;" in text
        assert "vector &amp; text" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_report_of_one_run_and_of_none(tmp_path):
    text = write_report(tmp_path / "one.html", [result("a")]).read_text()
    assert text.count("data:image/png") == 1
    with pytest.raises(InputError, match="at least one run"):
        write_report(tmp_path / "x.html", [])
    with pytest.raises(InputError, match=r"\.html or \.md"):
        write_report(tmp_path / "x.pdf", [result("a")])

"""Paper 25's recipe: its figures by hand, its file format, and a whole tiny proof on real papers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from isometry.recipes import fanns
from isometry.recipes.fanns import (
    AGAINST,
    CLAIMS,
    EVEN,
    FAR,
    GOAL,
    GRAPH,
    HALF,
    LEAST,
    PLANNER,
    RECIPE,
    SHARE,
    SINGLE,
    _by_span,
    _paper,
    _run,
    arxiv_attributes,
    read_fvecs,
)


def test_speeds_and_recalls_of_each_span():
    found = {"a": np.array([[1.0, 0.001], [0.5, 0.003], [0.0, 0.004]])}
    speeds, recalls = _by_span(found, np.array([0, 0, 3]))
    assert speeds == {("a", 0): pytest.approx(500), ("a", 3): pytest.approx(250)}
    assert recalls == {("a", 0): 0.75, ("a", 3): 0.0}


def test_recall_counts_what_was_to_be_found():
    class One:
        mask = np.ones(4, bool)

    found = _run(lambda query, mask: np.array([2, 3, -1]), np.ones((1, 2)), [(0, One(), np.array([2, 1, 3, 0]))])
    assert found[0, 0] == 0.5 and found[0, 1] >= 0


def test_attributes_of_papers():
    table = pa.table({
        "created": ["1970-01-03", "2000-01-01"], "authors": ["A. Noether, K. Gödel", None],
        "categories": ["math.LO cs.LO", "cs.IR"], "primary_category": ["math.LO", "cs.IR"],
    })  # fmt: skip
    found = arxiv_attributes(table)
    assert found["ordered"]["created"].tolist() == [2, 10957] and found["ordered"]["authors_count"].tolist() == [2, 0]
    assert found["sets"] == {
        "categories": [["math.LO", "cs.LO"], ["cs.IR"]],
        "authors": [["A. Noether", "K. Gödel"], []],
    }


def test_the_papers_own_files(tmp_path):
    def fvecs(name, rows):
        rows = np.asarray(rows, "<f4")
        np.concatenate([np.full((len(rows), 1), rows.shape[1], "<i4").view("<f4"), rows], axis=1).tofile(
            tmp_path / name
        )

    fvecs("database_vectors.fvecs", [[3, 4], [0, 2]])
    fvecs("query_vectors.fvecs", [[1, 0]])
    lines = [{"year": 1999, "topic": "a", "authors": ["x"]}, {"year": 2001, "topic": None, "authors": []}]
    (tmp_path / "database_attributes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.testing.assert_allclose(read_fvecs(tmp_path / "database_vectors.fvecs"), [[0.6, 0.8], [0, 1]])
    vectors, attributes, queries, _ = _paper(tmp_path)
    assert vectors.shape == (2, 2) and queries.tolist() == [[1, 0]]
    assert set(attributes["exact"]) == {"topic"} and set(attributes["sets"]) == {"authors"}
    assert attributes["ordered"]["year"].tolist() == [1999, 2001]


def test_tiny_proof_states_its_claims(shared_data):
    evidence = RECIPE.prove("tiny", data=shared_data)
    assert tuple(line.claim for line in evidence.claims) == CLAIMS
    found = {(one.claim.metric, one.claim.treatment, one.claim.baseline): one.values for one in evidence.claims}
    assert all(0 <= value <= 1 for value in found[SHARE, SINGLE, HALF][SINGLE])
    assert found[LEAST, PLANNER, GOAL][GOAL] == [0.95] and found[SHARE, PLANNER, HALF][HALF] == [0.5]
    assert min(found[LEAST, PLANNER, GOAL][PLANNER]) >= 0.9  # at 1200 records nearly every choice is an exact scan
    assert len(found[FAR, EVEN, AGAINST][AGAINST]) == 3
    assert evidence.measured[f"recall, exact scan, {fanns.bucket_name(2)}"] == 1.0
    assert any(name.startswith(f"microseconds, {GRAPH}") for name in evidence.measured)

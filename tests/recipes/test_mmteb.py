"""Paper 20 at the smallest scale, its figures by hand, and the published names at full scale."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.evaluation import ScoreTable
from isometry.evaluation.mteb_adapter import mteb_scores, mteb_tasks
from isometry.recipes import load_recipe
from isometry.recipes._zoo import Held, bm25, plain_zoo
from isometry.recipes.mmteb import FULL_BENCHMARK, FULL_MODELS, FULL_PUBLISHED, _swaps

from ..evaluation.tasks.letters import Letters, all_tasks


def test_bm25_by_hand():
    scores = bm25(["a", "b c"], ["a a b", "b", "c d"])
    # lengths 3, 1, 2 with mean 2; k1 1.2, b 0.75
    idf_a, idf_b = np.log1p(2.5 / 1.5), np.log1p(1.5 / 2.5)
    assert scores[0] == pytest.approx([idf_a * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 1.5)), 0, 0])
    assert scores[1, 1] == pytest.approx(idf_b * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 0.5)))
    assert scores[1, 2] == pytest.approx(idf_a * 2.2 / (1 + 1.2))


def test_borda_and_mean_can_disagree():
    # first wins twice by little and loses once by much
    values = np.array([[0.6, 0.6, 0.1], [0.5, 0.5, 0.9]])
    table = ScoreTable(("first", "second"), ("a", "b", "c"), ("STS",) * 3, values)
    assert _swaps(table) == {"swaps": 1.0}
    assert _swaps(ScoreTable(("x", "y"), ("a",), ("STS",), np.array([[0.1], [0.2]]))) == {"swaps": 0.0}


def test_held_vectors_and_plain_encoders():
    held = Held({"a": 0, "b": 1}, np.eye(2, dtype=np.float16), lambda x: 2 * x)
    assert held.encode(["b", "a", "b"]).tolist() == [[0, 2], [2, 0], [0, 2]]
    assert {"static", "random", "words 32", "characters 32", "LSA 16"} == set(plain_zoo((32,), (16,)))


def test_mmteb_at_the_smallest_scale(shared_data):
    evidence = load_recipe("mmteb").prove("tiny", data=shared_data)
    assert evidence.paper == 20 and [line.verdict for line in evidence.claims] == ["supports", "supports"]
    assert (evidence.measured["models"], evidence.measured["tasks"]) == (10, 8)
    # whoever builds the pool meets all of its own mistakes there, and gains least from the cut
    pooled, others = (
        evidence.measured[f"hard_negatives_lift_ndcg_of_the_{who}_by"] for who in ("pooled_model", "others")
    )
    assert pooled < others


def test_the_published_names_are_real():
    mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'isometry[mteb]'")
    assert len(FULL_MODELS) == len(set(FULL_MODELS)) == 12
    for name in FULL_MODELS:
        assert mteb.get_model_meta(name).name == name
    assert len(mteb_tasks([FULL_PUBLISHED])) == 41
    assert len(mteb_tasks([FULL_BENCHMARK])) == 56


def test_scores_are_read_from_a_results_folder(tmp_path):
    mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'isometry[mteb]'")
    from isometry.errors import StorageError
    from isometry.evaluation.suite_run import run_model
    from isometry.evaluation.tasks import fingerprint

    from ..evaluation.tasks.test_against_mteb import mteb_task

    names = []
    for noise in (0.1, 2.0):
        encoder = Letters(noise)
        tasks = [(task, fingerprint(task)) for task in all_tasks().values()]
        run_model("letters", encoder, tasks, None, tmp_path)
        names.append("isometry/letters")
    read = mteb.cache.ResultCache(tmp_path).load_results(include_remote=False).model_results
    assert len(read) == 2 and mteb_task(all_tasks()["STS"]).metadata.type == "STS"
    with pytest.raises(StorageError, match="could not be fetched"):
        mteb_scores(["isometry/nobody"], mteb_tasks(["STS12"]), tmp_path / "empty")

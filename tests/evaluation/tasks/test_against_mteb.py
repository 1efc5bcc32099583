"""Every kind of task gives the figures of mteb itself, on the same data and vectors."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from isometry.evaluation.mteb_adapter import MtebEncoder, mteb_tasks, run_mteb
from isometry.evaluation.tasks.pair_classification import average_precision_items, best_accuracy, best_f1

from .letters import Letters, all_tasks

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'isometry[mteb]'")
datasets = pytest.importorskip("datasets")

NAMES = {
    "STS": "cosine_spearman",
    "PairClassification": "max_ap",
    "Retrieval": "ndcg_at_10",
    "Reranking": "map_at_1000",
    "Clustering": "v_measure",
    "Classification": "accuracy",
    "BitextMining": "f1",
}


def mteb_task(task):
    """The same data as a task of mteb's own class."""
    from mteb import abstasks
    from mteb.abstasks.task_metadata import TaskMetadata

    bases = {
        "STS": abstasks.AbsTaskSTS,
        "PairClassification": abstasks.AbsTaskPairClassification,
        "Retrieval": abstasks.AbsTaskRetrieval,
        "Reranking": abstasks.AbsTaskRetrieval,
        "Clustering": abstasks.AbsTaskClustering,
        "Classification": abstasks.AbsTaskClassification,
        "BitextMining": abstasks.AbsTaskBitextMining,
    }
    (data,) = task.data.values()

    def load_data(self, **_):
        self.dataset = (
            {"test": rows(task.kind, data)}
            if task.kind not in ("Retrieval", "Reranking")
            else {"default": {"test": rows(task.kind, data)}}
        )
        if task.kind == "Classification":
            train = datasets.Dataset.from_dict({"text": list(data.train), "label": list(data.train_labels)})
            self.dataset = datasets.DatasetDict({"train": train, "test": rows(task.kind, data)})
        self.data_loaded = True

    more = {}
    if task.kind == "Clustering":
        more = {"max_fraction_of_documents_to_embed": None, "n_clusters": 3, "max_documents_per_cluster": 80}
    if task.kind == "Classification":
        more = {"n_experiments": 3}
    metadata = TaskMetadata(
        name=f"Letters{task.kind}",
        description="made of letters",
        type=task.kind,
        main_score=NAMES[task.kind],
        eval_langs=["eng-Latn"],
        eval_splits=["test"],
        dataset={"path": "none/here", "revision": "1"},
    )
    return type(f"Letters{task.kind}", (bases[task.kind],), {"metadata": metadata, "load_data": load_data, **more})()


def rows(kind, data):
    make = datasets.Dataset.from_dict
    if kind == "STS":
        return make({"sentence1": list(data.first), "sentence2": list(data.second), "score": list(data.grades)})
    if kind == "PairClassification":
        return make({"sentence1": list(data.first), "sentence2": list(data.second), "labels": list(data.labels)})
    if kind == "BitextMining":
        return make({"sentence1": list(data.first), "sentence2": list(data.second)})
    if kind == "Clustering":
        return make({"sentences": list(data.inputs), "labels": [list(label) for label in data.labels]})
    if kind == "Classification":
        return make({"text": list(data.test), "label": list(data.test_labels)})
    return {
        "corpus": make({"id": list(data.corpus), "text": list(data.corpus.values()), "title": [""] * len(data.corpus)}),
        "queries": make({"id": list(data.queries), "text": list(data.queries.values())}),
        "relevant_docs": {query: dict(grades) for query, grades in data.judgements.items()},
        "top_ranked": {query: list(ids) for query, ids in data.candidates.items()} or None,
    }


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_a_task_gives_the_figures_of_mteb(kind, tmp_path):
    logging.disable(logging.WARNING)
    try:
        ours = all_tasks()[kind]
        found = mteb.evaluate(
            MtebEncoder(Letters()), mteb_task(ours), cache=None, show_progress_bar=False, co2_tracker=False
        )
    finally:
        logging.disable(logging.NOTSET)
    (theirs,) = found.task_results[0].scores["test"]
    result = ours.evaluate(Letters())
    assert result.metric == NAMES[kind]
    # mteb rounds retrieval figures to five places
    assert result.value == pytest.approx(theirs["main_score"], abs=6e-6)
    assert 0.2 < result.value < 0.99  # a figure that could be wrong
    shared = set(result.subsets["en"].metrics) & set(theirs)
    assert len(shared) >= {"Clustering": 2, "BitextMining": 2, "Classification": 2}.get(kind, 4)
    for name in shared:
        assert result.subsets["en"].metrics[name] == pytest.approx(theirs[name], abs=6e-6), name


def test_run_mteb_keeps_and_finds_its_results(tmp_path):
    encoder = Letters()
    task = mteb_task(all_tasks()["STS"])
    first = run_mteb(encoder, [task], tmp_path)
    assert first["LettersSTS"] == pytest.approx(all_tasks()["STS"].evaluate(Letters()).value)
    seen = encoder.seen
    assert run_mteb(encoder, [task], tmp_path) == pytest.approx(first, abs=1e-6)  # files hold six places
    assert encoder.seen == seen
    assert [path.name for path in tmp_path.rglob("LettersSTS.json")] == ["LettersSTS.json"]


def test_benchmarks_and_tasks_are_found_by_name():
    from isometry.errors import NotFoundError

    assert len(mteb_tasks(["MTEB(eng, v2)"])) == 41
    assert [task.metadata.name for task in mteb_tasks(["STS12", "NFCorpus"])] == ["STS12", "NFCorpus"]
    with pytest.raises(NotFoundError, match="neither a benchmark nor a task 'STS1b'"):
        mteb_tasks(["STS1b"])


def test_without_a_network_one_sentence(tmp_path):
    from isometry.errors import StorageError

    with pytest.raises(StorageError, match="'STS12' could not be loaded"):
        run_mteb(Letters(), mteb_tasks(["STS12"]), tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_pair_metrics_with_ties(seed):
    from mteb.abstasks import AbsTaskPairClassification as Theirs
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, 40).astype(float), rng.integers(0, 2, 40)
    me = SimpleNamespace()
    assert best_accuracy(scores, labels) == Theirs._find_best_acc_and_threshold(me, list(scores), labels, True)[0]
    assert best_f1(scores, labels) == pytest.approx(
        Theirs._find_best_f1_and_threshold(me, list(scores), labels, True)[0]
    )
    assert average_precision_items(scores, labels).mean() == pytest.approx(average_precision_score(labels, scores))

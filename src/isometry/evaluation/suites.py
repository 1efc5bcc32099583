"""Suites of tasks over local files: which data sets, which split, how many of their rows.

A suite's files are found by whoever runs it (`find(name) -> path`), so that this room knows no catalogue. Rows are
drawn by a fixed seed of each task, never by position in a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from isometry.errors import InputError, NotFoundError
from isometry.evaluation.tasks import (
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
    Task,
    TrainTest,
)

Find = Callable[[str], Path]
ENGLISH = "en"


@dataclass(frozen=True)
class SuiteTask:
    """A task that is not loaded yet.

    Args:
        name, kind: as the task's.
        file: its data set (the first, where it needs several), by its catalogue name.
        load: reads it; the argument finds a data set's file by name.
    """

    name: str
    kind: str
    file: str
    load: Callable[[Find], Task]


def suite(name: str, only: Sequence[str] = ()) -> tuple[SuiteTask, ...]:
    """The tasks of a suite, or those of them that are named.

    Raises:
        NotFoundError: no such suite or task; the message says which there are or which is near.
    """
    if name not in SUITES:
        raise NotFoundError(f"no suite '{name}': there are {', '.join(SUITES)}, and mteb's benchmarks by their names")
    tasks = SUITES[name]
    names = [task.name for task in tasks]
    for asked in only:
        if asked not in names:
            near = difflib.get_close_matches(asked, names, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(names)}"
            raise NotFoundError(f"suite '{name}' has no task '{asked}'; {hint}")
    return tuple(task for task in tasks if not only or task.name in only)


def _table(find: Find, file: str, **equal: Any) -> pa.Table:
    """Rows of a Parquet file whose columns equal what is given."""
    path = find(file)
    try:
        table = pq.read_table(path)
        for column, value in equal.items():
            table = table.filter(pc.equal(table[column], value))
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be read as '{file}': {error}") from error
    if not len(table):
        raise InputError(f"{path} has no row with {equal}: it is not the '{file}' that this suite knows")
    return table


def _drawn(count: int, limit: int | None, seed: int = 0) -> np.ndarray:
    """Row numbers, ascending: all, or `limit` of them by seed."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def _columns(table: pa.Table, names: Sequence[str], limit: int | None = None, seed: int = 0) -> list[tuple[Any, ...]]:
    taken = table.take(pa.array(_drawn(len(table), limit, seed)))
    return [tuple(taken[name].to_pylist()) for name in names]


def sts(
    find: Find, name: str, source: str, score: str = "score", limit: int | None = None, seed: int = 0, **equal: Any
) -> STS:
    """Graded pairs of one file."""
    table = _table(find, source, **equal)
    return STS(name, {ENGLISH: GradedPairs(*_columns(table, ("sentence1", "sentence2", score), limit, seed))})


def sts_multi(find: Find, name: str, languages: Sequence[str] = (), limit: int | None = None, seed: int = 0) -> STS:
    """STS-B in other languages, the test split, a subset each."""
    table = _table(find, "text/stsb-multi.parquet", split="test")
    languages = languages or sorted(set(table["lang"].to_pylist()))
    names = ("sentence1", "sentence2", "score")
    parts = {one: table.filter(pc.equal(table["lang"], one)) for one in languages}
    return STS(name, {one: GradedPairs(*_columns(part, names, limit, seed)) for one, part in parts.items()})


def pairs(find: Find, name: str, dataset: str, limit: int | None = None, seed: int = 0) -> PairClassification:
    """Paraphrases: MRPC or Quora, the test split."""
    table = _table(find, "text/paraphrase.parquet", dataset=dataset, split="test")
    found = _columns(table, ("sentence1", "sentence2", "label"), limit, seed)
    return PairClassification(name, {ENGLISH: LabelledPairs(*found)})


def answers(find: Find, name: str, source: str, limit: int | None = None, seed: int = 0) -> Reranking:
    """Answer sentences of each question of the test split; questions without both kinds of answers are left out."""
    table = _table(find, source, split="test")
    groups: dict[str, list[tuple[str, int]]] = {}
    for row in table.select(["question", "answer", "label"]).to_pylist():
        groups.setdefault(row["question"], []).append((row["answer"], row["label"]))
    kept = [(question, rows) for question, rows in groups.items() if {label for _, label in rows} == {0, 1}]
    kept = [kept[i] for i in _drawn(len(kept), limit, seed)]
    corpus: dict[str, str] = {}
    queries, judgements, candidates = {}, {}, {}
    for q, (question, rows) in enumerate(kept):
        ids = [f"q{q}a{a}" for a in range(len(rows))]
        corpus.update(zip(ids, (answer for answer, _ in rows), strict=True))
        queries[f"q{q}"] = question
        judgements[f"q{q}"] = {id: int(label) for id, (_, label) in zip(ids, rows, strict=True)}
        candidates[f"q{q}"] = tuple(ids)
    return Reranking(name, {ENGLISH: Judged(corpus, queries, judgements, candidates)})


def collection(
    find: Find, name: str, dataset: str, documents: int | None = None, queries: int | None = None, seed: int = 0
) -> Retrieval:
    """A test collection: its test queries, and all documents or `documents` of them with every relevant one among these.

    A document is its title and text, a line each.
    """
    files = {part: f"text/retrieval-{part}.parquet" for part in ("docs", "queries", "qrels")}
    docs, qrels = (_table(find, files[part], dataset=dataset).to_pylist() for part in ("docs", "qrels"))
    asked = _table(find, files["queries"], dataset=dataset, split="test").to_pylist()
    judgements: dict[str, dict[str, int]] = {}
    for row in qrels:
        judgements.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    asked = [row for row in asked if judgements.get(row["query_id"])]
    asked = [asked[i] for i in _drawn(len(asked), queries, seed)]
    wanted = {doc for row in asked for doc in judgements[row["query_id"]]}
    others = [i for i, row in enumerate(docs) if row["doc_id"] not in wanted]
    left = None if documents is None else max(0, documents - len(wanted))
    chosen = {others[i] for i in _drawn(len(others), left, seed)}
    corpus = {
        row["doc_id"]: "\n".join(part for part in (row["title"], row["text"]) if part and part.strip())
        for i, row in enumerate(docs)
        if row["doc_id"] in wanted or i in chosen
    }
    graded = {
        row["query_id"]: {doc: grade for doc, grade in judgements[row["query_id"]].items() if doc in corpus}
        for row in asked
    }
    return Retrieval(
        name, {ENGLISH: Judged(corpus, {row["query_id"]: row["text"] for row in asked}, graded, candidates={})}
    )


def classes(
    find: Find,
    name: str,
    dataset: str,
    limit: int | None = None,
    draws: int = 10,
    labels: int | None = None,
    seed: int = 0,
) -> Classification:
    """Few-shot classification of one data set; `labels` keeps that many of its classes."""
    parts: list[tuple[str, ...]] = []
    kept: list[str] = []
    for split in ("train", "test"):
        table = _table(find, "text/classification.parquet", dataset=dataset, split=split)
        if not kept:
            names = sorted(set(table["label"].to_pylist()))
            kept = [names[i] for i in _drawn(len(names), labels, seed)]
        table = table.filter(pc.is_in(table["label"], pa.array(kept, table["label"].type)))
        parts += _columns(table, ("text", "label"), limit if split == "test" else None, seed)
    return Classification(name, {ENGLISH: TrainTest(*parts)}, draws=draws)


def clusters(
    find: Find, name: str, dataset: str, limit: int = 2048, draws: int = 10, labels: int | None = None, seed: int = 0
) -> Clustering:
    """Clustering of test texts of a classification set; `labels` keeps that many of its classes."""
    table = _table(find, "text/classification.parquet", dataset=dataset, split="test")
    if labels is not None:
        names = sorted(set(table["label"].to_pylist()))
        kept = [names[i] for i in _drawn(len(names), labels, seed)]
        table = table.filter(pc.is_in(table["label"], pa.array(kept, table["label"].type)))
    texts, found = _columns(table, ("text", "label"), limit, seed)
    return Clustering(name, {ENGLISH: LabelledTexts(texts, tuple((label,) for label in found))}, draws)


def arxiv_clusters(find: Find, name: str, limit: int = 2048, draws: int = 10, seed: int = 0) -> Clustering:
    """Titles of papers by archive (cs, math, …) and, a level below, by primary category; categories of ≥ 20 papers."""
    table = _table(find, "arxiv/arxiv-small.parquet")
    titles, categories = _columns(table, ("title", "primary_category"))
    names, counts = np.unique(categories, return_counts=True)
    common = set(names[counts >= 20])
    rows = [i for i, category in enumerate(categories) if category in common]
    rows = [rows[i] for i in _drawn(len(rows), limit, seed)]
    labels = tuple((categories[i].split(".")[0], categories[i]) for i in rows)
    return Clustering(name, {ENGLISH: LabelledTexts(tuple(titles[i] for i in rows), labels)}, draws)


def tatoeba(
    find: Find, name: str, languages: Sequence[str] = (), limit: int | None = None, seed: int = 0
) -> BitextMining:
    """Sentences of other languages to their English translations, a subset a language (ISO 639-3)."""
    table = _table(find, "text/tatoeba.parquet")
    languages = languages or sorted(set(table["lang"].to_pylist()))
    parts = {one: table.filter(pc.equal(table["lang"], one)) for one in languages}
    data = {
        f"{one}-eng": ParallelTexts(*_columns(part, ("text", "english"), limit, seed)) for one, part in parts.items()
    }
    return BitextMining(name, data)


def multi30k(find: Find, name: str, limit: int | None = None, seed: int = 0) -> BitextMining:
    """English picture captions to German, French and Czech ones, test split of 2016."""
    table = _table(find, "text/multi30k.parquet", split="test_2016_flickr")
    data = {f"en-{one}": ParallelTexts(*_columns(table, ("en", one), limit, seed)) for one in ("de", "fr", "cs")}
    return BitextMining(name, data)


def xquad(
    find: Find,
    name: str,
    languages: Sequence[str] = (),
    across: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> Retrieval:
    """Questions to the paragraph that answers them, in the question's language or `across` to the English paragraphs."""
    table = _table(find, "text/xquad.parquet")
    everything = languages or sorted(set(table["lang"].to_pylist()))
    rows = {one: table.filter(pc.equal(table["lang"], one)).to_pylist() for one in {*everything, ENGLISH}}
    chosen = {rows[ENGLISH][i]["question_id"] for i in _drawn(len(rows[ENGLISH]), limit, seed)}
    data = {}
    for one in everything:
        if across and one == ENGLISH:
            continue
        corpus = {str(row["context_id"]): row["context"] for row in rows[ENGLISH if across else one]}
        asked = [row for row in rows[one] if row["question_id"] in chosen]
        data[f"{one}-{ENGLISH}" if across else one] = Judged(
            corpus,
            {row["question_id"]: row["question"] for row in asked},
            {row["question_id"]: {str(row["context_id"]): 1} for row in asked},
            candidates={},
        )
    return Retrieval(name, data)


_STSB, _STS, _SICK = "text/stsb.parquet", "text/sts12-15.parquet", "text/sick.parquet"
_CLASSES, _DOCS = "text/classification.parquet", "text/retrieval-docs.parquet"
_ARXIV = "arxiv/arxiv-small.parquet"
_SMALL_LANGUAGES = ("deu", "fra", "rus", "cmn", "tur", "ara")


def _task(kind: str, name: str, file: str, load: Callable[..., Any], **options: Any) -> SuiteTask:
    return SuiteTask(name, kind, file, partial(load, name=name, **options))


def english_tasks(
    sts_limit: int | None = None,
    pair_limit: int | None = None,
    questions: int | None = None,
    documents: Mapping[str, int | None] | None = None,
    queries: Mapping[str, int | None] | None = None,
    class_limit: int | None = None,
    draws: int = 10,
    labels: int | None = None,
    cluster_limit: int = 2048,
    seed: int = 0,
) -> tuple[SuiteTask, ...]:
    """The English tasks; limits thin them out. `labels` thins the classes of the two sets that have dozens of them."""
    documents, queries = documents or {}, queries or {}
    graded = {"limit": sts_limit, "seed": seed}
    tasks = [_task("STS", "STSB", _STSB, sts, source=_STSB, split="test", **graded)]
    tasks += [
        _task("STS", f"STS{year - 2000}", _STS, sts, source=_STS, split="test", year=year, **graded)
        for year in (2012, 2013, 2014, 2015)
    ]
    tasks += [_task("STS", "SICK-R", _SICK, sts, source=_SICK, split="test", score="relatedness", **graded)]
    for name, dataset in (("MRPC", "mrpc"), ("QuoraPairs", "quora")):
        tasks.append(
            _task(
                "PairClassification",
                name,
                "text/paraphrase.parquet",
                pairs,
                dataset=dataset,
                limit=pair_limit,
                seed=seed,
            )
        )
    for name, file in (("WikiQA", "text/wikiqa.parquet"), ("TrecQA", "text/trecqa.parquet")):
        tasks.append(_task("Reranking", name, file, answers, source=file, limit=questions, seed=seed))
    for name, dataset in (("Cranfield", "cranfield"), ("CISI", "cisi"), ("CACM", "cacm"), ("NFCorpus", "nfcorpus")):
        tasks.append(
            _task(
                "Retrieval",
                name,
                _DOCS,
                collection,
                dataset=dataset,
                documents=documents.get(dataset),
                queries=queries.get(dataset),
                seed=seed,
            )
        )
    sets = {"Banking77": "banking77", "CLINC150": "clinc150", "TrecQuestions": "trec-questions"}
    sets |= {"SST5": "sst5", "Subj": "subj", "MR": "mr", "AGNews": "ag-news"}
    for name, dataset in sets.items():
        many = labels if dataset in ("banking77", "clinc150") else None
        options: dict[str, Any] = {"limit": class_limit, "draws": draws, "labels": many, "seed": seed}
        tasks.append(_task("Classification", name, _CLASSES, classes, dataset=dataset, **options))
    options = {"limit": cluster_limit, "draws": draws, "seed": seed}
    for name, dataset in (("Banking77Clusters", "banking77"), ("AGNewsClusters", "ag-news")):
        many = labels if dataset == "banking77" else None
        tasks.append(_task("Clustering", name, _CLASSES, clusters, dataset=dataset, labels=many, **options))
    tasks.append(_task("Clustering", "ArxivClusters", _ARXIV, arxiv_clusters, **options))
    return tuple(tasks)


def small_english(seed: int = 0) -> tuple[SuiteTask, ...]:
    """The English tasks of `local-small`, their rows drawn by `seed`."""
    return english_tasks(
        sts_limit=400,
        pair_limit=400,
        questions=50,
        documents={"cranfield": 400, "cisi": 300, "cacm": 500, "nfcorpus": 250},
        queries={"cranfield": 40, "cisi": 40, "cacm": 40, "nfcorpus": 20},
        class_limit=400,
        draws=4,
        labels=20,
        cluster_limit=600,
        seed=seed,
    )


SUITES: dict[str, tuple[SuiteTask, ...]] = {
    "local-en": english_tasks(),
    "local-multi": (
        _task("STS", "STSBMulti", "text/stsb-multi.parquet", sts_multi),
        _task("BitextMining", "Tatoeba", "text/tatoeba.parquet", tatoeba),
        _task("BitextMining", "Multi30k", "text/multi30k.parquet", multi30k),
        _task("Retrieval", "XQuAD", "text/xquad.parquet", xquad),
        _task("Retrieval", "XQuADAcross", "text/xquad.parquet", xquad, across=True),
    ),
    "local-small": (
        *small_english(),
        _task("STS", "STSBMulti", "text/stsb-multi.parquet", sts_multi, languages=("de", "fr", "ru", "zh"), limit=100),
        _task("BitextMining", "Tatoeba", "text/tatoeba.parquet", tatoeba, languages=_SMALL_LANGUAGES, limit=100),
        _task("Retrieval", "XQuAD", "text/xquad.parquet", xquad, languages=("en", "de", "zh"), limit=60),
    ),
}

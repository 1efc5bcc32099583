"""Training data as the trainer takes it: filtered, with negatives, prompts and the labels that the loss reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from isometry.encoders.text import CONNECTOR, NV_EMBED, Example, InContextTemplate, situate
from isometry.errors import InputError
from isometry.training.data import TrainingData
from isometry.training.margins import MarginRule
from isometry.training.model import load_model
from isometry.training.negatives.corpus import Corpus, Judge, read_corpus
from isometry.training.negatives.filters import consistent_rows
from isometry.training.negatives.mining import mine_negatives
from isometry.training.run import DISTILLATION, TrainingRun
from isometry.training.stages.conversion import class_triplets
from isometry.types import Index


class Helpers:
    """The miner, the corpus and the teacher of a run, each loaded when it is first asked for."""

    def __init__(self, run: TrainingRun, model: Any, download: bool = False) -> None:
        self.run, self.model, self.download = run, model, download

    @cached_property
    def corpus(self) -> Corpus:
        return read_corpus(self.run.corpus) if self.run.corpus else Corpus()

    @cached_property
    def miner(self) -> Judge:
        corpus = self.corpus
        if corpus.encoder is not None and self.run.miner:
            raise InputError(f"'{self.run.corpus}' is mined by the collection's own encoder: leave the miner out")
        named = load_model(self.run.miner, self.download) if self.run.miner else self.model
        judge = Judge(corpus.encoder or named, self.run.batch_size)
        if corpus.vectors is not None:
            judge.remember(corpus.texts, corpus.vectors)
        return judge

    @cached_property
    def teacher(self) -> Judge:
        return Judge(load_model(self.run.teacher, self.download), self.run.batch_size)


@dataclass(frozen=True)
class Pool:
    """Different anchors and documents of some rows, with the miner's vectors and an index over the documents.

    Attributes:
        queries, documents: texts, each once.
        positives: rows of a query's positives in `documents`.
        asked `(q, d)`, known `(n, d)`: their vectors.
        index: over `known`.
    """

    queries: list[str]
    documents: list[str]
    positives: list[list[int]]
    asked: np.ndarray
    known: np.ndarray
    index: Index

    @classmethod
    def of(cls, anchors: Sequence[str], positives: Sequence[str], helpers: Helpers) -> Pool:
        from isometry.search.indexes import FlatIndex

        documents = list(dict.fromkeys([*positives, *helpers.corpus.texts]))
        row_of = {text: row for row, text in enumerate(documents)}
        own: dict[str, set[int]] = {}
        for anchor, positive in zip(anchors, positives, strict=True):
            own.setdefault(anchor, set()).add(row_of[positive])
        queries = list(own)
        asked, known = helpers.miner.queries(queries), helpers.miner.documents(documents)
        return cls(
            queries, documents, [sorted(own[query]) for query in queries], asked, known, FlatIndex().build(known)
        )


def consistent_data(run: TrainingRun, data: TrainingData, helpers: Helpers) -> tuple[TrainingData, list[str]]:
    """The rows whose positive the miner finds near the anchor (paper 06), and what was left out.

    Raises:
        InputError: data that are no pairs, or no two rows left.
    """
    if not run.consistent:
        return data, []
    if data.kind != "pairs":
        raise InputError("only pairs are filtered by what a miner finds: leave 'consistent' out")
    anchors, positives = data.texts["anchor"], data.texts["positive"]
    pool = Pool.of(anchors, positives, helpers)
    row_of = {text: row for row, text in enumerate(pool.documents)}
    query_of = {text: row for row, text in enumerate(pool.queries)}
    asked = pool.asked[[query_of[text] for text in anchors]]
    kept = np.flatnonzero(
        consistent_rows(asked, pool.known, [[row_of[text]] for text in positives], run.consistent, pool.index)
    )
    if len(kept) < 2:
        raise InputError(
            f"the miner finds the positive of {len(kept)} of {len(data)} rows among {run.consistent} texts: nothing is "
            "left to train on; raise 'consistent' or look at the data"
        )
    note = (
        f"{len(data) - len(kept)} of {len(data)} rows left out: their positive is not among the {run.consistent} texts "
        "nearest to the anchor"
    )
    return data.rows(kept.tolist()), [note]


def training_columns(
    run: TrainingRun, model: Any, data: TrainingData, helpers: Helpers
) -> tuple[dict[str, list[Any]], list[str]]:
    """Text columns in order, then a label column where the loss reads one; and notes.

    Raises:
        InputError: data that the loss cannot be computed on.
    """
    notes: list[str] = []
    if run.loss == "layers":
        return dict(data.texts), notes
    if data.kind == "plain" or run.loss == "masked":
        if data.kind != "plain" or run.loss != "masked":
            raise InputError("texts alone are for pre-training (recipe 'smae'), and pre-training takes texts alone")
        return dict(data.texts), notes
    if data.kind == "graded":
        if run.loss != "cosent":
            raise InputError("data with scores is trained with the loss 'cosent' (recipe 'graded')")
        low, high = min(data.targets), max(data.targets)
        scale = (high - low) or 1.0
        return {**data.texts, "label": [(value - low) / scale for value in data.targets]}, notes
    if run.loss == "cosent":
        raise InputError("the loss 'cosent' ranks by a score: give columns sentence1, sentence2 and score")
    columns = _of_classes(run, data) if data.kind == "labelled" else _of_pairs(run, model, data, helpers, notes)
    if run.loss in DISTILLATION:
        columns["label"] = _scores(columns, helpers.teacher)
    return columns, notes


def for_held_out(run: TrainingRun, columns: dict[str, list[Any]]) -> TrainingRun:
    """The run with as many negatives as the training rows got."""
    negatives = sum(name.startswith("negative") for name in columns)
    return replace(run, mine=negatives if run.mine else 0)


def _of_classes(run: TrainingRun, data: TrainingData) -> dict[str, list[Any]]:
    texts, labels = data.texts["text"], list(map(str, data.targets))
    columns: dict[str, list[Any]] = dict(class_triplets(texts, labels, max(run.mine, 1), seed=run.seed))
    if run.in_batch and run.loss == "info-nce":
        numbers = {label: i for i, label in enumerate(sorted(set(labels)))}
        label_of = {text: numbers[label] for text, label in zip(texts, labels, strict=True)}
        columns["label"] = [label_of[text] for text in columns["anchor"]]
    return columns


def _of_pairs(
    run: TrainingRun, model: Any, data: TrainingData, helpers: Helpers, notes: list[str]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = dict(data.texts)
    if data.contexts:
        notes.append(
            f"{sum(map(bool, data.contexts))} of {len(data)} positives are read with their context behind them"
        )
        limit, tokens = model.max_seq_length, model.tokenizer
        separator = f" {tokens.sep_token or CONNECTOR} "
        columns["positive"] = [
            situate(text, context, separator, limit, lambda text: len(tokens(text, verbose=False)["input_ids"]))
            for text, context in zip(columns["positive"], data.contexts, strict=True)
        ]
    needs_negatives = run.loss == "margin" or run.loss in DISTILLATION or not run.in_batch
    if run.mine and len(columns) == 2:
        columns |= _mined(run, columns, helpers, notes)
    elif needs_negatives and len(columns) == 2:
        raise InputError("this loss needs negatives: give a column 'negative', or mine some with --mine 3")
    tasks = data.instructions or [run.instruction] * len(data)
    if run.examples:
        columns["anchor"] = _with_examples(run, model, data, tasks)
    elif data.instructions:
        columns["anchor"] = [
            NV_EMBED.query(text, task) if task else text for text, task in zip(columns["anchor"], tasks, strict=True)
        ]
    return columns


def _mined(run: TrainingRun, columns: dict[str, list[Any]], helpers: Helpers, notes: list[str]) -> dict[str, list[Any]]:
    pool = Pool.of(columns["anchor"], columns["positive"], helpers)
    row_of = {text: row for row, text in enumerate(pool.documents)}
    count = min(run.mine, len(pool.documents) - max(map(len, pool.positives)) - 1)
    if count < 1:
        raise InputError(f"{len(pool.documents)} different documents are too few to mine {run.mine} negatives from")
    mined = mine_negatives(
        pool.asked,
        pool.known,
        pool.positives,
        count,
        rule=MarginRule(run.mine_rule, run.mine_margin) if run.mine_margin else None,
        first_rank=run.mine_ranks[0],
        last_rank=run.mine_ranks[1],
        choose=run.mine_choose,
        forbidden=[[row_of[query]] if query in row_of else [] for query in pool.queries],
        index=pool.index,
        seed=run.seed,
    )
    notes += mined.report.lines()
    query_of = {query: row for row, query in enumerate(pool.queries)}
    asked = [query_of[anchor] for anchor in columns["anchor"]]
    found: dict[str, list[Any]] = {
        f"negative_{i + 1}": [pool.documents[mined.rows[row][i]] for row in asked] for i in range(count)
    }
    if run.soft_weight:
        positives = pool.known[[row_of[positive] for positive in columns["positive"]]]
        own = np.einsum("nd,nd->n", pool.asked[asked], positives)
        found["label"] = [[float(score), *map(float, mined.scores[row])] for score, row in zip(own, asked, strict=True)]
    return found


def _scores(columns: dict[str, list[Any]], teacher: Judge) -> list[list[float]]:
    """A teacher's cosines of every row's anchor with its positive and negatives."""
    asked = teacher.queries(columns["anchor"])
    scores = [
        np.einsum("nd,nd->n", asked, teacher.documents(column))
        for name, column in columns.items()
        if name.startswith(("positive", "negative"))
    ]
    return [list(map(float, row)) for row in zip(*scores, strict=True)]


def _with_examples(run: TrainingRun, model: Any, data: TrainingData, tasks: Sequence[str]) -> list[str]:
    """Every anchor with its task and 0 to `examples` other rows of that task before it, as many as the limit takes."""
    if not all(tasks):
        raise InputError(
            "examples are shown with their task: give --instruction, or a column 'instruction' in every row"
        )
    anchors, positives = data.texts["anchor"], data.texts["positive"]
    stores: dict[str, list[Example]] = {}
    for anchor, positive, task in zip(anchors, positives, tasks, strict=True):
        stores.setdefault(task, []).append(Example(anchor, positive))
    limit = model.max_seq_length or 512
    templates = {task: InContextTemplate(task, tuple(store), run.examples, limit) for task, store in stores.items()}
    rng = random.Random(run.seed)
    return [
        templates[task].build(
            anchor,
            templates[task].draw(anchor, positive, rng),
            lambda text: len(model.tokenizer(text, verbose=False)["input_ids"]),
        )
        for anchor, positive, task in zip(anchors, positives, tasks, strict=True)
    ]

"""Paper 20: fewer tasks and smaller corpora that keep the order of models, on local tasks and cheap encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from isometry.evaluation import Claim, ScoreTable, borda, hard_negatives, select_tasks
from isometry.evaluation.baselines import FittedOnTexts
from isometry.evaluation.selection import predictability, random_agreement, rank_agreement, scored_pairs
from isometry.evaluation.suites import answers, collection, english_tasks
from isometry.evaluation.tasks import Judged, Retrieval, Task
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker
from isometry.recipes._zoo import FULL, bm25, plain_zoo, transformer_zoo
from isometry.types import Progress

AGREE, UNSEEN = "Spearman with all tasks", "Spearman with all tasks, models not used to select"
REMOVED, ORDER, PAIRS = "share of the tasks removed", "Spearman with whole corpora", "share of the pairs scored"
SELECTED, RANDOM, NONE = "selected tasks", "as many random tasks", "no agreement"
CUT, WHOLE, ALL = "hard negatives", "whole corpora", "all tasks"
DRAWS = 1000

CLAIMS = {
    "tiny": (
        Claim("The order of models survives the selection.", AGREE, SELECTED, NONE, 0.5),
        Claim("The order of models survives the cut of the corpora.", ORDER, CUT, NONE, 0.5),
    ),
    "laptop": (
        Claim("The selected tasks order the models as all do (Spearman above 0.95).", AGREE, SELECTED, NONE, 0.95),
        Claim("At least a quarter of the tasks can go.", REMOVED, SELECTED, ALL, 0.25),
        Claim("They order the models better than as many random tasks.", AGREE, SELECTED, RANDOM),
        Claim("They do so for models that they were not selected with.", UNSEEN, SELECTED, RANDOM),
        Claim("Corpora of hard negatives keep the order (Spearman above 0.95).", ORDER, CUT, NONE, 0.95),
        Claim("They need less than a tenth of the scored pairs.", PAIRS, CUT, WHOLE, 0.9, False),
    ),
    "full": (
        Claim("The selected tasks order the models as all do (Spearman above 0.95).", AGREE, SELECTED, NONE, 0.95),
        Claim("At least a quarter of the tasks can go.", REMOVED, SELECTED, ALL, 0.25),
        Claim("They order the models better than as many random tasks.", AGREE, SELECTED, RANDOM),
    ),
}

# The published English selection: from these 12 models' scores on the 56 tasks of the first version, thresholds 0.95
# and 0.2. Scores come from mteb's results repository; the tasks kept are compared with the benchmark it published.
FULL_BENCHMARK, FULL_PUBLISHED = "MTEB(eng, v1)", "MTEB(eng, v2)"
FULL_MODELS = (
    "intfloat/e5-mistral-7b-instruct",
    "GritLM/GritLM-7B",
    "intfloat/multilingual-e5-large-instruct",
    "intfloat/multilingual-e5-large",
    "intfloat/multilingual-e5-base",
    "intfloat/multilingual-e5-small",
    "sentence-transformers/all-mpnet-base-v2",
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "sentence-transformers/all-MiniLM-L12-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/LaBSE",
)


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """A seed draws the items of every task, the queries of every corpus, and the models that a selection sees."""
    if scale == "full":
        return _measure_published(seeds, data)
    tiny = scale == "tiny"
    corpora = _corpora(data, 250 if tiny else 1500, tiny)
    tasks = {seed: _tasks(data, seed, tiny) + _asked(corpora, seed, 20 if tiny else 40) for seed in seeds}
    texts = {text for found in tasks.values() for task in found for text in task.texts()}
    models: dict[str, Any] = plain_zoo((32, 128, 384), (16, 48)) if tiny else plain_zoo()
    tick = Ticker(progress, len(texts) // 64 * (not tiny) + len(seeds) * (len(models) + 15 * (not tiny)))
    if not tiny:
        models |= transformer_zoo(sorted(texts), tick)
    values: dict[str, dict[str, list[float]]] = {
        AGREE: {SELECTED: [], RANDOM: [], NONE: [0.0]},
        UNSEEN: {SELECTED: [], RANDOM: []},
        REMOVED: {SELECTED: [], ALL: [0.0]},
        ORDER: {CUT: [], NONE: [0.0]},
        PAIRS: {CUT: [], WHOLE: [1.0]},
    }
    found: list[dict[str, float]] = []
    for seed in seeds:
        table = _scores(models, tasks[seed], tick)
        selection = select_tasks(table, 0.8, 0.5)
        chance = random_agreement(table, len(selection.kept), DRAWS, np.random.default_rng(seed))
        agreement = rank_agreement(table, selection.kept)
        values[AGREE][SELECTED].append(agreement)
        values[AGREE][RANDOM].append(float(chance.mean()))
        values[REMOVED][SELECTED].append(1 - len(selection.kept) / len(table.tasks))
        unseen = _unseen(table, seed)
        for name in (SELECTED, RANDOM):
            values[UNSEEN][name].append(unseen[name])
        asked = [task for task in tasks[seed] if isinstance(task, Retrieval)]
        order, share, shift = _cut_corpora(models, asked, table, 10 if tiny else 50, FULL if not tiny else "LSA 48")
        values[ORDER][CUT].append(order)
        values[PAIRS][CUT].append(share)
        found.append(
            shift | {"percentile": float((chance <= agreement + 1e-12).mean())} | _swaps(table) | unseen["about"]
        )
    measured = {
        "models": float(len(models)),
        "tasks": float(len(tasks[seeds[0]])),
        "selection_percentile_among_random_choices": _mean(found, "percentile"),
        "model_pairs_that_borda_and_mean_order_differently": _mean(found, "swaps"),
        "tasks_removed_with_half_of_the_models_share": _mean(found, "removed"),
        "hard_negatives_lift_ndcg_of_the_pooled_model_by": _mean(found, "pooled"),
        "hard_negatives_lift_ndcg_of_the_others_by": _mean(found, "others"),
    }
    what = (
        f"{len(tasks[seeds[0]])} local English tasks, {len(models)} cheap encoders; items of each task drawn by seed, "
        f"{len(asked)} corpora of at most {250 if tiny else 1500} short documents"
    )
    return Measurement(what, values, measured)


def _tasks(data: Path | None, seed: int, tiny: bool) -> list[Task]:
    """The English suite without its long documents, thinned by seed."""
    limits: dict[str, Any] = {
        "sts_limit": 100,
        "pair_limit": 100,
        "questions": 25,
        "class_limit": 120,
        "draws": 2,
        "labels": 10,
    }
    if tiny:
        limits |= {"sts_limit": 60, "pair_limit": 60, "questions": 12, "class_limit": 60}
    entries = english_tasks(**limits, cluster_limit=200, seed=seed + 1)
    few = ("STSB", "STS13", "SICK-R", "MRPC", "TrecQA", "TrecQuestions", "Subj")
    chosen = [one for one in entries if one.kind != "Retrieval" and (not tiny or one.name in few)]
    return [entry.load(partial(find_data, folder=data)) for entry in chosen]


def _corpora(data: Path | None, documents: int, tiny: bool) -> list[Retrieval]:
    """Answer sentences and titles as corpora, the same for all seeds, with every query that has a relevant document."""
    find = partial(find_data, folder=data)
    made = [Retrieval(f"{name}Sentences", answers(find, name, f"text/{file}.parquet").data)
            for name, file in (("TrecQA", "trecqa"), ("WikiQA", "wikiqa"))[: 1 if tiny else 2]]  # fmt: skip
    if not tiny:
        cacm = collection(find, "CACMTitles", "cacm")
        (judged,) = cacm.data.values()
        titles = {id: text.split("\n")[0] for id, text in judged.corpus.items()}
        made.append(Retrieval("CACMTitles", {"en": Judged(titles, judged.queries, judged.judgements, {})}))
    thinned = []
    for task in made:
        (judged,) = task.data.values()
        rng = np.random.default_rng(0)
        queries = list(judged.queries)
        kept_queries = queries if not tiny else queries[:40]
        relevant = {d for q in kept_queries for d, grade in judged.judgements[q].items() if grade > 0}
        others = [d for d in judged.corpus if d not in relevant]
        kept = relevant | {others[i] for i in rng.permutation(len(others))[: max(0, documents - len(relevant))]}
        corpus = {d: text for d, text in judged.corpus.items() if d in kept}
        judgements = {q: {d: g for d, g in judged.judgements[q].items() if d in kept} for q in kept_queries}
        thinned.append(
            Retrieval(task.name, {"en": Judged(corpus, {q: judged.queries[q] for q in kept_queries}, judgements, {})})
        )
    return thinned


def _asked(corpora: Sequence[Retrieval], seed: int, count: int) -> list[Task]:
    """The corpora with `count` of their queries, drawn by seed."""
    found: list[Task] = []
    for task in corpora:
        (judged,) = task.data.values()
        names = list(judged.queries)
        rows = np.sort(np.random.default_rng(seed + 1).permutation(len(names))[:count])
        queries = {names[i]: judged.queries[names[i]] for i in rows}
        judgements = {name: judged.judgements[name] for name in queries}
        found.append(Retrieval(task.name, {"en": Judged(judged.corpus, queries, judgements, {})}))
    return found


def _scores(models: Mapping[str, Any], tasks: Sequence[Task], tick: Ticker) -> ScoreTable:
    values = np.empty((len(models), len(tasks)))
    for row, encoder in enumerate(models.values()):
        values[row] = [_judged(encoder, task).value for task in tasks]
        tick()
    return ScoreTable(tuple(models), tuple(task.name for task in tasks), tuple(task.kind for task in tasks), values)


def _judged(encoder: Any, task: Task) -> Any:
    return task.evaluate(encoder.for_texts(task.texts()) if isinstance(encoder, FittedOnTexts) else encoder)


def _unseen(table: ScoreTable, seed: int) -> dict[str, Any]:
    """Select with half of the models, drawn by seed, and look at the order of the other half."""
    order = np.random.default_rng(seed).permutation(len(table.models))
    halves = [
        ScoreTable(tuple(table.models[i] for i in rows), table.tasks, table.kinds, table.values[rows])
        for rows in (order[: len(order) // 2], order[len(order) // 2 :])
    ]
    kept = select_tasks(halves[0], 0.8, 0.5).kept
    chance = random_agreement(halves[1], len(kept), DRAWS, np.random.default_rng(seed))
    return {
        SELECTED: rank_agreement(halves[1], kept),
        RANDOM: float(chance.mean()),
        "about": {"removed": 1 - len(kept) / len(table.tasks)},
    }


def _cut_corpora(
    models: Mapping[str, Any], tasks: Sequence[Retrieval], table: ScoreTable, top: int, pooled: str
) -> tuple[float, float, dict[str, float]]:
    """Spearman of the models' mean nDCG on whole and cut corpora, share of pairs, and how far the level moved."""
    whole = table.chosen([task.name for task in tasks]).values.mean(axis=1)
    cut, pairs = [], []
    for task in tasks:
        (judged,) = task.data.values()
        words = bm25(list(judged.queries.values()), list(judged.corpus.values()))
        ids = list(judged.corpus)
        best = np.argsort(-words, axis=1, kind="stable")[:, :top]
        by_words = {query: [ids[i] for i in rows] for query, rows in zip(judged.queries, best, strict=True)}
        encoder = models[pooled]
        encoder = encoder.for_texts(task.texts()) if isinstance(encoder, FittedOnTexts) else encoder
        cut.append(hard_negatives(task, [{"en": by_words}, task.rankings(encoder, top)], top))
        pairs.append((scored_pairs(cut[-1]), scored_pairs(task)))
    values = np.array([np.mean([_judged(encoder, task).value for task in cut]) for encoder in models.values()])
    lift = values - whole
    own = list(models).index(pooled)
    share = sum(few for few, _ in pairs) / sum(many for _, many in pairs)
    about = {"pooled": float(lift[own]), "others": float(np.delete(lift, own).mean())}
    return float(stats.spearmanr(whole, values).statistic), share, about


def _swaps(table: ScoreTable) -> dict[str, float]:
    """Pairs of models that Borda puts the other way round than the mean."""
    points, means = borda(table.values), table.values.mean(axis=1)
    opposite = np.subtract.outer(points, points) * np.subtract.outer(means, means) < 0
    return {"swaps": float(opposite.sum() / 2)}


def _mean(found: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([one[name] for one in found]))


def _measure_published(seeds: Sequence[int], data: Path | None) -> Measurement:
    """From published scores: every seed leaves one of the models out. `data` is mteb's cache folder, else its own."""
    from isometry.evaluation.mteb_adapter import mteb_scores, mteb_tasks

    table = mteb_scores(FULL_MODELS, mteb_tasks([FULL_BENCHMARK]), data)
    published = {task.metadata.name for task in mteb_tasks([FULL_PUBLISHED])}
    values: dict[str, dict[str, list[float]]] = {
        AGREE: {SELECTED: [], RANDOM: [], NONE: [0.0]},
        REMOVED: {SELECTED: [], ALL: [0.0]},
    }
    for seed in seeds:
        rows = [row for row in range(len(table.models)) if row != seed % len(table.models)]
        part = ScoreTable(tuple(table.models[i] for i in rows), table.tasks, table.kinds, table.values[rows])
        kept = select_tasks(part, 0.95, 0.2).kept
        values[AGREE][SELECTED].append(rank_agreement(part, kept))
        values[AGREE][RANDOM].append(
            float(random_agreement(part, len(kept), DRAWS, np.random.default_rng(seed)).mean())
        )
        values[REMOVED][SELECTED].append(1 - len(kept) / len(table.tasks))
    kept = select_tasks(table, 0.95, 0.2).kept
    measured = {
        "models": float(len(table.models)),
        "tasks": float(len(table.tasks)),
        "tasks_kept": float(len(kept)),
        "kept_that_are_in_the_published_benchmark": float(len(published & set(kept))),
        "published_tasks": float(len(published)),
        "spearman_of_the_first_task_from_the_others": predictability(table, table.tasks[0]).spearman,
    }
    return Measurement(f"{FULL_BENCHMARK}: published scores of {len(table.models)} models", values, measured)


RECIPE = Recipe(
    name="mmteb",
    paper=20,
    title="MMTEB: Massive Multilingual Text Embedding Benchmark",
    claim="Tasks that the others predict can go and corpora shrink to hard negatives; the order of models stays.",
    parts=(
        "isometry.evaluation.select_tasks",
        "isometry.evaluation.preservation_curve",
        "isometry.evaluation.hard_negatives",
        "isometry.evaluation.borda",
        "isometry.evaluation.ScoreTable",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 3, "full": 12},
    measure=measure,
)

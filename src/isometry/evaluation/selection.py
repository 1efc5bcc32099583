"""Fewer tasks, smaller corpora, the same order of models (paper 20).

Tasks are left out one by one, the best predicted first: a linear regression from the other tasks' scores, fitted on all
models but one, predicts that one. Corpora keep what several systems rank high for a query, and all that is relevant.
mteb 2 ships neither any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from isometry.errors import InputError
from isometry.evaluation.ranking import ScoreTable
from isometry.evaluation.tasks import Judged, Retrieval
from isometry.types import Encoder


@dataclass(frozen=True)
class Removal:
    """One step: a task that went, and how well the remaining ones predicted it.

    Attributes:
        spearman, pearson: of predicted and true scores over the models.
        z_error: mean squared error after scaling both by mean and standard deviation of the true scores.
    """

    task: str
    spearman: float
    pearson: float
    z_error: float


@dataclass(frozen=True)
class Selection:
    """What a selection kept and how it went.

    Attributes:
        kept: names, in the order of the table.
        removed: step by step.
        constant: tasks left out before the first step, because all models score the same there.
        underdetermined: fewer models to fit on than tasks to predict from at the first step, where the regression is
            the one of least norm.
    """

    kept: tuple[str, ...]
    removed: tuple[Removal, ...]
    constant: tuple[str, ...]
    underdetermined: bool


def select_tasks(
    table: ScoreTable,
    s_min: float = 0.8,
    e_max: float = 0.5,
    keep: Iterable[str] = (),
    allowed: Callable[[str, Sequence[str]], bool] | None = None,
) -> Selection:
    """Leave out tasks that the others predict (the published procedure: 0.95 and 0.2 in English, 0.8 and 0.5 across
    languages).

    Args:
        s_min, e_max: a task may go if its Spearman is at least this and its error at most that.
        keep: tasks that stay.
        allowed: (task, remaining tasks) to whether it may go, beside the rule that the last task of a kind never goes.
    Raises:
        InputError: missing scores, fewer than 3 models, or a task to keep that is not there.
    """
    if np.isnan(table.values).any() or len(table.models) < 3:
        raise InputError("a selection needs at least 3 models, each on every task")
    wanted = set(keep)
    if unknown := wanted - set(table.tasks):
        raise InputError(f"there is no task '{sorted(unknown)[0]}' to keep")
    constant = tuple(task for task, column in zip(table.tasks, table.values.T, strict=True) if np.ptp(column) == 0)
    kinds = dict(zip(table.tasks, table.kinds, strict=True))
    remaining = [task for task in table.tasks if task not in constant]
    underdetermined = len(table.models) - 1 <= len(remaining) - 1
    removed: list[Removal] = []
    while len(remaining) > 1:
        steps = [predictability(table.chosen(remaining), task) for task in remaining]
        for step in sorted(steps, key=lambda one: -one.spearman):
            last = [kinds[task] for task in remaining].count(kinds[step.task]) == 1
            free = step.task not in wanted and not last and (allowed is None or allowed(step.task, remaining))
            if free and step.spearman >= s_min and step.z_error <= e_max:
                remaining.remove(step.task)
                removed.append(step)
                break
        else:
            break
    return Selection(tuple(remaining), tuple(removed), constant, underdetermined)


def predictability(table: ScoreTable, task: str) -> Removal:
    """How well the other tasks predict one: leave one model out, fit on the others, predict it."""
    place = table.tasks.index(task)
    y = table.values[:, place]
    x = np.delete(table.values, place, axis=1)
    predicted = np.empty(len(y))
    for model in range(len(y)):
        others = np.arange(len(y)) != model
        middle_x, middle_y = x[others].mean(axis=0), y[others].mean()
        # least squares of least norm on centred columns, which is what scikit-learn's LinearRegression fits
        weights = np.linalg.lstsq(x[others] - middle_x, y[others] - middle_y, rcond=None)[0]
        predicted[model] = (x[model] - middle_x) @ weights + middle_y
    flat = np.ptp(predicted) == 0
    spearman = 0.0 if flat else float(stats.spearmanr(predicted, y).statistic)
    pearson = 0.0 if flat else float(stats.pearsonr(predicted, y).statistic)
    return Removal(task, spearman, pearson, float((((predicted - y) / y.std()) ** 2).mean()))


def rank_agreement(table: ScoreTable, tasks: Sequence[str]) -> float:
    """Spearman between the models' mean scores on all tasks and on some."""
    part = table.chosen(tasks).values.mean(axis=1)
    whole = table.values.mean(axis=1)
    if np.ptp(part) == 0 or np.ptp(whole) == 0:
        return 0.0
    return float(stats.spearmanr(whole, part).statistic)


def preservation_curve(
    table: ScoreTable, selection: Selection, draws: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """Agreement with the whole benchmark after every removal, beside random choices of as many tasks.

    Returns: 'tasks' (how many are left), 'selected', 'random' (mean over draws), 'percentile' (share of draws that the
        selection is at least as good as).
    """
    left = [task for task in table.tasks if task not in selection.constant]
    rng = np.random.default_rng(seed)
    curve: dict[str, list[float]] = {"tasks": [], "selected": [], "random": [], "percentile": []}
    for removal in (None, *selection.removed):
        if removal is not None:
            left = [task for task in left if task != removal.task]
        own = rank_agreement(table, left)
        chance = random_agreement(table, len(left), draws, rng)
        curve["tasks"].append(float(len(left)))
        curve["selected"].append(own)
        curve["random"].append(float(chance.mean()))
        curve["percentile"].append(float((chance <= own + 1e-12).mean()))
    return curve


def random_agreement(table: ScoreTable, size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """`rank_agreement` of `draws` random choices of `size` tasks: `(draws,)`."""
    choices = np.argsort(rng.random((draws, len(table.tasks))), axis=1)[:, :size]
    part = stats.rankdata(table.values[:, choices].mean(axis=2), axis=0)
    whole = stats.rankdata(table.values.mean(axis=1))
    part, whole = part - part.mean(axis=0), whole - whole.mean()
    scale = np.sqrt((part**2).sum(axis=0) * (whole**2).sum())
    return np.where(scale > 0, whole @ part / np.where(scale > 0, scale, 1), 0.0)


def hard_negatives(
    task: Retrieval, rankings: Sequence[Mapping[str, Mapping[str, Sequence[str]]]], top: int
) -> Retrieval:
    """The task with a query's documents cut to the union of the `top` of several rankings and all relevant ones.

    The systems whose rankings build the pool meet all their own mistakes there and another's only in part: against
    systems outside the pool they look a little worse than on the whole corpus. Figures are for orders, not for levels.

    Args:
        rankings: of each system: subset to query to documents, best first (`Retrieval.rankings`).
        top: how many of each; the paper takes 250 of three systems.
    Raises:
        InputError: no ranking, or one that lacks a query.
    """
    if not rankings or top < 1:
        raise InputError("hard negatives need at least one ranking and a top of at least 1")
    data = {}
    for subset, judged in task.data.items():
        candidates = {}
        for query in judged.queries:
            try:
                found = [doc for ranking in rankings for doc in ranking[subset][query][:top]]
            except KeyError as error:
                raise InputError(f"a ranking lacks query '{query}' of '{task.name}'") from error
            relevant = {doc for doc, grade in judged.judgements[query].items() if grade > 0 and doc in judged.corpus}
            pool = {*found, *relevant}
            candidates[query] = tuple(doc for doc in judged.corpus if doc in pool)
        used = {doc for pool in candidates.values() for doc in pool}
        data[subset] = Judged(
            {doc: text for doc, text in judged.corpus.items() if doc in used},
            judged.queries,
            judged.judgements,
            candidates,
        )
    return replace(task, name=f"{task.name}HardNegatives", data=data)


def cut_curve(
    tasks: Sequence[Retrieval],
    encoders: Mapping[str, Callable[[Retrieval], Encoder]],
    pool: Sequence[str],
    tops: Sequence[int] = (5, 10, 20, 50, 100),
) -> dict[str, list[float]]:
    """How far corpora can be cut to hard negatives: agreement of the models' order with that on the whole corpora.

    Args:
        tasks: whole corpora.
        encoders: name to the encoder for a task.
        pool: names of those whose rankings build the pools.
        tops: documents of each ranking, rising.
    Returns: for every top 'top', 'pairs' (share of the pairs scored), 'agreement' (Spearman over the models' mean
        nDCG), 'pool_shift' and 'other_shift' (how far the mean nDCG of the pool's systems and of the others moved; the
        second is 0 where there are none).
    Raises:
        InputError: fewer than 3 models, no task, or a name in the pool that is no model's.
    """
    if len(encoders) < 3 or not tasks or not pool or any(name not in encoders for name in pool):
        raise InputError("a curve of cut corpora needs a retrieval task, at least 3 models, and a pool out of them")
    ready = [{name: make(task) for name, make in encoders.items()} for task in tasks]
    whole = _mean_scores(tasks, ready)
    rankings = [[at[name] for name in pool] for at in ready]
    found = [
        [task.rankings(encoder, max(tops)) for encoder in part] for task, part in zip(tasks, rankings, strict=True)
    ]
    pooled = np.array([name in pool for name in encoders])
    everything = sum(scored_pairs(task) for task in tasks)
    curve: dict[str, list[float]] = {"top": [], "pairs": [], "agreement": [], "pool_shift": [], "other_shift": []}
    for top in tops:
        cut = [hard_negatives(task, part, top) for task, part in zip(tasks, found, strict=True)]
        scores = _mean_scores(cut, ready)
        flat = np.ptp(scores) == 0 or np.ptp(whole) == 0
        shift = scores - whole
        curve["top"].append(float(top))
        curve["pairs"].append(sum(scored_pairs(task) for task in cut) / everything)
        curve["agreement"].append(0.0 if flat else float(stats.spearmanr(scores, whole).statistic))
        curve["pool_shift"].append(float(shift[pooled].mean()))
        curve["other_shift"].append(0.0 if pooled.all() else float(shift[~pooled].mean()))
    return curve


def _mean_scores(tasks: Sequence[Retrieval], ready: Sequence[Mapping[str, Encoder]]) -> np.ndarray:
    """Mean value of each model over the tasks `(m,)`."""
    values = [[task.evaluate(encoder).value for encoder in at.values()] for task, at in zip(tasks, ready, strict=True)]
    return np.mean(values, axis=0)


def scored_pairs(task: Retrieval) -> int:
    """Query-document pairs whose closeness a run computes."""
    return sum(
        len(judged.candidates[query]) if judged.candidates else len(judged.corpus)
        for judged in task.data.values()
        for query in judged.queries
    )

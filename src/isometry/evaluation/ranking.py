"""Orders of models over tasks: Borda, means, ranks with intervals, and whether the tasks tell the models apart at all.

Sources: Borda as in MMTEB (paper 20) and Colombo et al. 2022; Friedman's test with Iman and Davenport's correction and
Nemenyi's critical difference as in Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from isometry.errors import InputError, ShapeError
from isometry.evaluation.statistics import Comparison, holm, paired_bootstrap, sign_flip_p
from isometry.evaluation.tasks import KINDS, Result


@dataclass(frozen=True)
class ScoreTable:
    """Scores of m models on t tasks, higher is better; NaN where a model was not run.

    Attributes:
        models, tasks: names.
        kinds: of the tasks.
        values: `(m, t)` float64.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.models), len(self.tasks)) or len(self.kinds) != len(self.tasks):
            raise ShapeError(
                f"{len(self.models)} models, {len(self.tasks)} tasks and {len(self.kinds)} kinds do not fit scores of "
                f"shape {self.values.shape}"
            )

    @classmethod
    def of(cls, results: Mapping[str, Mapping[str, Result]]) -> ScoreTable:
        """From model name to task name to result; tasks by kind, in the order of `KINDS`."""
        kinds = {name: one.kind for found in results.values() for name, one in found.items()}
        tasks = sorted(kinds, key=lambda name: KINDS.index(kinds[name]) if kinds[name] in KINDS else len(KINDS))
        values = [[found[task].value if task in found else np.nan for task in tasks] for found in results.values()]
        shape = (len(results), len(tasks))
        return cls(tuple(results), tuple(tasks), tuple(kinds[task] for task in tasks), np.reshape(values, shape))

    def chosen(self, tasks: Sequence[str]) -> ScoreTable:
        """The same models on some of the tasks."""
        places = [self.tasks.index(task) for task in tasks]
        return ScoreTable(self.models, tuple(tasks), tuple(self.kinds[i] for i in places), self.values[:, places])


def borda(values: np.ndarray, missing: Literal["zero", "average"] = "zero") -> np.ndarray:
    """Points `(m,)` of scores `(m, t)`: per task n - rank among the n models that ran it, ties by average rank, summed.

    Args:
        missing: a task that was not run (NaN) counts 0 points, as published; or the model's average over those it ran.
    """
    points = _points(values)
    if missing == "average":
        ran = ~np.isnan(values)
        counts = np.maximum(ran.sum(axis=1), 1)
        return points.sum(axis=1) * values.shape[1] / counts
    return points.sum(axis=1)


def _points(values: np.ndarray) -> np.ndarray:
    points = np.zeros(values.shape)
    for task, column in enumerate(values.T):
        ran = ~np.isnan(column)
        points[ran, task] = ran.sum() - stats.rankdata(-column[ran])
    return points


def ranks(points: np.ndarray) -> np.ndarray:
    """Places `(m,)` from 1, the most points first; equal points share the better place."""
    return stats.rankdata(-points, method="min").astype(int)


def mean_by_kind(table: ScoreTable) -> dict[str, np.ndarray]:
    """Kind to the mean score `(m,)` over its tasks; NaN where a model lacks one of them."""
    kinds = dict.fromkeys(table.kinds)
    return {kind: table.values[:, [one == kind for one in table.kinds]].mean(axis=1) for kind in kinds}


def rank_intervals(
    results: Mapping[str, Mapping[str, Result]],
    over: Literal["items", "tasks"] = "items",
    by: Literal["borda", "mean"] = "borda",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[int, int]]:
    """Places that each model keeps in the middle `level` of bootstrap resamples.

    Args:
        over: 'items' draws the items of every task again, the same for all models: how sure the order is on these
            tasks. 'tasks' draws the tasks again: how sure it is on tasks like these.
    Raises:
        InputError: models that ran other tasks, or other items.
    """
    table = ScoreTable.of(results)
    if np.isnan(table.values).any():
        raise InputError("a rank interval needs every model on every task")
    rng = np.random.default_rng(seed)
    if over == "tasks":
        per_task = _points(table.values) if by == "borda" else table.values
        drawn = rng.integers(0, len(table.tasks), (resamples, len(table.tasks)))
        totals = np.stack([per_task[:, rows].sum(axis=1) for rows in drawn])
    else:
        totals = np.zeros((resamples, len(table.models)))
        for task in table.tasks:
            scores = _resampled(_items(results, task), resamples, rng)
            totals += len(table.models) - stats.rankdata(-scores, axis=1) if by == "borda" else scores
    places = stats.rankdata(-totals, method="min", axis=1)
    low, high = np.quantile(places, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    return {model: (int(a), int(b)) for model, a, b in zip(table.models, low, high, strict=True)}


def _items(results: Mapping[str, Mapping[str, Result]], task: str) -> np.ndarray:
    """Per-item values `(m, n)` of one task."""
    rows = [found[task].per_item for found in results.values()]
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"task '{task}': the models were judged on other items")
    return np.stack(rows)


def _resampled(items: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means `(resamples, m)` over items drawn with replacement, the same for all models."""
    n = items.shape[1]
    means = np.empty((resamples, len(items)))
    size = max(1, 2_000_000 // n)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        rows = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        weights = np.bincount(rows.ravel(), minlength=count * n).reshape(count, n)
        means[start : start + count] = weights @ items.T / n
    return means


class TaskComparison(NamedTuple):
    """Two models on one task: effect = first minus second, p corrected over the tasks by Holm."""

    task: str
    comparison: Comparison
    p_holm: float


def compare_models(first: Mapping[str, Result], second: Mapping[str, Result], seed: int = 0) -> list[TaskComparison]:
    """Paired tests of every task that both ran, over the same items, corrected over the tasks.

    Raises:
        InputError: no task in common, or other items.
    """
    shared = [task for task in first if task in second]
    if not shared:
        raise InputError("a paired test needs a task in common")
    for task in shared:
        if len(first[task].per_item) != len(second[task].per_item):
            raise InputError(f"task '{task}': the models were judged on other items")
    found = [paired_bootstrap(first[task].per_item, second[task].per_item, seed) for task in shared]
    corrected = holm([one.p for one in found])
    return [TaskComparison(*row) for row in zip(shared, found, corrected, strict=True)]


class CriticalDifference(NamedTuple):
    """Friedman's test over tasks, and Nemenyi's smallest difference of average ranks that is significant.

    Attributes:
        average_ranks: `(m,)`, 1 is best.
        p: of Iman and Davenport's F.
        difference: in ranks, at alpha 0.05.
    """

    average_ranks: np.ndarray
    p: float
    difference: float


def critical_difference(values: np.ndarray, alpha: float = 0.05) -> CriticalDifference:
    """Do t tasks tell m models apart? Scores `(m, t)` without NaN, m >= 2, t >= 2.

    Tasks count as independent draws, which related tasks are not: read it as the gentler of the two views beside
    `rank_intervals(over='tasks')`.
    """
    m, t = values.shape
    if m < 2 or t < 2 or np.isnan(values).any():
        raise InputError(f"a critical difference needs at least 2 models and 2 tasks, all run (here {m} and {t})")
    places = stats.rankdata(-values, axis=0)
    average = places.mean(axis=1)
    # equal scores within a task leave less spread of ranks to explain
    _, counts = np.unique(np.column_stack([np.repeat(np.arange(t), m), places.T.ravel()]), axis=0, return_counts=True)
    ties = 1 - float((counts**3 - counts).sum()) / (t * (m**3 - m))
    spread = 12 * t / (m * (m + 1)) * float(((average - (m + 1) / 2) ** 2).sum())
    chi = spread / ties if ties > 0 else 0.0
    room = t * (m - 1) - chi
    p = float(stats.f.sf((t - 1) * chi / room, m - 1, (m - 1) * (t - 1))) if room > 1e-9 else 0.0
    q = stats.studentized_range.ppf(1 - alpha, m, np.inf) / np.sqrt(2)
    return CriticalDifference(average, p, float(q * np.sqrt(m * (m + 1) / (6 * t))))


def groups_alike(average_ranks: np.ndarray, difference: float) -> list[tuple[int, ...]]:
    """Largest groups of models, by place in the order of ranks, that the critical difference does not part."""
    order = np.argsort(average_ranks, kind="stable")
    groups: list[tuple[int, ...]] = []
    reached = -1
    for start in range(len(order)):
        end = int(np.searchsorted(average_ranks[order], average_ranks[order[start]] + difference, side="right")) - 1
        if end > reached and end > start:
            groups.append(tuple(int(row) for row in order[start : end + 1]))
        reached = max(reached, end)
    return groups


def overall_test(first: Mapping[str, Result], second: Mapping[str, Result], seed: int = 0) -> tuple[float, float]:
    """Mean difference over the shared tasks, and its p by flipping the signs of the tasks' differences."""
    shared = [task for task in first if task in second]
    difference = np.array([first[task].value - second[task].value for task in shared])
    return float(difference.mean()), sign_flip_p(difference, seed)

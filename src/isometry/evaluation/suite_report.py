"""A report of models over a suite: order, intervals, heat map, critical differences, paired tests, task selection."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.plots import critical_difference_diagram, curves, heat_map
from isometry.evaluation.ranking import (
    CriticalDifference,
    ScoreTable,
    TaskComparison,
    borda,
    compare_models,
    critical_difference,
    mean_by_kind,
    overall_test,
    rank_intervals,
    ranks,
)
from isometry.evaluation.report import STYLE, html_table, markdown_table
from isometry.evaluation.selection import Selection, preservation_curve, select_tasks
from isometry.evaluation.statistics import bootstrap_interval
from isometry.evaluation.suite_run import ModelRun


@dataclass(frozen=True)
class Leaderboard:
    """Models over tasks and all that is said of them; made by `leaderboard`.

    Attributes:
        order: row numbers of the table, best first by Borda.
        over_items, over_tasks: places of each model in 95 % of resamples; empty for a single model.
        against: name to paired tests with the first model asked for, task by task; overall: mean difference and p, over
            the tasks, or over the items where there is one task.
        selection, curve: where tasks were to be selected.
        cuts: `cut_curve` of the retrieval tasks, then too.
    """

    suite: str
    runs: tuple[ModelRun, ...]
    table: ScoreTable
    order: tuple[int, ...]
    points: np.ndarray
    over_items: dict[str, tuple[int, int]]
    over_tasks: dict[str, tuple[int, int]]
    difference: CriticalDifference | None
    against: dict[str, list[TaskComparison]]
    overall: dict[str, tuple[float, float]]
    selection: Selection | None = None
    curve: dict[str, list[float]] | None = None
    cuts: dict[str, list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `isometry eval … --suite`."""
        by_kind = mean_by_kind(self.table)
        places = ranks(self.points)
        models = []
        for row in self.order:
            run = self.runs[row]
            tasks = {}
            for task, one in run.results.items():
                tasks[task] = {"value": one.value, "interval": _interval(one.per_item), "items": len(one.per_item)}
            models.append(
                {
                    "model": run.name,
                    "rank": int(places[row]),
                    "borda": float(self.points[row]),
                    "mean": float(self.table.values[row].mean()),
                    "mean_by_type": {kind: float(values[row]) for kind, values in by_kind.items()},
                    "rank_interval": {
                        "items": list(self.over_items.get(run.name, (1, 1))),
                        "tasks": list(self.over_tasks.get(run.name, (1, 1))),
                    },
                    "dimension": run.about.dimension,
                    "texts_per_second": run.texts_per_second,
                    "fingerprint": run.about.fingerprint,
                    "tasks": tasks,
                }
            )
        document: dict[str, Any] = {"suite": self.suite, "tasks": self._tasks(), "models": models}
        if self.difference is not None:
            document["friedman_p"] = self.difference.p
            document["critical_difference"] = self.difference.difference
        document["comparisons"] = [
            {
                "first": self.runs[0].name,
                "second": name,
                "mean_difference": self.overall[name][0],
                "p": self.overall[name][1],
                "tasks": {
                    one.task: {
                        "effect": one.comparison.effect,
                        "interval": [one.comparison.low, one.comparison.high],
                        "p": one.comparison.p,
                        "p_holm": one.p_holm,
                    }
                    for one in found
                },
            }
            for name, found in self.against.items()
        ]
        grid = size_grid(self)
        if grid is not None:
            layers, dimensions, values = grid
            document["grid"] = {"layers": layers, "dimensions": dimensions, "mean": values.tolist()}
        if self.selection is not None:
            document["selection"] = {
                "kept": list(self.selection.kept),
                "removed": [vars(one) for one in self.selection.removed],
                "constant": list(self.selection.constant),
                "underdetermined": self.selection.underdetermined,
                "curve": self.curve,
                "hard_negatives": self.cuts,
            }
        return document

    def _tasks(self) -> list[dict[str, str]]:
        metrics = {name: one.metric for name, one in self.runs[0].results.items()}
        return [
            {"task": task, "type": kind, "metric": metrics[task]}
            for task, kind in zip(self.table.tasks, self.table.kinds, strict=True)
        ]


def leaderboard(
    suite: str,
    runs: Sequence[ModelRun],
    select: bool = False,
    seed: int = 0,
    cuts: dict[str, list[float]] | None = None,
) -> Leaderboard:
    """Order the models and test their differences.

    Args:
        select: leave out tasks that the others predict (`select_tasks` at its multilingual thresholds).
        cuts: what `cut_suite` found, for the report.
    Raises:
        InputError: no model, the same model twice, or a selection over fewer than 3 models.
    """
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise InputError("a leaderboard needs models, each once")
    results = {run.name: run.results for run in runs}
    table = ScoreTable.of(results)
    points = borda(table.values)
    order = sorted(range(len(runs)), key=lambda row: (-points[row], -table.values[row].mean()))
    many = len(runs) > 1
    selection = select_tasks(table) if select else None
    against = {name: compare_models(results[names[0]], results[name], seed) for name in names[1:]}
    return Leaderboard(
        suite,
        tuple(runs),
        table,
        tuple(order),
        points,
        rank_intervals(results, "items", seed=seed) if many else {},
        rank_intervals(results, "tasks", seed=seed) if many else {},
        critical_difference(table.values) if many and len(table.tasks) > 1 else None,
        against,
        {name: overall_test(results[names[0]], results[name], seed) for name in names[1:]}
        if len(table.tasks) > 1
        else {name: (lines[0].comparison.effect, lines[0].p_holm) for name, lines in against.items()},
        selection,
        preservation_curve(table, selection, seed=seed) if selection is not None else None,
        cuts,
    )


def order_table(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Header and rows: place, interval of places, Borda, means, cost."""
    by_kind = mean_by_kind(board.table)
    header = ["model", "rank", "95 % (items)", "95 % (tasks)", "Borda", "mean", *by_kind, "dimensions", "texts/s"]
    places = ranks(board.points)
    rows = []
    for row in board.order:
        run = board.runs[row]
        spans = [found.get(run.name, (1, 1)) for found in (board.over_items, board.over_tasks)]
        means = [board.table.values[row].mean(), *(values[row] for values in by_kind.values())]
        rows.append(
            [
                run.name,
                str(places[row]),
                *(f"{low}-{high}" for low, high in spans),
                f"{board.points[row]:g}",
                *(f"{100 * mean:.1f}" for mean in means),
                str(run.about.dimension),
                f"{run.texts_per_second:,.0f}" if run.texts_per_second else "-",
            ]
        )
    return header, rows


def task_table(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a task, `value [low, high]` a model, the best model first."""
    runs = [board.runs[row] for row in board.order]
    rows = []
    for task, kind in zip(board.table.tasks, board.table.kinds, strict=True):
        cells = []
        for run in runs:
            low, high = _interval(run.results[task].per_item)
            cells.append(f"{100 * run.results[task].value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        rows.append([task, kind, runs[0].results[task].metric, *cells])
    return ["task", "type", "metric", *(run.name for run in runs)], rows


def comparison_rows(board: Leaderboard) -> list[tuple[str, list[str], list[list[str]]]]:
    """Per other model: title, header and rows of the paired tests with the first model asked for."""
    found = []
    for name, lines in board.against.items():
        effect, p = board.overall[name]
        rows = [
            [
                one.task,
                f"{100 * one.comparison.effect:+.2f}",
                f"[{100 * one.comparison.low:+.2f}, {100 * one.comparison.high:+.2f}]",
                f"{one.p_holm:.2g}",
            ]
            for one in lines
        ]
        if len(lines) > 1:
            rows.append(["mean of the tasks", f"{100 * effect:+.2f}", "", f"{p:.2g}"])
        found.append(
            (f"{board.runs[0].name} against {name}", ["task", "difference", "95 % interval", "p (Holm)"], rows)
        )
    return found


def size_grid(board: Leaderboard) -> tuple[list[int], list[int], np.ndarray] | None:
    """Layers, dimensions and mean scores `(layers, dimensions)`, where the models are all such cuts of one model."""
    found = [re.fullmatch(r"(.+)#layers=(\d+),dimensions=(\d+)", run.name) for run in board.runs]
    cells = {(int(one[2]), int(one[3])): row for row, one in enumerate(found) if one is not None}
    layers, dimensions = (sorted({size[i] for size in cells}) for i in (0, 1))
    one_model = len({one[1] for one in found if one is not None}) == 1
    if not one_model or not len(cells) == len(board.runs) == len(layers) * len(dimensions) > 1:
        return None
    means = board.table.values.mean(axis=1)
    return layers, dimensions, np.array([[means[cells[n, d]] for d in dimensions] for n in layers])


def write_suite_report(path: str | Path, board: Leaderboard) -> Path:
    """Write the report as .html or .md.

    Raises:
        InputError: another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".html", ".md"):
        raise InputError(f"a report is written as .html or .md, not as {path.name}")
    write_atomically(path, (_html(board) if suffix == ".html" else _markdown(board)).encode())
    return path


def _sections(board: Leaderboard) -> list[tuple[str, str, tuple[list[str], list[list[str]]] | None, str | None]]:
    """Title, words, table and picture of every part of a report."""
    names = [board.runs[row].name for row in board.order]
    values = board.table.values[list(board.order)]
    parts: list[tuple[str, str, Any, str | None]] = [
        (
            "Order",
            f"{len(board.runs)} models on {len(board.table.tasks)} tasks, ordered by Borda points. The intervals are the "
            "places that a model keeps in 95 % of bootstrap resamples of the items, and of the tasks. Scores are times "
            "100; texts per second are of this machine under its load, first computation.",
            order_table(board),
            None,
        ),
        ("Scores", "Colours compare the models within a task.", None, heat_map(values, names, board.table.tasks)),
    ]
    grid = size_grid(board)
    if grid is not None:
        layers, dimensions, means = grid
        words = "Mean score over the tasks of every size: layers down, dimensions across."
        header = ["layers", *map(str, dimensions)]
        rows = [[str(n), *(f"{100 * value:.1f}" for value in line)] for n, line in zip(layers, means, strict=True)]
        picture = heat_map(means, [f"{n} layers" for n in layers], list(map(str, dimensions)), by_column=False)
        parts.append(("Sizes", words, (header, rows), picture))
    if board.difference is not None:
        told = "tell" if board.difference.p < 0.05 else "do not tell"
        parts.append(
            (
                "Critical differences",
                f"The tasks {told} the models apart (Friedman's test with Iman and Davenport's correction, "
                f"p = {board.difference.p:.2g}); models joined by a bar are not told apart at 5 % (Nemenyi).",
                None,
                critical_difference_diagram([run.name for run in board.runs], board.difference),
            )
        )
    parts.append(("Tasks", "95 % bootstrap intervals over items.", task_table(board), None))
    for title, header, rows in comparison_rows(board):
        words = "Paired tests over the same items, corrected over the tasks by Holm; the row of the mean flips signs of tasks."
        parts.append((title, words, (header, rows), None))
    if board.selection is not None and board.curve is not None:
        removed = [
            [one.task, f"{one.spearman:.3f}", f"{one.pearson:.3f}", f"{one.z_error:.3f}"]
            for one in board.selection.removed
        ]
        few = (
            " Fewer models than tasks: the regression is the one of least norm."
            if board.selection.underdetermined
            else ""
        )
        words = f"{len(board.selection.kept)} tasks are kept: {', '.join(board.selection.kept)}.{few}"
        picture = curves(
            board.curve["tasks"],
            {"selected": board.curve["selected"], "random, mean": board.curve["random"]},
            "tasks left",
            "Spearman with the whole suite",
        )
        parts.append(("Selected tasks", words, (["removed", "Spearman", "Pearson", "z error"], removed), picture))
    if board.cuts is not None:
        parts.append(_cut_section(board.cuts))
    return parts


def _cut_section(cuts: dict[str, list[float]]) -> tuple[str, str, tuple[list[str], list[list[str]]], str]:
    """How far the retrieval corpora could be cut."""
    rows = [
        [f"{top:.0f}", f"{100 * pairs:.1f} %", f"{agreement:.3f}", f"{100 * own:+.1f}", f"{100 * other:+.1f}"]
        for top, pairs, agreement, own, other in zip(*cuts.values(), strict=True)
    ]
    words = (
        "Retrieval corpora cut to what the first three models rank high for a query, and all that is relevant. The order "
        "is compared with that on the whole corpora; the level moves, most for models that did not build the pool."
    )
    header = ["top", "pairs scored", "Spearman with whole corpora", "nDCG of the pool", "nDCG of the others"]
    picture = curves(
        [100 * share for share in cuts["pairs"]],
        {"order of models": cuts["agreement"]},
        "pairs scored, %",
        "Spearman with whole corpora",
    )
    return "Smaller corpora", words, (header, rows), picture


def _markdown(board: Leaderboard) -> str:
    lines = [f"# Suite {board.suite}", ""]
    for title, words, table, picture in _sections(board):
        lines += [f"## {title}", "", words, ""]
        lines += [markdown_table(*table), ""] if table else []
        lines += [f"![{title}]({picture})", ""] if picture else []
    return "\n".join(lines)


def _html(board: Leaderboard) -> str:
    title = html.escape(f"Suite {board.suite}")
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8">']
    parts += ['<meta name="viewport" content="width=device-width, initial-scale=1">']
    parts += [f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"]
    for name, words, table, picture in _sections(board):
        parts += [f"<h2>{html.escape(name)}</h2><p>{html.escape(words)}</p>"]
        parts += [html_table(*table)] if table else []
        parts += [f'<p class="wide"><img alt="{html.escape(name)}" src="{picture}"></p>'] if picture else []
    return "\n".join([*parts, "</body></html>\n"])


def _interval(items: np.ndarray) -> list[float]:
    if len(items) < 2:
        return [float(items[0])] * 2
    _, low, high = bootstrap_interval(items, resamples=2000)
    return [float(low), float(high)]

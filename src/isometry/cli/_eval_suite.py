"""The suite side of `isometry eval`: models by name over a suite of tasks, printed, kept and reported."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isometry.cli._shared import print_json, progress_bar, tell
from isometry.errors import InputError, NotFoundError, StorageError

BASELINES = ("random", "words", "characters", "lsa", "static")


def open_model(name: str, download: bool = False) -> Any:
    """An encoder by name: a folder, a baseline ('lsa', 'lsa#dimensions=64'), 'default' or a hub name."""
    from isometry.encoders import load_encoder

    found = re.fullmatch(r"(\w+)(?:#dimensions=(\d+))?", name)
    if found is None or found[1] not in BASELINES or Path(name).is_dir():
        encoder = load_encoder(name, download=download)
        if encoder.describe().multi_vector:
            raise InputError(f"{name} gives several vectors a text, and the tasks compare one vector each")
        return encoder
    kind, size = found[1], {"dimension": int(found[2])} if found[2] else {}
    if kind == "static":
        if size:
            raise InputError("the static baseline has the dimensions of its token embeddings: leave '#dimensions' out")
        from isometry.encoders.static import StaticEncoder

        return StaticEncoder()
    from isometry.evaluation import baselines

    if kind == "random":
        return baselines.RandomVectors(**size)
    if kind == "lsa":
        return baselines.Lsa(**size)
    return baselines.HashedWords(**size, of="characters" if kind == "characters" else "words")


def grid_of(models: Sequence[str], grid: str) -> list[str]:
    """'my-model' and '2,6x96,384' to the names of its four cuts, the largest first."""
    found = re.fullmatch(r"(\d+(?:,\d+)*)\s*x\s*(\d+(?:,\d+)*)", grid.strip())
    if found is None:
        raise InputError(f"--grid {grid}: give layers and dimensions, e.g. 2,4,6x48,96,384")
    if len(models) != 1 or "#" in models[0] or models[0] in BASELINES:
        raise InputError("--grid takes one model that has layers, and no cut of it")
    layers, dimensions = (sorted({int(one) for one in part.split(",")}, reverse=True) for part in found.groups())
    return [f"{models[0]}#layers={n},dimensions={d}" for n in layers for d in dimensions]


def evaluate_suite(
    models: Sequence[str],
    suite: str,
    tasks: Sequence[str],
    data: Path | None,
    out: Path | None,
    cache: Path | None,
    select: bool,
    report: Path | None,
    download: bool,
    as_json: bool,
) -> None:
    """Run, print and keep a suite; `suite` is one of ours or a benchmark of mteb."""
    from isometry.evaluation.suite_report import leaderboard, order_table, write_suite_report
    from isometry.evaluation.suite_run import cut_suite, load_tasks, run_model
    from isometry.evaluation.suites import SUITES
    from isometry.evaluation.suites import suite as tasks_of
    from isometry.recipes._data import find_data

    if len(set(models)) < len(models):
        raise InputError("a model stands twice in the list")
    if select and len(models) < 3:
        raise InputError(f"--select predicts models from each other: give at least 3, not {len(models)}")
    if suite not in SUITES:
        _evaluate_mteb(models, suite, tasks, out, select, report, download, as_json)
        return
    entries = tasks_of(suite, tasks)
    if out is not None:
        _make(out)
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isometry" / "vectors"
    loaded = load_tasks(entries, partial(find_data, folder=data))
    # a wrong name must not be found out after the hours that the models before it took
    opened = [(name, open_model(name, download)) for name in models]
    runs = []
    for name, encoder in opened:
        with progress_bar(name, show=not as_json) as progress:
            runs.append(run_model(name, encoder, loaded, cache, out, progress))
        if runs[-1].reused:
            tell(f"{name}: {len(runs[-1].reused)} of {len(loaded)} results were in {out} already")
        if getattr(encoder, "truncated", 0):
            tell(f"{encoder.truncated:,} texts were longer than {name} reads and were cut")
    cuts = cut_suite(loaded, dict(opened), cache) if select else None
    board = leaderboard(suite, runs, select, cuts=cuts)
    document = board.to_dict()
    reports = [report] if report is not None else []
    if out is not None:
        reports += [out / "report.html", out / "report.md"]
    for path in reports:
        write_suite_report(path, board)
    if as_json:
        print_json(document)
        return
    print_table(*order_table(board))
    over = "tasks" if len(board.table.tasks) > 1 else "items"
    for name, (effect, p) in board.overall.items():
        better = sum(one.p_holm < 0.05 and one.comparison.effect > 0 for one in board.against[name])
        worse = sum(one.p_holm < 0.05 and one.comparison.effect < 0 for one in board.against[name])
        print(
            f"{models[0]} - {name}: {100 * effect:+.1f} on average (p = {p:.2g} over {over}); "
            f"significantly better on {better} tasks, worse on {worse}, of {len(board.against[name])} (Holm)"
        )
    if board.selection is not None and board.curve is not None:
        kept = board.selection.kept
        print(
            f"{len(kept)} of {len(board.table.tasks)} tasks keep the order (Spearman {board.curve['selected'][-1]:.3f},"
        )
        print(f"as good as {board.curve['percentile'][-1]:.0%} of random choices): {', '.join(kept)}")
    if cuts is not None:
        last = max(
            (i for i, one in enumerate(cuts["agreement"]) if one >= 0.95), key=lambda i: -cuts["pairs"][i], default=None
        )
        if last is None:
            print("no cut of the retrieval corpora keeps the order of models (Spearman 0.95)")
        else:
            print(
                f"retrieval corpora cut to the top {cuts['top'][last]:.0f} of three models keep it (Spearman "
                f"{cuts['agreement'][last]:.3f}) at {cuts['pairs'][last]:.0%} of the scored pairs"
            )
    for path in reports:
        tell(f"the report is {path}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in plain text."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _evaluate_mteb(
    models: Sequence[str],
    suite: str,
    tasks: Sequence[str],
    out: Path | None,
    select: bool,
    report: Path | None,
    download: bool,
    as_json: bool,
) -> None:
    """mteb's benchmark of that name, or single tasks of mteb under the name 'mteb'."""
    import numpy as np

    from isometry.evaluation.mteb_adapter import mteb_tasks, run_mteb
    from isometry.evaluation.ranking import borda, ranks
    from isometry.evaluation.suites import SUITES

    local = f"the local suites are {', '.join(SUITES)}"
    if suite == "mteb" and not tasks:
        raise InputError("--suite mteb needs --task: name mteb's tasks, or give a benchmark as 'MTEB(eng, v2)'")
    try:
        found = mteb_tasks(list(tasks) if suite == "mteb" else [suite])
    except (NotFoundError, ImportError) as error:
        raise NotFoundError(f"no suite '{suite}': {error}; {local}") from error
    if select or report is not None:
        raise InputError("--select and --report need values item by item, which mteb's tasks do not give")
    if suite != "mteb" and tasks:
        there = {task.metadata.name for task in found}
        if absent := [task for task in tasks if task not in there]:
            raise NotFoundError(f"'{suite}' has no task '{absent[0]}'")
        found = [task for task in found if task.metadata.name in tasks]
    if out is None:
        raise InputError("--out FOLDER is needed for mteb's tasks: it keeps mteb's result files")
    _make(out)
    opened = [(name, open_model(name, download)) for name in models]
    scores: dict[str, dict[str, float]] = {name: {} for name in models}
    with progress_bar(suite, show=not as_json) as progress:
        for place, (name, encoder) in enumerate(opened):
            for done, task in enumerate(found):
                progress(place * len(found) + done, len(models) * len(found))
                scores[name] |= run_mteb(encoder, [task], out)
    names = [task.metadata.name for task in found]
    values = np.array([[scores[model][task] for task in names] for model in models])
    points = borda(values)
    places = ranks(points)
    if as_json:
        rows = [
            {
                "model": name,
                "rank": int(places[i]),
                "borda": float(points[i]),
                "mean": float(values[i].mean()),
                "tasks": scores[name],
            }
            for i, name in enumerate(models)
        ]
        print_json({"suite": suite, "models": rows})
        return
    cells = [[str(places[i]), name, f"{points[i]:g}", f"{100 * values[i].mean():.1f}"] for i, name in enumerate(models)]
    print_table(["rank", "model", "Borda", "mean"], sorted(cells, key=lambda row: int(row[0])))
    print_table(["task", *models], [[t, *(f"{100 * scores[m][t]:.1f}" for m in models)] for t in names])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"--out {folder} cannot be made: {error.strerror}") from error

"""isometry train: data in, a model folder out."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from isometry.cli._shared import print_json, tell
from isometry.errors import InputError

if TYPE_CHECKING:
    from isometry.training import TrainingRun

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: str = typer.Argument(
        help="A preset (contrastive, graded, starbucks, gistembed, …) or a file of a run or of stages (.json)."
    ),
    data: list[str] = typer.Option(
        [],
        help="Training rows: anchor and positive, scores, or text and label; a file, or hub:OWNER/NAME. Several: pairs.",
    ),
    columns: str | None = typer.Option(
        None, help="The data's columns where they have other names: anchor=title,positive=abstract."
    ),
    out: Path = typer.Option(..., help="Folder of the new model."),
    scale: str = typer.Option("laptop", help="laptop, or full: the paper's own model, data, batch and learning rate."),
    stage: int = typer.Option(
        1, help="Which of the stages of --scale full; give a later one the model of the one before."
    ),
    test: Path | None = typer.Option(None, help="Rows the model is judged on later: checked for leaks."),
    drop_leaks: bool | None = typer.Option(
        None, "--drop-leaks", help="Leave rows that are also in --test out, instead of stopping."
    ),
    model: str | None = typer.Option(None, help="Model to start from: 'default', a folder, or a hub name at hand."),
    epochs: float | None = typer.Option(None, help="Passes over the data."),
    steps: int | None = typer.Option(None, help="Steps instead of passes."),
    batch_size: int | None = typer.Option(None, help="Rows per step, of all processes together."),
    accumulate: int | None = typer.Option(None, help="Batches per step of the weights."),
    mixing: float | None = typer.Option(None, help="Of several data sets, the share of a batch from one, 0 to 1."),
    length_window: int | None = typer.Option(None, help="Batches sorted by length together; 1 = rows as they come."),
    mini_batch_size: int | None = typer.Option(None, help="Gradient caching: texts embedded at a time."),
    learning_rate: float | None = typer.Option(None, help="Highest learning rate."),
    temperature: float | None = typer.Option(None, help="Of the contrastive softmax."),
    in_batch: bool | None = typer.Option(None, help="Whether other rows' positives are negatives."),
    guide: str | None = typer.Option(None, help="Model that masks false negatives."),
    mine: int | None = typer.Option(None, help="Hard negatives to mine per row."),
    miner: str | None = typer.Option(None, help="Model that finds them; by default the one to start from."),
    corpus: str | None = typer.Option(
        None, help="Mine here too: a file of documents, or a collection's folder, whose encoder is the miner then."
    ),
    consistent: int | None = typer.Option(
        None, help="Leave out rows whose positive is not among so many texts that the miner finds nearest."
    ),
    teacher: str | None = typer.Option(None, help="Model that the recipes distil, distil-margins, distil-layers copy."),
    soft_weight: float | None = typer.Option(None, help="Weight of the miner's scores as soft labels."),
    freeze: int | None = typer.Option(None, help="Lower layers that stay as they are."),
    lora: int | None = typer.Option(None, help="Rank of low-rank adapters; 0 trains all weights."),
    pooling: str | None = typer.Option(
        None, help="keep, mean, weighted, last-token, latent, attention or multi-layer."
    ),
    attention: str | None = typer.Option(None, help="keep, causal or bidirectional."),
    instruction: str | None = typer.Option(None, help="Task that every anchor is told."),
    examples: int | None = typer.Option(None, help="Other rows of the task shown before an anchor, 0 to so many."),
    beside: str | None = typer.Option(
        None, help="Fixed encoder of the chunk alone, added to one that reads chunk and context: a residual pair."
    ),
    precision: str | None = typer.Option(None, help="float32 or bfloat16."),
    max_tokens: int | None = typer.Option(None, help="Length limit of texts."),
    hold_out: float | None = typer.Option(None, help="Share of rows kept for the evaluation loss."),
    patience: int | None = typer.Option(None, help="Evaluations without gain until it stops; needs --hold-out."),
    save_every: int | None = typer.Option(None, help="Steps between checkpoints."),
    seed: int | None = typer.Option(None, help="Of everything that is drawn."),
    settings: list[str] = typer.Option([], "--set", help="Any setting of a run file: NAME=VALUE. May be repeated."),
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of the same run."),
    processes: int | None = typer.Option(None, help="Processes that share each batch; by default one a GPU, else one."),
    download: bool = typer.Option(False, "--download", help="Fetch models and data that only the hub has."),
    as_json: bool = typer.Option(False, "--json", help="Print what came out as one JSON document."),
) -> None:
    """Train an embedding model and save it with its run file; the same run gives the same weights again."""
    runs = _runs(recipe, scale, stage)
    given = dict(locals())
    known = {field.name for field in fields(runs[0])} - {"recipe", "data", "model"}
    changes: dict[str, Any] = {name: _plain(given[name]) for name in known & given.keys() if given[name] is not None}
    changes |= dict(map(_setting, settings))
    if data:
        changes |= {"data": data[0], "more_data": tuple(data[1:])}
    runs = [replace(run, **changes) for run in runs]
    if model is not None:
        runs[0] = replace(runs[0], model=model)
    if not all(run.data for run in runs):
        raise InputError("no training data: give --data FILE")

    count = _processes() if processes is None else processes
    if count < 1:
        raise InputError(f"--processes {count}: at least one trains")
    if count > 1 and "WORLD_SIZE" not in os.environ:
        flags = [("--resume", resume), ("--download", download), ("--json", as_json)]
        raise typer.Exit(_together(runs, out, count, [name for name, on in flags if on]))
    _train(runs, out, resume, download, as_json)


def _runs(recipe: str, scale: str, stage: int) -> list[TrainingRun]:
    """What the recipe's name or file and --scale stand for, before any option changes it."""
    from isometry.training import preset, read_runs

    if scale == "full":
        return [_stage(recipe, stage)]
    if scale != "laptop":
        raise InputError(f"--scale is laptop or full, not '{scale}'")
    return list(read_runs(recipe)) if recipe.endswith(".json") else [preset(recipe)]


def _setting(given: str) -> tuple[str, Any]:
    """'focal=0.5' as a name and what JSON makes of the value; a value that is no JSON is a text."""
    from isometry.training.run import setting, tuple_of

    name, mark, value = given.partition("=")
    if not mark:
        raise InputError(f"--set {given}: give NAME=VALUE, e.g. --set focal=0.5")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return setting(name.strip().replace("-", "_"), "--set"), tuple_of(found)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _train(runs: list[TrainingRun], out: Path, resume: bool, download: bool, as_json: bool) -> None:
    """One run, or stages one after the other; the first process tells how it goes."""
    from isometry.training import TrainingStep, train_stages

    if os.environ.get("RANK", "0") != "0":
        train_stages(runs, out, resume=resume, download=download)
        return

    def show(step: TrainingStep) -> None:
        if step.step in (1, step.total) or step.step % max(1, step.total // 20) == 0:
            loss = f", loss {step.loss:.4f}" if step.loss is not None else ""
            rate = f", learning rate {step.learning_rate:.2g}" if step.learning_rate is not None else ""
            held = f", held-out loss {step.held_out_loss:.4f}" if step.held_out_loss is not None else ""
            tell(f"step {step.step:,} of {step.total:,}{loss}{held}{rate}, {step.rows_per_second:,.0f} rows/s")

    try:
        results = train_stages(runs, out, resume=resume, progress=show, say=tell, download=download)
    except KeyboardInterrupt:
        tell("the same command with --resume goes on from the last checkpoint")
        raise
    if not results:
        tell(f"nothing is left to do: the model is in {out}")
    for result in results:
        tell(
            f"{result.steps:,} step{'s' * (result.steps != 1)} in {result.seconds:.0f} s; the model is in {result.model}"
        )
    if as_json:
        last = results[-1].to_dict() if results else {"model": str(out), "steps": 0}
        stages = [result.to_dict() for result in results]
        print_json({**last, "recipe": runs[-1].recipe, **({"stages": stages} if len(runs) > 1 else {})})


def _stage(recipe: str, number: int) -> Any:
    from isometry.training import full_scale

    found = full_scale(recipe)
    if not 1 <= number <= len(found.stages):
        raise InputError(f"the training of paper {found.paper} has {len(found.stages)} stage(s); there is no {number}")
    for sentence in found.departures:
        tell(f"differs from the paper: {sentence}")
    return found.stages[number - 1]


def _processes() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _together(runs: list[TrainingRun], out: Path, count: int, flags: list[str]) -> int:
    """The same runs in several processes of this machine; the exit code."""
    from isometry.training.processes import run_in_processes

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        file.write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
        return run_in_processes(count, functools.partial(_one_of_several, [str(file), "--out", str(out), *flags]))


def _one_of_several(arguments: list[str], rank: int) -> int:
    """`isometry train` in one of them; only the first has a voice."""
    from isometry.cli.main import main

    if rank:
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        main(["train", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0

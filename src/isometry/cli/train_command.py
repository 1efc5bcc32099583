"""isometry train: data in, a model folder out."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

from isometry.cli._shared import print_json, tell
from isometry.errors import InputError

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: str = typer.Argument(help="A preset (contrastive, graded, starbucks, gistembed, …) or a run file (.json)."),
    data: list[str] = typer.Option(
        [],
        help="Training rows: anchor and positive, scores, or text and label; a file, or hub:OWNER/NAME. Several: pairs.",
    ),
    out: Path = typer.Option(..., help="Folder of the new model."),
    scale: str = typer.Option("laptop", help="laptop, or full: the paper's own model, data, batch and learning rate."),
    stage: int = typer.Option(
        1, help="Which of the stages of --scale full; give a later one the model of the one before."
    ),
    test: Path | None = typer.Option(None, help="Rows the model is judged on later: checked for leaks."),
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
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of the same run."),
    processes: int | None = typer.Option(None, help="Processes that share each batch; by default one a GPU, else one."),
    download: bool = typer.Option(False, "--download", help="Fetch models and data that only the hub has."),
    as_json: bool = typer.Option(False, "--json", help="Print what came out as one JSON document."),
) -> None:
    """Train an embedding model and save it with its run file; the same run gives the same weights again."""
    from isometry.training import TrainingRun, TrainingStep, preset
    from isometry.training import train as run_training

    given = dict(locals())
    if scale == "full":
        start = _stage(recipe, stage)
    elif scale == "laptop":
        start = TrainingRun.from_json(recipe) if recipe.endswith(".json") else preset(recipe)
    else:
        raise InputError(f"--scale is laptop or full, not '{scale}'")
    names = {field.name for field in fields(TrainingRun)} - {"recipe"}
    changes: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if name in names - {"data"} and value is not None
    }
    if data:
        changes |= {"data": data[0], "more_data": tuple(data[1:])}
    for name, allowed in (
        ("pooling", ("keep", "mean", "weighted", "last-token", "latent", "attention", "multi-layer")),
        ("attention", ("keep", "causal", "bidirectional")),
        ("precision", ("float32", "bfloat16")),
    ):
        if changes.get(name, allowed[0]) not in allowed:
            raise InputError(f"--{name} is one of {', '.join(allowed)}, not '{changes[name]}'")
    run = replace(start, **changes)
    if not run.data:
        raise InputError("no training data: give --data FILE")

    count = _processes() if processes is None else processes
    if count < 1:
        raise InputError(f"--processes {count}: at least one trains")
    if count > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(_together(run, out, count, [name for name, on in _flags(resume, download, as_json) if on]))
    if os.environ.get("RANK", "0") != "0":
        run_training(run, out, resume=resume, download=download)
        return

    def show(step: TrainingStep) -> None:
        if step.step in (1, step.total) or step.step % max(1, step.total // 20) == 0:
            loss = f", loss {step.loss:.4f}" if step.loss is not None else ""
            rate = f", learning rate {step.learning_rate:.2g}" if step.learning_rate is not None else ""
            tell(f"step {step.step:,} of {step.total:,}{loss}{rate}, {step.rows_per_second:,.0f} rows/s")

    result = run_training(run, out, resume=resume, progress=show, say=tell, download=download)
    if as_json:
        print_json({**result.to_dict(), "recipe": run.recipe})
    else:
        tell(f"{result.steps} steps in {result.seconds:.0f} s; the model is in {result.model}")


def _stage(recipe: str, number: int) -> Any:
    from isometry.training import full_scale

    found = full_scale(recipe)
    if not 1 <= number <= len(found.stages):
        raise InputError(f"the training of paper {found.paper} has {len(found.stages)} stage(s); there is no {number}")
    for sentence in found.departures:
        tell(f"differs from the paper: {sentence}")
    return found.stages[number - 1]


def _flags(resume: bool, download: bool, as_json: bool) -> list[tuple[str, bool]]:
    return [("--resume", resume), ("--download", download), ("--json", as_json)]


def _processes() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _together(run: Any, out: Path, count: int, flags: list[str]) -> int:
    """The same run in several processes of this machine; the exit code."""
    from isometry.training.processes import run_in_processes

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        file.write_text(run.to_json(), encoding="utf-8")
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

"""isometry train: data in, a model folder out."""

from __future__ import annotations

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
    data: Path | None = typer.Option(None, help="Training rows: anchor and positive, scores, or text and label."),
    out: Path = typer.Option(..., help="Folder of the new model."),
    test: Path | None = typer.Option(None, help="Rows the model is judged on later: checked for leaks."),
    model: str | None = typer.Option(None, help="Model to start from: 'default', a folder, or a hub name at hand."),
    epochs: float | None = typer.Option(None, help="Passes over the data."),
    steps: int | None = typer.Option(None, help="Steps instead of passes."),
    batch_size: int | None = typer.Option(None, help="Rows per step."),
    mini_batch_size: int | None = typer.Option(None, help="Gradient caching: texts embedded at a time."),
    learning_rate: float | None = typer.Option(None, help="Highest learning rate."),
    temperature: float | None = typer.Option(None, help="Of the contrastive softmax."),
    in_batch: bool | None = typer.Option(None, help="Whether other rows' positives are negatives."),
    guide: str | None = typer.Option(None, help="Model that masks false negatives."),
    mine: int | None = typer.Option(None, help="Hard negatives to mine per row."),
    freeze: int | None = typer.Option(None, help="Lower layers that stay as they are."),
    lora: int | None = typer.Option(None, help="Rank of low-rank adapters; 0 trains all weights."),
    pooling: str | None = typer.Option(None, help="keep, mean, last-token, latent, attention or multi-layer."),
    attention: str | None = typer.Option(None, help="keep, causal or bidirectional."),
    instruction: str | None = typer.Option(None, help="Task that every anchor is told."),
    precision: str | None = typer.Option(None, help="float32 or bfloat16."),
    max_tokens: int | None = typer.Option(None, help="Length limit of texts."),
    hold_out: float | None = typer.Option(None, help="Share of rows kept for the evaluation loss."),
    patience: int | None = typer.Option(None, help="Evaluations without gain until it stops; needs --hold-out."),
    save_every: int | None = typer.Option(None, help="Steps between checkpoints."),
    seed: int | None = typer.Option(None, help="Of everything that is drawn."),
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of the same run."),
    as_json: bool = typer.Option(False, "--json", help="Print what came out as one JSON document."),
) -> None:
    """Train an embedding model and save it with its run file; the same run gives the same weights again."""
    from isometry.training import TrainingRun, TrainingStep, preset
    from isometry.training import train as run_training

    given = dict(locals())
    start = TrainingRun.from_json(recipe) if recipe.endswith(".json") else preset(recipe)
    names = {field.name for field in fields(TrainingRun)} - {"recipe"}
    changes: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if name in names and value is not None
    }
    for name, allowed in (
        ("pooling", ("keep", "mean", "last-token", "latent", "attention", "multi-layer")),
        ("attention", ("keep", "causal", "bidirectional")),
        ("precision", ("float32", "bfloat16")),
    ):
        if changes.get(name, allowed[0]) not in allowed:
            raise InputError(f"--{name} is one of {', '.join(allowed)}, not '{changes[name]}'")
    run = replace(start, **changes)
    if not run.data:
        raise InputError("no training data: give --data FILE")

    def show(step: TrainingStep) -> None:
        if step.step in (1, step.total) or step.step % max(1, step.total // 20) == 0:
            loss = f", loss {step.loss:.4f}" if step.loss is not None else ""
            rate = f", learning rate {step.learning_rate:.2g}" if step.learning_rate is not None else ""
            tell(f"step {step.step:,} of {step.total:,}{loss}{rate}, {step.rows_per_second:,.0f} rows/s")

    result = run_training(run, out, resume=resume, progress=show, say=tell)
    if as_json:
        print_json({**result.to_dict(), "recipe": run.recipe})
    else:
        tell(f"{result.steps} steps in {result.seconds:.0f} s; the model is in {result.model}")

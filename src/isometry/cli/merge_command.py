"""isometry merge: several models of one start made into one."""

from __future__ import annotations

from pathlib import Path

import typer

from isometry.cli._shared import print_json, tell

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    models: list[Path] = typer.Argument(help="Two model folders or more, trained from the same start."),
    out: Path = typer.Option(..., help="Folder of the merged model."),
    method: str = typer.Option(
        "soup", help="soup, task, slerp, ties, dare, fisher, regmean or self-positioning; the last three need --data."
    ),
    data: Path | None = typer.Option(None, help="Pairs to learn the merge from; none of the evaluation data."),
    base: str | None = typer.Option(None, help="The common start; by default what the run files name."),
    weight: list[float] = typer.Option([], help="Weight of each model, in their order."),
    scale: float = typer.Option(1.0, help="Factor of the merged task vector."),
    keep: float = typer.Option(0.2, help="Share of entries that ties and dare keep."),
    mu: float = typer.Option(0.0, help="Price of the length in self-positioning."),
    steps: int = typer.Option(100, help="Probe batches."),
    batch_size: int = typer.Option(32, help="Rows of a probe batch."),
    learning_rate: float = typer.Option(1e-2, help="Of the search in self-positioning."),
    temperature: float = typer.Option(0.05, help="Of the probe loss; take the one of training."),
    seed: int = typer.Option(0, help="Of everything that is drawn."),
    mergekit: bool = typer.Option(False, "--mergekit", help="Let mergekit do soup, task, ties or dare."),
    as_json: bool = typer.Option(False, "--json", help="Print what came out as one JSON document."),
) -> None:
    """Merge models into one by averaging, by rules, or by a search on data."""
    from isometry.training.merging import merge_models

    position = merge_models(
        models,
        out,
        method,  # type: ignore[arg-type]
        base=base,
        data=data,
        weights=weight or None,
        scale=scale,
        keep=keep,
        mu=mu,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        seed=seed,
        mergekit=mergekit,
        say=tell,
    )
    if as_json:
        found = {} if position is None else {"coefficients": list(position.coefficients), "scale": position.scale}
        print_json({"model": str(out), "method": method, "models": [str(path) for path in models], **found})
    else:
        tell(f"merged {len(models)} models by {method} into {out}")

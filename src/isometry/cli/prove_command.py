"""isometry prove: run a recipe, print and keep its evidence."""

from __future__ import annotations

from pathlib import Path

import typer

from isometry.cli._shared import print_json, progress_bar
from isometry.evaluation import Evidence
from isometry.evaluation.atomic import write_atomically
from isometry.recipes import load_recipe
from isometry.recipes._techniques import PAGE, techniques_page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def prove(
    name: str = typer.Argument(help="Name of a recipe; 'isometry recipes' lists them."),
    scale: str = typer.Option("laptop", help="tiny (seconds), laptop (minutes) or full."),
    seeds: int | None = typer.Option(None, help="How many seeds; each recipe has its own default."),
    data: Path | None = typer.Option(None, help="Folder of the data sets; $ISOMETRY_DATA otherwise."),
    out: Path = typer.Option(
        Path("evidence"), help="Folder for the evidence file; in a checkout docs/which-technique-helped.md follows it."
    ),
    strict: bool = typer.Option(False, help="Exit with 1 unless the verdict is 'supports'."),
    as_json: bool = typer.Option(False, "--json", help="Print the evidence as one JSON document."),
) -> None:
    """Run a recipe on real data and write what follows to OUT/NAME.SCALE.json. Verdicts are computed, never typed."""
    recipe = load_recipe(name)
    with progress_bar(f"{recipe.name} ({scale})") as progress:
        evidence = recipe.prove(scale, seeds, data, progress)
    path = evidence.save(out)
    page = out.absolute().parent / PAGE
    if page.is_file():  # a checkout: its page of all evidence stays true
        write_atomically(page, techniques_page(out).encode())
    if as_json:
        print_json(evidence.to_dict())
    else:
        _print(evidence, path)
    if strict and evidence.verdict != "supports":
        raise typer.Exit(1)


def _print(evidence: Evidence, path: Path) -> None:
    print(f"{evidence.recipe} (paper {evidence.paper}) on {evidence.data}; {len(evidence.seeds)} seeds")
    for line in evidence.claims:
        low, high = line.interval
        print(f"  {line.verdict:<12} {line.claim.text}")
        print(
            f"               {line.claim.metric}: {line.claim.treatment} - {line.claim.baseline} = {line.effect:+.4f}"
            f" [{low:+.4f}, {high:+.4f}], to beat {line.claim.minimal_effect:+g}, p = {line.p_holm:.2g}"
        )
    for name, value in evidence.measured.items():
        print(f"  {name} = {value:.4g}")
    print(f"{evidence.seconds:.0f} s, {evidence.peak_mb:.0f} MB at most; written to {path}")

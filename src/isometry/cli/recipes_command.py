"""isometry recipes: the catalogue, with the verdicts of the evidence at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from isometry.cli._shared import print_json
from isometry.errors import InputError, NotFoundError
from isometry.evaluation import Evidence
from isometry.recipes import catalogue
from isometry.recipes._base import Recipe
from isometry.recipes._techniques import techniques_page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def recipes(
    evidence: Path = typer.Option(Path("evidence"), help="Folder of evidence files."),
    page: bool = typer.Option(False, "--page", help="Print 'Which technique helped?' as Markdown."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """List the recipes: paper, claim, parts, and the verdict at each scale that was run."""
    if page:
        if as_json:
            raise InputError("--page prints Markdown: leave --json out")
        if not evidence.is_dir():
            raise NotFoundError(f"there is no folder {evidence}: name the evidence with --evidence")
        print(techniques_page(evidence), end="")
        return
    rows = [_row(recipe, evidence) for recipe in catalogue()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        verdicts = ", ".join(f"{scale}: {verdict}" for scale, verdict in row["evidence"].items()) or "no evidence yet"
        print(f"{row['recipe']}  (paper {row['paper']}: {row['title']})")
        print(f"    {row['claim']}")
        print(f"    parts: {', '.join(row['parts'])}")
        print(f"    {verdicts}")


def _row(recipe: Recipe, folder: Path) -> dict[str, Any]:
    found = {scale: folder / f"{recipe.name}.{scale}.json" for scale in recipe.scales}
    return {
        "recipe": recipe.name,
        "paper": recipe.paper,
        "title": recipe.title,
        "claim": recipe.claim,
        "parts": list(recipe.parts),
        "scales": list(recipe.scales),
        "evidence": {scale: Evidence.load(path).verdict for scale, path in found.items() if path.is_file()},
    }

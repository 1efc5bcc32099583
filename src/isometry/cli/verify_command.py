"""isometry verify DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import print_json, tell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def verify(
    collection: Annotated[Path, typer.Argument(help="the collection's folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Read every stored byte and compare it with its checksum; exit 1 when something is damaged."""
    from isometry.search.store import verify_store

    report = verify_store(collection)
    if as_json:
        print_json(report.to_dict())
    else:
        for problem in report.problems:
            at = "" if problem.offset is None else f" at byte {problem.offset}"
            print(f"{collection / problem.file}{at}: {problem.what}")
        checked = report.checked
        tell(
            f"{'whole' if report.ok else 'DAMAGED'}: {checked['records']:,} records, {checked['vectors']:,} vectors,"
            f" {checked['bytes']:,} bytes read"
        )
    raise typer.Exit(0 if report.ok else 1)

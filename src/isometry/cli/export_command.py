"""isometry export DIR OUT.parquet"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import print_json, tell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def export(
    collection: Annotated[Path, typer.Argument(help="the collection's folder")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Write ids, attributes and vectors to a Parquet file."""
    from isometry.search import Collection

    with Collection.open(collection) as opened:
        records = opened.export(out)
    if as_json:
        print_json({"collection": collection.name, "records": records, "file": str(out)})
    else:
        tell(f"{out}: {records:,} records")

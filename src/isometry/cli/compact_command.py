"""isometry compact DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import print_json, tell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compact(
    collection: Annotated[Path, typer.Argument(help="the collection's folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Rewrite a collection without deleted records and give the space back to the disk."""
    from isometry.search import Collection

    with Collection.open(collection, writable=True) as opened:
        before = opened.info()["bytes_on_disk"]
        opened.compact()
        after = opened.info()
    if as_json:
        print_json({"collection": after["collection"], "records": after["records"], "bytes_before": before,
                    "bytes_on_disk": after["bytes_on_disk"]})  # fmt: skip
    else:
        tell(f"{collection}: {before / 1e6:,.1f} MB before, {after['bytes_on_disk'] / 1e6:,.1f} MB now")

"""isometry info DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import print_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def info(
    collection: Annotated[Path, typer.Argument(help="the collection's folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Say what a collection holds."""
    from isometry.search import Collection

    with Collection.open(collection) as opened:
        found = opened.info()
    if as_json:
        print_json(found)
        return
    encoder = found["encoder"]
    print(
        f"{found['collection']}: {found['records']:,} records, {found['dimension']} dimensions, version {found['version']}"
    )
    print(f"encoder: {encoder['name']} ({encoder['fingerprint']})" if encoder else "encoder: none, vectors are given")
    print(
        f"on disk {found['bytes_on_disk'] / 1e6:,.1f} MB, in memory for searching {found['bytes_in_memory'] / 1e6:,.1f} MB"
    )
    for index in found["indexes"]:
        memory, disk = index["bytes_in_memory_per_record"], index["bytes_on_disk_per_record"]
        why = index.get("problem") or "not yet"
        state = "" if index["complete"] else f"; not built ({why}), searched exactly"
        print(
            f"index: {index['kind']}, {index['rows']:,} rows, {'exact' if index['exact'] else 'approximate'},"
            f" {memory:,.0f} bytes in memory and {disk:,.0f} on disk a record{state}"
        )
    print(f"text searched: {', '.join(found['text_columns']) or 'none'}")
    for column in found["columns"]:
        print(
            f"  {column['name']}: {column['type']}" + (f" ({column['role']})" if column["role"] != "attribute" else "")
        )

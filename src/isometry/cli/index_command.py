"""isometry index SOURCE --into DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isometry.cli._shared import print_json, progress_bar, tell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _listed(value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


@app.command()
def index(
    source: Annotated[str, typer.Argument(help="parquet, csv, tsv, jsonl(.gz/.zst), arrow, a folder, or - for stdin")],
    into: Annotated[Path, typer.Option("--into", help="the collection's folder; made when it is not there")],
    text: Annotated[str | None, typer.Option("--text", help="columns to search, as title,abstract")] = None,
    image: Annotated[str | None, typer.Option("--image", help="column that holds pictures")] = None,
    id: Annotated[str | None, typer.Option("--id", help="column that holds the ids")] = None,
    lists: Annotated[
        str | None, typer.Option("--lists", help="text columns to split into lists, as categories,tags")
    ] = None,
    types: Annotated[str | None, typer.Option("--types", help="column types, as year=int,code=string")] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="of the source, where its name does not say it")
    ] = None,
    encoding: Annotated[
        str, typer.Option("--encoding", help="of text files that are not UTF-8, as latin-1 or utf-16")
    ] = "utf-8",
    encoder: Annotated[str, typer.Option("--encoder", help="model folder or name")] = "default",
    download: Annotated[bool, typer.Option("--download", help="fetch an --encoder that only the hub has")] = False,
    on_bad_row: Annotated[
        Literal["error", "skip"], typer.Option("--on-bad-row", help="error: stop before writing; skip: set aside")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Read records into a collection. Run it again to bring changes in, or to go on after a break."""
    from isometry.records import open_source
    from isometry.search.ingest import ingest

    rejects = into.absolute().parent / f"{into.name}.rejects.jsonl"
    given = open_source(
        source, text=_listed(text), image=image, id=id, lists=_listed(lists) or (), types=_types(types),
        on_bad_row=on_bad_row, rejects=rejects, format=format, encoding=encoding,
    )  # fmt: skip
    for note in given.notes:
        tell(note)
    with (
        progress_bar("checking", show=not as_json) as on_check,
        progress_bar("indexing", show=not as_json) as on_progress,
    ):
        report = ingest(
            given,
            into,
            load_encoder=lambda held: _load(encoder, held, download),
            on_check=on_check,
            on_progress=on_progress,
        )
    if as_json:
        print_json(report.to_dict())
        return
    changed = f"{report.added:,} added, {report.updated:,} updated, {report.unchanged:,} unchanged"
    tell(f"{into}: {report.records:,} records ({changed}) in {report.seconds:.1f} s")
    if report.truncated:
        tell(f"{report.truncated:,} texts were longer than the encoder reads and were cut there")
    if report.rejected:
        tell(f"{report.rejected:,} rows were set aside in {report.rejects_file}")


def _types(value: str | None) -> dict[str, str] | None:
    if value is None:
        return None
    pairs = [part.partition("=") for part in _listed(value) or []]
    wrong = next((name for name, mark, kind in pairs if not mark or not kind), None)
    if wrong is not None:
        raise typer.BadParameter(f"'{wrong}' says no type; write  --types {wrong}=string")
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def _load(name: str, held: str | None, download: bool) -> Any:
    """The encoder asked for; where none was asked for, the one that the collection remembers."""
    from isometry.encoders import load_encoder

    return load_encoder(held if held is not None and name == "default" else name, download=download)

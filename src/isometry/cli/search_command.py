"""isometry search DIR QUERY"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isometry.cli._shared import print_json, shorten, tell
from isometry.errors import InputError
from isometry.types import SearchResult

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def search(
    collection: Annotated[Path, typer.Argument(help="the collection's folder, or a scene's")],
    query: Annotated[
        str | None, typer.Argument(help="words; leave out with --like, --image, --queries or to browse")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="number of hits")] = 10,
    offset: Annotated[int, typer.Option("--offset", help="leave out so many first hits")] = 0,
    where: Annotated[
        str | None, typer.Option("--where", help="filter, as  year(created) >= 2018 AND 'cs.IR' IN categories")
    ] = None,
    mode: Annotated[
        Literal["vector", "text", "hybrid"], typer.Option("--mode", help="vector, text or hybrid")
    ] = "vector",
    like: Annotated[str | None, typer.Option("--like", help="find others like the record with this id")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="find by a picture")] = None,
    queries: Annotated[str | None, typer.Option("--queries", help="file with a query a line (or - for stdin)")] = None,
    sort: Annotated[str | None, typer.Option("--sort", help="order of the most relevant, as 'created desc'")] = None,
    facets: Annotated[
        str | None, typer.Option("--facets", help="count values of attributes, as primary_category,year(created)")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="say which plan ran and what each stage cost")] = False,
    encoder: Annotated[str | None, typer.Option("--encoder", help="where the model is now, if it has moved")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Search a collection by meaning, words or both."""
    from isometry.search import Collection

    if (collection / "scene.json").is_file():
        collection = collection / "objects"  # a scene keeps its objects as a collection
        if not collection.is_dir():
            raise InputError(
                f"{collection.parent} is a scene without searchable objects; 'isometry scene lift' makes them, 'isometry scene "
                "index' makes those that are there searchable"
            )
    loaded = None
    if encoder is not None:
        from isometry.encoders import load_encoder

        loaded = load_encoder(encoder)
    if image is not None and not image.is_file():
        raise InputError(f"there is no picture {image}; give an image file")
    with Collection.open(collection, encoder=loaded) as opened:
        if queries is not None:
            if query is not None or like is not None or image is not None:
                raise InputError("give a query or a file of queries, not both")
            results = opened.search_many(_read_queries(queries), k=k, where=where, mode=mode)
            _print_many(results, as_json)
            return
        result = opened.search(
            query, like=like, image=image, k=k, offset=offset, where=where, mode=mode, explain=explain, sort=sort,
        )  # fmt: skip
        counts = opened.facets([one.strip() for one in facets.split(",")], where=where) if facets else None
    if as_json:
        print_json(result.to_dict() | ({"facets": counts} if counts is not None else {}))
        return
    print_hits(result)
    for name, values in (counts or {}).items():
        print(f"{name}: " + ", ".join(f"{shorten(one['value'], 40)} {one['count']:,}" for one in values))
    if explain:
        print(json.dumps(result.plan, indent=2, ensure_ascii=False, default=str))
        for hit in result.hits:
            if hit.explanation:
                print(f"{hit.id}: {hit.score:.6f} = {hit.explanation.get('formula', '')}")


def _read_queries(name: str) -> list[str]:
    if name == "-":
        lines = sys.stdin.buffer.read().splitlines()
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no file {name}; give a text file with a query a line")
        lines = path.read_bytes().splitlines()
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise InputError(f"{name}, line {number}: not UTF-8 text; convert the file") from error
    texts = [text for text in texts if text]
    if not texts:
        raise InputError(f"{name} holds no query; write a query a line")
    return texts


def _print_many(results: list[SearchResult], as_json: bool) -> None:
    if as_json:
        print_json([result.to_dict() for result in results])
        return
    for result in results:
        print(f"# {result.query}")
        print_hits(result)


def print_hits(result: SearchResult) -> None:
    """A table of hits: score, id, and what the record says of itself."""
    from rich.console import Console
    from rich.table import Table

    if not result.hits:
        tell("nothing matches")
        return
    console = Console()
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    table.add_column("score", justify="right")
    table.add_column("id", no_wrap=True, max_width=40)
    table.add_column("record", overflow="ellipsis", no_wrap=True)
    for hit in result.hits:
        table.add_row(f"{hit.score:.4f}", shorten(hit.id, 40), shorten(_headline(hit.record), 200))
    if console.is_terminal:
        console.print(table)
        console.print(f"{len(result.hits)} of {result.total:,} in {result.milliseconds:.1f} ms", style="dim")
        return
    for hit in result.hits:
        print(f"{hit.score:.4f}\t{shorten(hit.id, 200)}\t{shorten(_headline(hit.record), 200)}")


def _headline(record: dict[str, Any]) -> str:
    for name in ("title", "name", "label", "headline", "subject"):
        if record.get(name):
            return str(record[name])
    return next((str(value) for value in record.values() if isinstance(value, str) and value), "")

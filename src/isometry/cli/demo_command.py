"""isometry demo"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import progress_bar, shorten, tell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

QUESTIONS = (
    "how to recommend items to new users",
    "detecting fake news on social networks",
    "word embeddings for low-resource languages",
)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isometry" / "arxiv-papers"


@app.command()
def demo(
    into: Annotated[
        Path | None, typer.Option("--into", help="where the collection is kept; the user's cache otherwise")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="do not open a browser")] = False,
    once: Annotated[bool, typer.Option("--once", help="index, answer three questions, and end")] = False,
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8080,
) -> None:
    """Index 5,000 arXiv papers that come along and open the search page."""
    from isometry.encoders import load_encoder
    from isometry.records import dataset_path, open_source
    from isometry.search import Collection
    from isometry.search.ingest import ingest

    folder = into or _cache()
    source = open_source(
        dataset_path("arxiv/arxiv-small"), lists=("categories",), types={"created": "date", "updated": "date"}
    )
    tell(f"Indexing the bundled papers into {folder}; a second run only checks them.")
    encoders = {}

    def load(name: str | None) -> object:
        encoders["one"] = load_encoder(name or "default")
        return encoders["one"]

    with progress_bar("checking") as on_check, progress_bar("indexing") as on_progress:
        report = ingest(source, folder, load_encoder=load, on_check=on_check, on_progress=on_progress)
    tell(f"{report.records:,} papers, {report.added:,} of them new, in {report.seconds:.1f} s")
    with Collection.open(folder, encoder=encoders["one"]) as papers:
        if once:
            _answer(papers)
            return
        from isometry.serving import serve

        serve([papers], host=host, port=port, token=None, writable=False, open_browser=not no_browser)


def _answer(papers: object) -> None:
    from rich.console import Console
    from rich.table import Table

    for question in QUESTIONS:
        result = papers.search(question, k=3, mode="hybrid")  # type: ignore[attr-defined]
        table = Table(title=f"{question}  ({result.milliseconds:.0f} ms)", title_justify="left", show_edge=False)
        table.add_column("score", justify="right")
        table.add_column("paper")
        table.add_column("created")
        table.add_column("title")
        for hit in result.hits:
            record = hit.record
            table.add_row(
                f"{hit.score:.4f}", hit.id, str(record.get("created") or ""), shorten(record.get("title"), 90)
            )
        Console().print(table)
        print()

"""isometry serve DIR..."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    collections: Annotated[list[Path], typer.Argument(help="folders of collections")],
    host: Annotated[str, typer.Option("--host", help="beyond loopback only with a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one")] = 8080,
    token: Annotated[str | None, typer.Option("--token", help="asked of every request; or set ISOMETRY_TOKEN")] = None,
    writable: Annotated[bool, typer.Option("--writable", help="take new records and deletions")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    max_body: Annotated[int, typer.Option("--max-body", help="bytes of a request")] = 8_000_000,
    max_k: Annotated[int, typer.Option("--max-k", help="hits of a search")] = 1000,
    max_batch: Annotated[int, typer.Option("--max-batch", help="texts or records of a request")] = 2048,
    max_text: Annotated[int, typer.Option("--max-text", help="characters of a text")] = 100_000,
    max_requests: Annotated[int, typer.Option("--max-requests", help="requests at once")] = 256,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds of a request")] = 60.0,
) -> None:
    """Serve collections over HTTP: an API, OpenAI-shaped embeddings, and a search page."""
    from isometry.search import Collection
    from isometry.serving import Limits
    from isometry.serving import serve as run

    limits = Limits(max_body, max_k, max_batch, max_text, max_requests, timeout)
    with ExitStack() as stack:
        opened = [stack.enter_context(Collection.open(path, writable=writable)) for path in collections]
        run(
            opened, host=host, port=port, token=token or os.environ.get("ISOMETRY_TOKEN"), writable=writable,
            open_browser=open_browser, limits=limits,
        )  # fmt: skip

"""Collections over HTTP: a search page and the shapes of `isometry search --json`."""

from __future__ import annotations

import html
import sys
import webbrowser
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

from isometry.errors import InputError, IsometryError, NotFoundError
from isometry.search import Collection


def make_app(collections: Sequence[Collection]) -> FastAPI:
    """Read-only application over open collections, by their folder names."""
    named = {one.name: one for one in collections}
    app = FastAPI(title="Isometry")

    @app.exception_handler(IsometryError)
    def refuse(request: Request, error: IsometryError) -> JSONResponse:
        status = 404 if isinstance(error, NotFoundError) else 400 if isinstance(error, InputError) else 503
        return JSONResponse({"error": {"message": str(error), "type": type(error).__name__}}, status)

    def chosen(name: str) -> Collection:
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named)}")
        return named[name]

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/collections/{name}/search")
    def search(name: str, query: str, k: int = 10, where: str | None = None) -> JSONResponse:
        return JSONResponse(chosen(name).search(query, k=k, where=where).to_dict())

    @app.get("/", response_class=HTMLResponse)
    def page(q: str = "") -> str:
        first = next(iter(named.values()))
        hits = first.search(q, k=20).hits if q.strip() else []
        rows = "".join(f"<li>{html.escape(str(hit.record.get('title') or hit.id))}</li>" for hit in hits)
        box = f'<form><input name="q" aria-label="Search" value="{html.escape(q)}"></form>'
        return f"<!doctype html><title>Isometry</title>{box}<ol>{rows}</ol>"

    return app


def serve(
    collections: list[Collection], *, host: str, port: int, token: str | None, writable: bool, open_browser: bool
) -> None:
    """Answer on loopback until interrupted. Raises `InputError` for what this server cannot do safely."""
    if not collections:
        raise InputError("there is nothing to serve; name a collection")
    if host not in {"127.0.0.1", "localhost", "::1"} or token is not None or writable:
        raise InputError("this server only reads and only listens on 127.0.0.1; leave out host, token and writable")
    address = f"http://{host}:{port}/"
    print(f"Serving on {address}", file=sys.stderr, flush=True)  # noqa: T201
    if open_browser:
        webbrowser.open(address)
    uvicorn.run(make_app(collections), host=host, port=port, log_level="warning")

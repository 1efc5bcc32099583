"""The HTTP interface: OpenAI-shaped embeddings, search and records of open collections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from isometry import __version__
from isometry.errors import ExistsError, InputError, IsometryError, LockedError, NotFoundError
from isometry.search import Collection
from isometry.serving.batching import BatchingEncoder
from isometry.serving.embeddings_api import add_embeddings
from isometry.serving.guard import Guard, error
from isometry.serving.limits import Limits
from isometry.serving.map_api import add_map
from isometry.serving.metrics import Metrics
from isometry.serving.reading_api import add_reading
from isometry.serving.sentences_api import add_sentences
from isometry.serving.shapes import EVERYWHERE, Health, SearchBody, refusals
from isometry.serving.writing_api import add_writing

_ERROR = {"$ref": "#/components/schemas/ErrorBody"}
LOOPBACK = ("localhost", "127.0.0.1", "::1", "testserver")


def make_app(
    collections: Sequence[Collection],
    *,
    token: str | None = None,
    writable: bool = False,
    limits: Limits | None = None,
    hosts: Iterable[str] | None = LOOPBACK,
) -> FastAPI:
    """The application over open collections, each under its folder name.

    Args:
        token: asked of every request but /healthz.
        writable: take records and deletions.
        hosts: names under which it answers; None for any. Raises: `InputError` when two collections share a name.
    """
    limits = limits or Limits()
    named = {one.name: one for one in collections}
    if len(named) != len(collections):
        raise InputError("two collections have the same folder name; rename one")
    metrics = Metrics()
    encoders = _share_encoders(list(named.values()), metrics)
    app = FastAPI(title="Isometry", version=__version__, responses=refusals(*EVERYWHERE))
    app.state.encoders = encoders
    _describe(app, token is not None)
    _add_refusals(app)
    add_embeddings(app, encoders, limits)
    add_reading(app, named, limits)
    add_writing(app, named, limits, writable)
    add_map(app, named, limits)
    add_sentences(app, named, limits)

    @app.get("/healthz")
    def healthz() -> Health:
        """Whether the server answers."""
        return Health(status="ok", version=__version__)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def show_metrics() -> Response:
        """Counts and times in the text format of Prometheus."""
        page = metrics.page({name: len(one) for name, one in named.items()})
        return Response(page, media_type="text/plain; version=0.0.4")

    from isometry.serving.page import add_pages

    add_pages(app, named)
    app.add_middleware(Guard, token=token, limits=limits, hosts=hosts, observe=metrics.request)
    return app


def _share_encoders(collections: list[Collection], metrics: Metrics) -> dict[str, BatchingEncoder]:
    """One batching encoder per fingerprint, used by all collections that have it; by the encoder's name."""
    shared: dict[str, BatchingEncoder] = {}
    for collection in collections:
        description = collection.encoder_description
        if description is None:
            continue
        if description.fingerprint not in shared:
            load = partial(_load, collection.loaded_encoder, description.name)
            shared[description.fingerprint] = BatchingEncoder(description, load, on_batch=metrics.batch)
        collection.use(shared[description.fingerprint])
    return {encoder.describe().name: encoder for encoder in shared.values()}


def _load(held: Any, name: str) -> Any:
    if held is not None:
        return held
    from isometry.encoders import load_encoder

    return load_encoder(name)


def _describe(app: FastAPI, with_token: bool) -> None:
    """The OpenAPI description: made once, with the token where one is asked for."""

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = made["components"]["schemas"]
            for parts in ("HTTPValidationError", "ValidationError"):  # refusals have one shape, and it is not this one
                schemas.pop(parts, None)
            schemas["SearchBody"] = SearchBody.model_json_schema()
            absent = {"description": "Not found", "content": {"application/json": {"schema": _ERROR}}}
            for path, operations in made["paths"].items():
                for operation in operations.values() if "{" in path else ():
                    operation["responses"].setdefault("404", absent)
            if with_token:
                made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, operations in made["paths"].items():
                    for operation in operations.values() if path != "/healthz" else ():
                        operation["security"] = [{"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(IsometryError)
    def refuse(request: Request, problem: IsometryError) -> JSONResponse:
        kinds = ((NotFoundError, 404), (ExistsError, 409), (InputError, 422), (LockedError, 503))
        status = next((code for kind, code in kinds if isinstance(problem, kind)), 503)
        return error(status, str(problem), type(problem).__name__)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        cause = str(first.get("ctx", {}).get("error", ""))
        reason = f" ({cause})" if first["type"] == "json_invalid" and cause not in first["msg"] else ""
        return error(422, f"{place}: {first['msg']}{reason}", "InvalidRequest")

    @app.exception_handler(HTTPException)
    def http(request: Request, problem: HTTPException) -> JSONResponse:
        return error(problem.status_code, str(problem.detail), "HTTPError", dict(problem.headers or {}))

    @app.exception_handler(Exception)
    def unforeseen(request: Request, problem: Exception) -> JSONResponse:
        return error(500, "the server failed at this request; its log says why", "InternalError")

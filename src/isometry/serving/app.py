"""The HTTP interface: OpenAI-shaped embeddings, search and records of open collections."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from isometry import __version__
from isometry.errors import (
    ExistsError,
    InputError,
    IsometryError,
    LockedError,
    NotFoundError,
)
from isometry.search import Collection
from isometry.serving.batching import BatchingEncoder
from isometry.serving.guard import Guard, error
from isometry.serving.limits import Limits
from isometry.serving.map_api import add_map
from isometry.serving.metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "::1", "testserver")
Mode = Literal["vector", "text", "hybrid"]


class ErrorDetail(BaseModel):
    message: str
    type: str


class ErrorBody(BaseModel):
    error: ErrorDetail


class SearchBody(BaseModel):
    """A search, with the names of `isometry search`."""

    model_config = ConfigDict(extra="forbid")
    query: str | None = None
    vector: list[float] | None = None
    made_by: str | None = Field(default=None, description="fingerprint of the encoder that made the vector")
    like: str | None = None
    k: int = 10
    offset: int = 0
    where: str | None = None
    mode: Mode = "vector"
    sort: str | None = None
    explain: bool = False
    facets: list[str] = []


class EmbeddingsBody(BaseModel):
    """As the OpenAI interface has it."""

    input: str | list[str]
    model: str = "default"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class RecordsBody(BaseModel):
    """Records to put; `vectors` with `made_by` where they were encoded elsewhere."""

    model_config = ConfigDict(extra="forbid")
    records: list[dict[str, Any]]
    vectors: list[list[float]] | None = None
    made_by: str | None = None


class DeleteBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ids: list[str]


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)
}


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
        token: asked of every request but /healthz. writable: take records and deletions.
        hosts: names under which it answers; None for any. Raises: `InputError` when two collections share a name.
    """
    limits = limits or Limits()
    named = {one.name: one for one in collections}
    if len(named) != len(collections):
        raise InputError("two collections have the same folder name; rename one")
    metrics = Metrics()
    encoders = _share_encoders(list(named.values()), metrics)
    app = FastAPI(title="Isometry", version=__version__, responses=_REFUSALS)
    app.state.encoders = encoders
    _add_refusals(app)
    _add_embeddings(app, encoders, limits)
    _add_reading(app, named, limits)
    _add_writing(app, named, limits, writable)
    add_map(app, named, limits)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/metrics")
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


def _asked(
    query: str | None = None,
    like: str | None = None,
    k: int = 10,
    offset: int = 0,
    where: str | None = None,
    mode: Mode = "vector",
    sort: str | None = None,
    explain: bool = False,
) -> SearchBody:
    return SearchBody(query=query, like=like, k=k, offset=offset, where=where, mode=mode, sort=sort, explain=explain)


class FacetBody(BaseModel):
    """Which records are counted, with the names of a search."""

    query: str | None = None
    like: str | None = None
    mode: Mode = "vector"
    where: str | None = None
    limit: int = 20


SearchQuery = Annotated[SearchBody, Depends(_asked)]
FacetQuery = Annotated[FacetBody, Depends()]
Columns = Annotated[list[str], Query()]


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(IsometryError)
    def refuse(request: Request, problem: IsometryError) -> JSONResponse:
        kinds = ((NotFoundError, 404), (ExistsError, 409), (InputError, 422), (LockedError, 503))
        status = next((code for kind, code in kinds if isinstance(problem, kind)), 503)
        return error(status, " ".join(str(problem).split()), type(problem).__name__)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error(422, f"{place}: {first['msg']}", "InvalidRequest")

    @app.exception_handler(HTTPException)
    def http(request: Request, problem: HTTPException) -> JSONResponse:
        return error(problem.status_code, str(problem.detail), "HTTPError", dict(problem.headers or {}))


def _add_embeddings(app: FastAPI, encoders: dict[str, BatchingEncoder], limits: Limits) -> None:
    @app.post("/v1/embeddings")
    def embeddings(body: EmbeddingsBody) -> JSONResponse:
        """Texts to vectors, in the shapes of the OpenAI interface; `dimensions` cuts and normalises again."""
        if not encoders:
            raise NotFoundError("no collection here has an encoder")
        encoder = encoders.get(body.model) or next(iter(encoders.values()))
        texts = [body.input] if isinstance(body.input, str) else body.input
        _check_texts(texts, limits)
        description = encoder.describe()
        if body.dimensions is not None and not 1 <= body.dimensions <= description.dimension:
            raise InputError(f"dimensions is {body.dimensions} and may be 1 to {description.dimension}")
        vectors = encoder.encode(texts)
        if body.dimensions is not None:
            cut = vectors[:, : body.dimensions]
            vectors = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
        data = [
            {"object": "embedding", "index": number, "embedding": _spelled(vector, body.encoding_format)}
            for number, vector in enumerate(np.ascontiguousarray(vectors, "<f4"))
        ]
        tokens = encoder.tokens(texts)
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "model": body.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


def _spelled(vector: np.ndarray, form: str) -> str | list[float]:
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()


def _check_texts(texts: Sequence[str], limits: Limits) -> None:
    if not 1 <= len(texts) <= limits.batch:
        raise InputError(f"{len(texts)} texts were given and 1 to {limits.batch:,} are taken at once")
    for number, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {number} is empty; leave it out")
        if len(text) > limits.text_characters:
            raise InputError(
                f"text {number} has {len(text):,} characters and at most {limits.text_characters:,} are taken"
            )


def _add_reading(app: FastAPI, named: dict[str, Collection], limits: Limits) -> None:
    def chosen(name: str | None) -> Collection:
        if name is None and len(named) == 1:
            return next(iter(named.values()))
        if name is None:
            raise InputError(f"several collections are served; name one: {', '.join(named)}")
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named) or 'none'}")
        return named[name]

    def searched(name: str | None, body: SearchBody) -> JSONResponse:
        collection = chosen(name)
        if body.k > limits.k:
            raise InputError(f"k is {body.k} and may be 1 to {limits.k:,}")
        if body.query is not None:
            _check_texts([body.query], limits)
        result = collection.search(
            body.query, vector=None if body.vector is None else np.array(body.vector, np.float64), made_by=body.made_by,
            like=body.like, k=body.k, offset=body.offset, where=body.where, mode=body.mode, explain=body.explain,
            sort=body.sort,
        )  # fmt: skip
        answer = result.to_dict()
        if body.facets:
            answer["facets"] = collection.facets(
                body.facets[:50], query=body.query, like=body.like, mode=body.mode, where=body.where
            )
        return JSONResponse(answer)

    def found(name: str | None, identity: str) -> JSONResponse:
        (record,) = chosen(name).get(identity)
        if record is None:
            raise NotFoundError(f"no record '{identity}'")
        return JSONResponse(record)

    def counted(name: str | None, columns: list[str], asked: FacetBody) -> JSONResponse:
        if len(columns) > 50:
            raise InputError(f"{len(columns)} attributes were given and at most 50 are counted at once")
        if asked.query is not None:
            _check_texts([asked.query], limits)
        values = chosen(name).facets(
            columns, query=asked.query, like=asked.like, mode=asked.mode, where=asked.where, limit=min(asked.limit, limits.k)
        )  # fmt: skip
        return JSONResponse({"facets": values})

    @app.get("/collections")
    def list_collections() -> JSONResponse:
        """What is served."""
        return JSONResponse([{"name": name, **one.info()} for name, one in named.items()])

    @app.get("/collections/{name}")
    def one_collection(name: str) -> JSONResponse:
        """What one collection holds, as `isometry info --json`."""
        return JSONResponse({"name": name, **chosen(name).info()})

    @app.get("/collections/{name}/search")
    def search_by_address(name: str, given: SearchQuery) -> JSONResponse:
        """Search; the shapes of `isometry search --json`."""
        return searched(name, given)

    @app.post("/collections/{name}/search")
    def search_by_body(name: str, body: SearchBody) -> JSONResponse:
        """Search; the shapes of `isometry search --json`."""
        return searched(name, body)

    @app.get("/collections/{name}/records/{identity:path}")
    def record(name: str, identity: str) -> JSONResponse:
        """One record by its id."""
        return found(name, identity)

    @app.get("/collections/{name}/similar/{identity:path}")
    def similar(name: str, identity: str, k: int = 10, where: str | None = None) -> JSONResponse:
        """Records like one."""
        return searched(name, SearchBody(like=identity, k=k, where=where))

    @app.get("/collections/{name}/facets")
    def facets(name: str, columns: Columns, asked: FacetQuery) -> JSONResponse:
        """Most frequent values of attributes among the records that pass the filter, hold the words (mode text), or are
        the 200 most relevant (other modes, `like`)."""
        return counted(name, columns, asked)

    @app.get("/search")
    def search_the_only(given: SearchQuery) -> JSONResponse:
        """As /collections/{name}/search, where one collection is served."""
        return searched(None, given)

    @app.get("/records/{identity:path}")
    def record_of_the_only(identity: str) -> JSONResponse:
        """As /collections/{name}/records, where one collection is served."""
        return found(None, identity)

    @app.get("/similar/{identity:path}")
    def similar_of_the_only(identity: str, k: int = 10, where: str | None = None) -> JSONResponse:
        """As /collections/{name}/similar, where one collection is served."""
        return searched(None, SearchBody(like=identity, k=k, where=where))

    @app.get("/facets")
    def facets_of_the_only(columns: Columns, asked: FacetQuery) -> JSONResponse:
        """As /collections/{name}/facets, where one collection is served."""
        return counted(None, columns, asked)


def _add_writing(app: FastAPI, named: dict[str, Collection], limits: Limits, writable: bool) -> None:
    def chosen(name: str) -> Collection:
        if not writable:
            raise HTTPException(403, "this server only reads; start it with --writable")
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named)}")
        return named[name]

    @app.post("/collections/{name}/records")
    def put(name: str, body: RecordsBody) -> JSONResponse:
        """Add records, or replace those with the same ids."""
        collection = chosen(name)
        if not 1 <= len(body.records) <= limits.batch:
            raise InputError(f"{len(body.records)} records were given and 1 to {limits.batch:,} are taken at once")
        vectors = None
        if body.vectors is not None:
            try:
                vectors = np.array(body.vectors, np.float64)
            except ValueError as problem:
                raise InputError("the vectors have different lengths") from problem
        report = collection.upsert(body.records, vectors, made_by=body.made_by)
        return JSONResponse({**vars(report), "records": len(collection)})

    @app.delete("/collections/{name}/records")
    def end(name: str, body: DeleteBody) -> JSONResponse:
        """Delete records by id."""
        collection = chosen(name)
        return JSONResponse({"deleted": collection.delete(body.ids), "records": len(collection)})

    @app.delete("/collections/{name}/records/{identity:path}")
    def end_one(name: str, identity: str) -> JSONResponse:
        """Delete one record."""
        collection = chosen(name)
        if not collection.delete(identity):
            raise NotFoundError(f"no record '{identity}'")
        return JSONResponse({"deleted": 1, "records": len(collection)})

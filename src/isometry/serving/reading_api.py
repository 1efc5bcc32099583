"""Searching, counting and reading over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.serving.embeddings_api import check_texts
from isometry.serving.limits import Limits
from isometry.serving.pictures import TYPES, decode_picture, from_base64
from isometry.serving.shapes import (
    CollectionAnswer,
    FacetBody,
    FacetsAnswer,
    Mode,
    RecordAnswer,
    SearchAnswer,
    SearchBody,
    refusals,
)

MOST_FACETS = 50
PICTURES_AT_ONCE = 2  # decoded pictures are large


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


SearchQuery = Annotated[SearchBody, Depends(_asked)]
FacetQuery = Annotated[FacetBody, Depends()]
Columns = Annotated[list[str], Query()]
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/SearchBody"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _PICTURE["schema"]},
                    "additionalProperties": {"type": "string"},
                    "description": "a picture, and the other fields of a search as text",
                }
            },
            **dict.fromkeys(TYPES, _PICTURE),
        },
    }
}


def add_reading(app: FastAPI, named: dict[str, Collection], limits: Limits) -> None:
    """Add what reads: collections, search, records, similar, facets; also without a name where one is served."""
    pictures = asyncio.Semaphore(PICTURES_AT_ONCE)

    def chosen(name: str | None) -> Collection:
        if name is None and len(named) == 1:
            return next(iter(named.values()))
        if name is None:
            raise InputError(f"several collections are served; name one: {', '.join(named)}")
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named) or 'none'}")
        return named[name]

    def searched(name: str | None, body: SearchBody, picture: bytes | None = None) -> SearchAnswer:
        collection = chosen(name)
        if body.k > limits.k:
            raise InputError(f"k is {body.k} and may be 1 to {limits.k:,}")
        if len(body.facets) > MOST_FACETS:
            raise InputError(f"{len(body.facets)} attributes were given and at most {MOST_FACETS} are counted at once")
        if body.query is not None:
            check_texts([body.query], limits)
        result = collection.search(
            body.query, vector=None if body.vector is None else np.array(body.vector, np.float64), made_by=body.made_by,
            like=body.like, image=None if picture is None else _opened(collection, picture, limits), k=body.k,
            offset=body.offset, where=body.where, mode=body.mode, explain=body.explain, sort=body.sort,
        )  # fmt: skip
        answer = result.to_dict()
        if body.facets:
            answer["facets"] = collection.facets(
                body.facets, query=body.query, like=body.like, mode=body.mode, where=body.where
            )
        return SearchAnswer.model_validate(answer)

    async def searched_by_body(name: str | None, request: Request) -> SearchAnswer:
        body, picture = await _read_search(request)
        if picture is None:
            return await run_in_threadpool(searched, name, body)
        async with pictures:
            return await run_in_threadpool(searched, name, body, picture)

    def found(name: str | None, identity: str) -> RecordAnswer:
        (record,) = chosen(name).get(identity)
        if record is None:
            raise NotFoundError(f"no record '{identity}'")
        return RecordAnswer.model_validate(record)

    def counted(name: str | None, columns: list[str], asked: FacetBody) -> FacetsAnswer:
        if len(columns) > MOST_FACETS:
            raise InputError(f"{len(columns)} attributes were given and at most {MOST_FACETS} are counted at once")
        if asked.query is not None:
            check_texts([asked.query], limits)
        values = chosen(name).facets(
            columns, query=asked.query, like=asked.like, mode=asked.mode, where=asked.where, limit=min(asked.limit, limits.k)
        )  # fmt: skip
        return FacetsAnswer.model_validate({"facets": values})

    def described(name: str) -> CollectionAnswer:
        return CollectionAnswer.model_validate({"name": name, **chosen(name).info()})

    whole: dict[str, Any] = {"response_model_exclude_unset": True, "responses": refusals(404)}
    body: dict[str, Any] = {**whole, "responses": refusals(400, 403, 404, 415), "openapi_extra": _SEARCH_BODY}

    @app.get("/collections", response_model_exclude_unset=True)
    def list_collections() -> list[CollectionAnswer]:
        """What is served."""
        return [described(name) for name in named]

    @app.get("/collections/{name}", **whole)
    def one_collection(name: str) -> CollectionAnswer:
        """What one collection holds, as `isometry info --json`."""
        return described(name)

    @app.get("/collections/{name}/search", **whole)
    def search_by_address(name: str, given: SearchQuery) -> SearchAnswer:
        """Search; the shapes of `isometry search --json`."""
        return searched(name, given)

    @app.post("/collections/{name}/search", **body)
    async def search_by_body(name: str, request: Request) -> SearchAnswer:
        """Search; the shapes of `isometry search --json`. A picture comes as the body, as a form, or in base64."""
        return await searched_by_body(name, request)

    @app.get("/collections/{name}/records/{identity:path}", **whole)
    def record(name: str, identity: str) -> RecordAnswer:
        """One record by its id."""
        return found(name, identity)

    @app.get("/collections/{name}/similar/{identity:path}", **whole)
    def similar(name: str, identity: str, k: int = 10, where: str | None = None) -> SearchAnswer:
        """Records like one."""
        return searched(name, SearchBody(like=identity, k=k, where=where))

    @app.get("/collections/{name}/facets", **whole)
    def facets(name: str, columns: Columns, asked: FacetQuery) -> FacetsAnswer:
        """Most frequent values of attributes among the records that pass the filter, hold the words (mode text), or are
        the 200 most relevant (other modes, `like`)."""
        return counted(name, columns, asked)

    @app.get("/search", **whole)
    def search_the_only(given: SearchQuery) -> SearchAnswer:
        """As /collections/{name}/search, where one collection is served."""
        return searched(None, given)

    @app.post("/search", **body)
    async def search_the_only_by_body(request: Request) -> SearchAnswer:
        """As /collections/{name}/search, where one collection is served."""
        return await searched_by_body(None, request)

    @app.get("/records/{identity:path}", **whole)
    def record_of_the_only(identity: str) -> RecordAnswer:
        """As /collections/{name}/records, where one collection is served."""
        return found(None, identity)

    @app.get("/similar/{identity:path}", **whole)
    def similar_of_the_only(identity: str, k: int = 10, where: str | None = None) -> SearchAnswer:
        """As /collections/{name}/similar, where one collection is served."""
        return searched(None, SearchBody(like=identity, k=k, where=where))

    @app.get("/facets", **whole)
    def facets_of_the_only(columns: Columns, asked: FacetQuery) -> FacetsAnswer:
        """As /collections/{name}/facets, where one collection is served."""
        return counted(None, columns, asked)


async def _read_search(request: Request) -> tuple[SearchBody, bytes | None]:
    """The search that a body asks for, and its picture: JSON, a form with a picture, or a picture with an address."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind in TYPES:
            asked = SearchBody.model_validate(dict(request.query_params))
            return asked, await request.body()
        if kind == "multipart/form-data":
            return await _read_form(request)
        if kind == "application/json" or kind.endswith("+json"):
            asked = SearchBody.model_validate_json(await request.body())
            return asked, None if asked.image is None else from_base64(asked.image)
    except ValidationError as problem:
        wrong = [{**one, "loc": ("body", *one["loc"])} for one in problem.errors(include_url=False)]
        raise RequestValidationError(wrong) from problem
    raise HTTPException(415, f"a search is application/json, multipart/form-data or one of {', '.join(TYPES)}")


async def _read_form(request: Request) -> tuple[SearchBody, bytes | None]:
    async with request.form(max_files=1, max_fields=20) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        files = {name: value for name, value in form.items() if not isinstance(value, str)}
        if set(files) - {"image"}:
            raise InputError(f"the form has a file '{next(iter(set(files) - {'image'}))}'; name it 'image'")
        asked = SearchBody.model_validate(
            {**fields, **({"facets": form.getlist("facets")} if "facets" in form else {})}
        )
        if "image" in files:
            return asked, await files["image"].read()
        if asked.image is None:
            raise InputError("the form holds no picture; give it a file named 'image'")
        return asked, from_base64(asked.image)


def _opened(collection: Collection, picture: bytes, limits: Limits) -> Any:
    description = collection.encoder_description
    if description is None or "image" not in description.modalities:
        raise InputError(f"the encoder of '{collection.name}' takes no pictures; search with words")
    return decode_picture(picture, limits.pixels)

"""The map over HTTP: how it stands, its points, their colours, and what lies where."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, Field

from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.search.colouring import colour
from isometry.search.maps import CollectionMap
from isometry.search.queries import fetch, matching_rows, rows_of_ids
from isometry.serving.limits import Limits
from isometry.serving.map_jobs import MapJob

MOST_PLACES = 100
MOST_FOUND = 200


class MapAnswer(BaseModel):
    """`key` names the points that can be had now (null in the first moments); `percent` is of the map being made."""

    key: str | None
    state: Literal["working", "ready"]
    method: str | None = Field(description="what placed the points: umap or pca")
    making: str = Field(description="the method of the newest map")
    percent: int
    points: int
    arranged: int = Field(description="points that the method placed itself; others lie at their nearest ones")
    current: bool = Field(description="whether the points show the newest version of the collection")
    problem: str | None


class Category(BaseModel):
    """A value with a colour of its own and how many points have it."""

    value: str | bool | int | float
    count: int


class ColoursAnswer(BaseModel):
    """`codes` is base64 of one byte per point: the category's place or 0..253 on the scale; 254 other, 255 no value."""

    by: str
    grouped: bool
    kind: Literal["category", "number", "date"]
    codes: str
    categories: list[Category]
    other: int
    missing: int
    low: float | str | None
    high: float | str | None


class PlacedHit(BaseModel):
    """A found record and which point of the map it is."""

    place: int
    id: str
    score: float


class FoundAnswer(BaseModel):
    """`passing` is base64 of one bit per point (most significant first): whether it passes the filter; null for all."""

    hits: list[PlacedHit]
    total: int
    passing: str | None
    passed: int


class PlacedRecord(BaseModel):
    """A record and which point of the map it is."""

    place: int
    id: str
    record: dict[str, Any]


class RecordsAnswer(BaseModel):
    """The records of the points asked for."""

    records: list[PlacedRecord]


Key = Annotated[str, Query(description="`key` of the map", max_length=64)]


def add_map(app: FastAPI, collections: dict[str, Collection], limits: Limits) -> None:
    """Add `/collections/{name}/map` and what lies below it. A map is made when it is first asked for."""
    jobs = {name: MapJob(one) for name, one in collections.items()}
    _close_at_the_end(app, [job.close for job in jobs.values()])

    @lru_cache(maxsize=32)
    def coloured(name: str, key: str, by: str, grouped: bool) -> ColoursAnswer:
        held = map_of(name, key)
        with collections[name].read() as snapshot:
            made = colour(snapshot, by, held.rows, grouped=grouped)
        return ColoursAnswer(
            by=by, grouped=grouped, kind=made.kind, codes=_packed(made.codes), other=made.other, missing=made.missing,
            categories=[Category(value=value, count=count) for value, count in made.categories],
            low=made.low, high=made.high,
        )  # fmt: skip

    def job_of(name: str) -> MapJob:
        if name not in jobs:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(jobs) or 'none'}")
        return jobs[name]

    def map_of(name: str, key: str) -> CollectionMap:
        held = job_of(name).held
        if held is None or held.key != key:
            raise NotFoundError("there is no map with this key any more; ask /map for the newest")
        return held

    @app.get("/collections/{name}/map")
    def map_standing(name: str) -> MapAnswer:
        """How the map of a collection stands. Begins to make it, in the background, where there is none of this version."""
        now = job_of(name).ask()
        held = now.held
        return MapAnswer(
            key=held.key if held else None, state=now.state, method=held.method if held else None, making=now.method,
            percent=now.percent, points=len(held.rows) if held else 0, arranged=held.arranged if held else 0,
            current=now.current, problem=now.problem,
        )  # fmt: skip

    @app.get(
        "/collections/{name}/map/points",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def map_points(name: str, key: Key) -> Response:
        """Every point as two little-endian uint16, x and y from 0 to 65535, in the order of their places."""
        points = map_of(name, key).points
        body = np.rint(points * 65535).astype("<u2").tobytes()
        return Response(
            body, media_type="application/octet-stream", headers={"Cache-Control": "private, max-age=86400"}
        )

    @app.get("/collections/{name}/map/colours")
    def map_colours(
        name: str, key: Key, by: Annotated[str, Query(max_length=1000)], grouped: bool = False
    ) -> ColoursAnswer:
        """A colour code for every point, by an attribute or a function of one; `grouped` takes cs for cs.IR."""
        return coloured(name, key, by, grouped)

    @app.get("/collections/{name}/map/found")
    def map_found(
        name: str,
        key: Key,
        query: str | None = None,
        like: str | None = None,
        mode: Literal["vector", "text", "hybrid"] = "vector",
        where: str | None = None,
        k: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 50,
    ) -> FoundAnswer:
        """Where the best hits of a search lie, and which points pass its filter."""
        held, collection = map_of(name, key), collections[name]
        if query is not None and len(query) > limits.text_characters:
            raise InputError(f"the query has more than {limits.text_characters:,} characters")
        hits, total = [], 0
        if query is not None or like is not None:
            found = collection.search(query, like=like, k=k, where=where, mode=mode)
            hits, total = found.hits, found.total
        with collection.read() as snapshot:
            passing = None if where is None else held.places(matching_rows(snapshot, where))
            rows = rows_of_ids(snapshot, [hit.id for hit in hits])
        placed = [(hit, held.places(np.array([rows[hit.id]]))) for hit in hits if hit.id in rows]
        bits = None if passing is None else np.isin(np.arange(len(held.rows)), passing, assume_unique=True)
        return FoundAnswer(
            hits=[PlacedHit(place=int(place[0]), id=hit.id, score=hit.score) for hit, place in placed if len(place)],
            total=total,
            passing=None if bits is None else _packed(np.packbits(bits)),
            passed=len(held.rows) if passing is None else len(passing),
        )

    @app.get("/collections/{name}/map/records")
    def map_records(
        name: str, key: Key, place: Annotated[list[int], Query(min_length=1, max_length=MOST_PLACES)]
    ) -> RecordsAnswer:
        """The records at up to 100 places; one that was deleted since is left out."""
        held = map_of(name, key)
        wrong = next((one for one in place if not 0 <= one < len(held.rows)), None)
        if wrong is not None:
            raise InputError(f"place {wrong} is not on the map; its places are 0 to {len(held.rows) - 1}")
        rows = {int(held.rows[one]): one for one in place}
        with collections[name].read() as snapshot:
            records = fetch(snapshot, list(rows))
        by_place = {rows[row]: record for row, record in records.items()}
        found = [(one, by_place[one]) for one in dict.fromkeys(place) if one in by_place]
        return RecordsAnswer(
            records=[
                PlacedRecord(place=one, id=record["id"], record={k: v for k, v in record.items() if k != "id"})
                for one, record in found
            ]
        )


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _close_at_the_end(app: FastAPI, ends: list[Callable[[], None]]) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: FastAPI) -> AsyncIterator[Any]:
        async with inner(running) as state:
            try:
                yield state
            finally:
                for end in ends:
                    end()

    app.router.lifespan_context = lifespan

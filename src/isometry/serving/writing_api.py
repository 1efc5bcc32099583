"""Adding and deleting records over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.serving.commits import Commits
from isometry.serving.limits import Limits
from isometry.serving.pictures import decode_picture, from_base64
from isometry.serving.shapes import DeleteBody, DeletedAnswer, RecordsBody, WrittenAnswer, refusals


def add_writing(app: FastAPI, named: dict[str, Collection], limits: Limits, writable: bool) -> None:
    """Add what writes; a server that only reads answers 403."""
    commits = {name: Commits(collection) for name, collection in named.items() if writable}

    def chosen(name: str) -> Collection:
        if not writable:
            raise HTTPException(403, "this server only reads; start it with --writable")
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named)}")
        return named[name]

    @app.post("/collections/{name}/records", responses=refusals(400, 403, 404))
    async def put(name: str, body: RecordsBody) -> WrittenAnswer:
        """Add records, or replace those with the same ids. They are on disk when this is answered."""
        collection = chosen(name)
        records, vectors = await run_in_threadpool(checked, collection, body)
        if vectors is None:
            report = await commits[name].put(records)
        else:
            report = await commits[name].do(lambda: collection.upsert(records, vectors, made_by=body.made_by))
        return WrittenAnswer(**vars(report), records=await run_in_threadpool(len, collection))

    def checked(collection: Collection, body: RecordsBody) -> tuple[list[dict[str, Any]], np.ndarray | None]:
        if not 1 <= len(body.records) <= limits.batch:
            raise InputError(f"{len(body.records)} records were given and 1 to {limits.batch:,} are taken at once")
        for number, record in enumerate(body.records, start=1):
            _check_lengths(record, number, limits, collection.image_column)
        try:
            vectors = None if body.vectors is None else np.array(body.vectors, np.float64)
        except ValueError as problem:
            raise InputError("the vectors have different lengths") from problem
        return _with_pictures(collection, body.records, limits), vectors

    @app.delete("/collections/{name}/records", responses=refusals(400, 403, 404))
    async def end(name: str, body: DeleteBody) -> DeletedAnswer:
        """Delete records by id; those that are not there are passed over."""
        chosen(name)
        if not 1 <= len(body.ids) <= limits.batch:
            raise InputError(f"{len(body.ids)} ids were given and 1 to {limits.batch:,} are taken at once")
        return await ended(name, body.ids)

    async def ended(name: str, ids: list[str]) -> DeletedAnswer:
        deleted = await commits[name].delete(ids)
        return DeletedAnswer(deleted=deleted, records=await run_in_threadpool(len, named[name]))

    @app.delete("/collections/{name}/records/{identity:path}", responses=refusals(403, 404))
    async def end_one(name: str, identity: str) -> DeletedAnswer:
        """Delete one record."""
        chosen(name)
        answer = await ended(name, [identity])
        if not answer.deleted:
            raise NotFoundError(f"no record '{identity}'")
        return answer


def _check_lengths(record: dict[str, Any], number: int, limits: Limits, image: str | None) -> None:
    for name, value in record.items():
        if isinstance(value, str) and len(value) > limits.text_characters and name != image:
            raise InputError(
                f"record {number}: '{name}' has {len(value):,} characters and at most {limits.text_characters:,} are taken"
            )


def _with_pictures(collection: Collection, records: list[dict[str, Any]], limits: Limits) -> list[dict[str, Any]]:
    """Pictures come in base64 and never as paths: a client must not have this machine read a file for it."""
    image = collection.image_column
    if image is None or not any(record.get(image) is not None for record in records):
        return records
    if next(column.kind for column in collection.columns if column.name == image) != "binary":
        raise InputError(f"'{collection.name}' keeps paths of pictures; add records with 'isometry index' instead")
    taken = []
    for number, record in enumerate(records, start=1):
        value = record.get(image)
        if not isinstance(value, str):
            raise InputError(f"record {number} has no picture in '{image}'; give its bytes in base64")
        content = from_base64(value)
        decode_picture(content, limits.pixels)
        taken.append({**record, image: content})
    return taken

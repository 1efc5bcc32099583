"""Adding and deleting records over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.serving.limits import Limits
from isometry.serving.pictures import decode_picture, from_base64
from isometry.serving.shapes import DeleteBody, DeletedAnswer, RecordsBody, WrittenAnswer, refusals


def add_writing(app: FastAPI, named: dict[str, Collection], limits: Limits, writable: bool) -> None:
    """Add what writes; a server that only reads answers 403."""

    def chosen(name: str) -> Collection:
        if not writable:
            raise HTTPException(403, "this server only reads; start it with --writable")
        if name not in named:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(named)}")
        return named[name]

    @app.post("/collections/{name}/records", responses=refusals(400, 403, 404))
    def put(name: str, body: RecordsBody) -> WrittenAnswer:
        """Add records, or replace those with the same ids. They are on disk when this is answered."""
        collection = chosen(name)
        if not 1 <= len(body.records) <= limits.batch:
            raise InputError(f"{len(body.records)} records were given and 1 to {limits.batch:,} are taken at once")
        for number, record in enumerate(body.records, start=1):
            _check_lengths(record, number, limits, collection.image_column)
        vectors = None
        if body.vectors is not None:
            try:
                vectors = np.array(body.vectors, np.float64)
            except ValueError as problem:
                raise InputError("the vectors have different lengths") from problem
        records = _with_pictures(collection, body.records, limits)
        report = collection.upsert(records, vectors, made_by=body.made_by)
        return WrittenAnswer(**vars(report), records=len(collection))

    @app.delete("/collections/{name}/records", responses=refusals(400, 403, 404))
    def end(name: str, body: DeleteBody) -> DeletedAnswer:
        """Delete records by id; those that are not there are passed over."""
        collection = chosen(name)
        if not 1 <= len(body.ids) <= limits.batch:
            raise InputError(f"{len(body.ids)} ids were given and 1 to {limits.batch:,} are taken at once")
        return DeletedAnswer(deleted=collection.delete(body.ids), records=len(collection))

    @app.delete("/collections/{name}/records/{identity:path}", responses=refusals(403, 404))
    def end_one(name: str, identity: str) -> DeletedAnswer:
        """Delete one record."""
        collection = chosen(name)
        if not collection.delete(identity):
            raise NotFoundError(f"no record '{identity}'")
        return DeletedAnswer(deleted=1, records=len(collection))


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

"""The most relevant sentences of records over HTTP, for a reader who looks at hits."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field

from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.search.sentences import relevant_sentences
from isometry.serving.embeddings_api import check_texts
from isometry.serving.limits import Limits

MOST_RECORDS = 50


class MarkedSentence(BaseModel):
    text: str
    relevant: bool


class MarkedText(BaseModel):
    id: str
    column: str
    sentences: list[MarkedSentence] = Field(description="joined they are the text")


class SentencesAnswer(BaseModel):
    texts: list[MarkedText]


def add_sentences(app: FastAPI, collections: dict[str, Collection], limits: Limits) -> None:
    """Add `/collections/{name}/sentences`."""

    @app.get("/collections/{name}/sentences")
    def sentences(
        name: str,
        query: str,
        id: Annotated[list[str], Query(min_length=1, max_length=MOST_RECORDS, description="up to 50 records")],
        column: Annotated[list[str] | None, Query(description="text columns; all of them where none is named")] = None,
    ) -> SentencesAnswer:
        """The texts of records as sentences, those closest in meaning to the query marked. Absent records are left out."""
        if name not in collections:
            raise NotFoundError(f"no collection '{name}'; there are: {', '.join(collections) or 'none'}")
        collection = collections[name]
        check_texts([query], limits)
        if collection.encoder_description is None:
            raise InputError(f"'{name}' has no encoder, so meaning cannot be compared")
        known = collection.text_columns
        wrong = next((one for one in column or () if one not in known), None)
        if wrong is not None:
            raise InputError(f"'{wrong}' is no text column of '{name}'; there are: {', '.join(known) or 'none'}")
        places = [
            (record["id"], one, record[one])
            for record in collection.get(id)
            if record is not None
            for one in column or known
            if isinstance(record.get(one), str)
        ]
        marked = relevant_sentences(collection.encoder, query, [text for _, _, text in places])
        return SentencesAnswer(
            texts=[
                MarkedText(
                    id=identity,
                    column=one,
                    sentences=[MarkedSentence(text=part.text, relevant=part.relevant) for part in parts],
                )
                for (identity, one, _), parts in zip(places, marked, strict=True)
            ]
        )

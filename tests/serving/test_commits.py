"""Writes that come together share a commit, and each keeps its own answer."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pyarrow as pa
import pytest

from isometry.errors import InputError
from isometry.search import Collection
from isometry.search.store.store import WriteReport
from isometry.serving.commits import Commits


class Lengths:
    """Encodes a text as its length, so that the test knows every vector."""

    def __init__(self, description) -> None:
        self._description = description
        self.runs: list[int] = []

    def describe(self):
        return self._description

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        self.runs.append(len(inputs))
        return np.array([[1.0, len(text)] for text in inputs], np.float32)

    encode_queries = encode


@pytest.fixture
def notes(tmp_path):
    from isometry.types import EncoderDescription

    encoder = Lengths(EncoderDescription(name="lengths", digest="0" * 32, dimension=2))
    schema = pa.schema([("title", pa.string()), ("year", pa.int64())])
    with Collection.create(tmp_path / "notes", encoder=encoder, schema=schema, text_columns=["title"]) as made:
        yield made


def version(collection) -> int:
    return collection.search(k=1, explain=True).plan["version"]


def together(collection, *writes):
    """Hand all writes over while the thread is held up by the first; answers and problems in their order."""
    commits, held = Commits(collection), threading.Event()

    async def run():
        first = asyncio.ensure_future(commits.do(held.wait))
        rest = [asyncio.ensure_future(write(commits)) for write in writes]
        await asyncio.sleep(0.05)
        held.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(run())


def puts(*records):
    return lambda commits: commits.put(list(records))


def test_records_of_several_requests_are_one_commit(notes):
    notes.upsert([{"id": "a", "title": "old", "year": 1}, {"id": "b", "title": "same", "year": 2}])
    before = version(notes)
    answers = together(
        notes,
        puts({"id": "a", "title": "new", "year": 1}, {"id": "c", "title": "more", "year": 3}),
        puts({"id": "b", "title": "same", "year": 2}),
        puts({"id": "d", "title": "longer", "year": 4}),
    )
    assert answers == [WriteReport(1, 1, 0), WriteReport(0, 0, 1), WriteReport(1, 0, 0)]
    assert version(notes) == before + 1
    assert [record["title"] for record in notes.get(["a", "b", "c", "d"])] == ["new", "same", "more", "longer"]


def test_the_later_of_two_writes_of_one_id_wins(notes):
    together(notes, *(puts({"id": "a", "title": "x" * length, "year": length}) for length in (3, 1, 2)))
    assert notes.get("a")[0]["year"] == 2


def test_order_is_kept_around_deletions(notes):
    async def delete(commits):
        return await commits.do(lambda: notes.delete(["a"]))

    answers = together(
        notes, puts({"id": "a", "title": "x", "year": 1}), delete, puts({"id": "b", "title": "x", "year": 1})
    )
    assert answers[1] == 1
    assert notes.get(["a", "b"])[0] is None
    assert len(notes) == 1


def test_a_bad_request_fails_alone_and_by_its_own_numbers(notes):
    answers = together(
        notes,
        puts({"id": "a", "title": "x", "year": 1}),
        puts({"id": "b", "title": "x", "year": 1}, {"id": "", "title": "x", "year": 1}),
        puts({"id": "c", "title": "x", "year": 1}),
    )
    assert isinstance(answers[1], InputError)
    assert "record 2 has no id" in str(answers[1])
    assert answers[0] == answers[2] == WriteReport(1, 0, 0)
    assert [record and record["id"] for record in notes.get(["a", "b", "c"])] == ["a", None, "c"]


def test_different_columns_are_put_one_after_the_other(notes):
    answers = together(notes, puts({"id": "a", "title": "x", "year": 1}), puts({"id": "b", "title": "x", "new": 1.5}))
    assert answers == [WriteReport(1, 0, 0), WriteReport(1, 0, 0)]
    assert notes.get("b")[0]["new"] == 1.5


def test_a_request_that_was_given_up_holds_nobody_up(notes):
    commits, held = Commits(notes), threading.Event()

    async def run():
        first = asyncio.ensure_future(commits.do(held.wait))
        given_up = asyncio.ensure_future(commits.put([{"id": "a", "title": "x", "year": 1}]))
        stays = asyncio.ensure_future(commits.put([{"id": "b", "title": "x", "year": 1}]))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.sleep(0)
        held.set()
        await first
        return await stays

    assert asyncio.run(run()) == WriteReport(1, 0, 0)
    assert len(notes) == 1

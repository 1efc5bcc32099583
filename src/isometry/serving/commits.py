"""Writes that come together are committed together."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from isometry.search import Collection
from isometry.search.store.store import WriteReport

MOST_TOGETHER = 256  # records of several requests in one commit: their texts are encoded while others wait


@dataclass(eq=False)
class _Write:
    do: Callable[[], Any]
    ids: frozenset[str] | None  # of all records that it touches; None where that is not known
    records: list[dict[str, Any]] | None = None  # where it puts these and nothing else
    done: Future[Any] = field(default_factory=Future)


class Commits:
    """Writes one collection from one thread; what touches the same record happens in the order in which it came.

    A commit encodes texts and waits for the disk. Records that came meanwhile are put by the next one together, so that
    many small requests do not each wait for it, and none of them holds a thread that searches need.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._queue: queue.SimpleQueue[_Write] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"writes {collection.name}", daemon=True).start()

    async def put(self, records: list[dict[str, Any]]) -> WriteReport:
        """Put records whose texts are encoded; they are on disk when this returns. Raises: as `Collection.upsert`."""
        ids = frozenset(str(record.get("id")) for record in records)
        return await self._ask(_Write(lambda: self._collection.upsert(records), ids, records))

    async def delete(self, ids: list[str]) -> int:
        """Delete records; how many there were."""
        return int(await self._ask(_Write(lambda: self._collection.delete(ids), frozenset(ids))))

    async def do(self, write: Callable[[], Any]) -> Any:
        """Run any other write, after all that came before it, and give its answer."""
        return await self._ask(_Write(write, None))

    async def _ask(self, write: _Write) -> Any:
        self._queue.put(write)
        return await asyncio.wrap_future(write.done)

    def _run(self) -> None:
        while True:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            while waiting:
                group = _first_group(waiting)
                waiting = [write for write in waiting if write not in group]
                self._commit(group)

    def _commit(self, group: list[_Write]) -> None:
        group = [write for write in group if write.done.set_running_or_notify_cancel()]  # the others were given up
        if len(group) > 1:
            try:
                reports = self._collection.upsert_together([write.records for write in group])
            except Exception:  # nothing was put: each alone, so that a bad one fails alone and by its own numbers
                pass
            else:
                for write, report in zip(group, reports, strict=True):
                    write.done.set_result(report)
                return
        for write in group:
            try:
                write.done.set_result(write.do())
            except Exception as problem:
                write.done.set_exception(problem)


def _first_group(waiting: list[_Write]) -> list[_Write]:
    """The first write, and with it the later ones that one commit may hold as well: records that no write before them
    touches, not too many."""
    first = waiting[0]
    if first.records is None or first.ids is None:
        return [first]
    group, touched, count = [first], set(first.ids), len(first.ids)
    for write in waiting[1:]:
        if write.ids is None:
            break
        if write.records is not None and count + len(write.ids) <= MOST_TOGETHER and touched.isdisjoint(write.ids):
            group.append(write)
            count += len(write.ids)
        touched |= write.ids
    return group

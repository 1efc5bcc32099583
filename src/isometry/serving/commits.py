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


@dataclass
class _Write:
    do: Callable[[], Any]
    records: list[dict[str, Any]] | None  # where it puts these and nothing else
    done: Future[Any] = field(default_factory=Future)


class Commits:
    """Writes one collection from one thread, in the order in which requests came.

    A commit waits for the disk. Records that came while it did are put by the next one together, so that many small
    requests do not each wait for it, and none of them holds a thread that searches need.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._queue: queue.SimpleQueue[_Write] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"writes {collection.name}", daemon=True).start()

    async def put(self, records: list[dict[str, Any]]) -> WriteReport:
        """Put records whose texts are encoded; they are on disk when this returns. Raises: as `Collection.upsert`."""
        return await self._ask(_Write(lambda: self._collection.upsert(records), records))

    async def do(self, write: Callable[[], Any]) -> Any:
        """Run any other write and give its answer."""
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
                del waiting[: len(group)]
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
    """The writes at the front that one commit may hold: records of different ids, not too many."""
    group: list[_Write] = []
    ids: set[Any] = set()
    for write in waiting:
        named = [str(record.get("id")) for record in write.records or []]
        fits = write.records is not None and ids.isdisjoint(named) and len(ids) + len(named) <= MOST_TOGETHER
        if group and not fits:
            break
        group.append(write)
        ids.update(named)
        if not fits:
            break
    return group

"""The vectors of one version of a collection, held open for searching."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError
from isometry.search.indexes import FlatIndex
from isometry.search.store.segments import Segment
from isometry.search.store.store import SEGMENTS, read_pending, read_segments
from isometry.types import Index


class SegmentCache:
    """Segments and their indexes by digest, so that a new version opens only what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, tuple[Segment, Index]] = {}

    def get(self, infos: list[Any]) -> list[tuple[Segment, Index]]:
        """The parts of a version; those that no version needs any more are let go."""
        held = {}
        for info in infos:
            known = self._held.get(info.digest)
            if known is None:
                segment = Segment(self._folder / SEGMENTS, info)
                damaged = segment.damaged_blocks()
                if damaged:
                    raise CorruptionError(
                        f"{segment.path} is damaged at byte {damaged[0][0]}; run 'isometry verify {self._folder}'"
                    )
                known = (segment, FlatIndex().build(segment.vectors))
            held[info.digest] = known
        self._held = held
        return list(held.values())


class VectorView:
    """Every vector of one version: rows `(n,)` ascending, which of them live, and exact search over them.

    Attributes:
        version: the commit that it shows. rows: int64 `(n,)`. live: bool `(n,)`.
    """

    def __init__(self, connection: sqlite3.Connection, version: int, dimension: int, path: Path, cache: SegmentCache):
        self.version, self.dimension = version, dimension
        self._parts = cache.get(read_segments(connection))
        self._tail_rows, self._tail = read_pending(connection, dimension, path)
        self.rows: np.ndarray = np.concatenate([*(part.rows for part, _ in self._parts), self._tail_rows])
        dead = np.fromiter((row for (row,) in connection.execute("SELECT row FROM tombstones")), np.int64)
        self.live: np.ndarray = ~np.isin(self.rows, dead, assume_unique=True)
        self._blocks: list[tuple[Index, int]] = [(index, len(part.rows)) for part, index in self._parts]
        if len(self._tail_rows):
            self._blocks.append((FlatIndex().build(self._tail), len(self._tail_rows)))
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()

    def mask(self, source: str | None, rows: Callable[[], np.ndarray]) -> np.ndarray:
        """Bool `(n,)` of the live rows that pass a filter; the latest filters are remembered."""
        if source is None:
            return self.live
        known = self._masks.get(source)
        if known is None:
            known = self.live & np.isin(self.rows, rows(), assume_unique=True)
            self._masks[source] = known
            while len(self._masks) > 64:
                self._masks.popitem(last=False)
        return known

    @property
    def index_bytes(self) -> int:
        """Bytes that the indexes of this version hold in memory."""
        return sum(int(getattr(index, "bytes_in_memory", 0)) for index, _ in self._blocks) + self._tail.nbytes

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Float32 `(m, d)` of the given rows, which must be here."""
        found = np.empty((len(rows), self.dimension), np.float32)
        places = np.searchsorted(self.rows, rows)
        start = 0
        blocks = [part.vectors for part, _ in self._parts] + ([self._tail] if len(self._tail_rows) else [])
        for block in blocks:
            here = (places >= start) & (places < start + len(block))
            found[here] = block[places[here] - start]
            start += len(block)
        return found

    def target(self, row: int) -> np.ndarray:
        """What finds records like the one in this row: its vector `(d,)`."""
        return self.vectors(np.array([row], np.int64))[0]

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Exact top-k of `(q, d)`: (scores `(q, k)`, rows `(q, k)` as row numbers, what was done); padded with -1."""
        scores = [np.full((len(queries), 0), -np.inf, np.float32)]
        places = [np.full((len(queries), 0), -1, np.int64)]
        done: dict[str, Any] = {}
        start = 0
        for index, size in self._blocks:
            part = allowed[start : start + size]
            if part.any():
                found_scores, found = index.search(queries, min(k, size), part if not part.all() else None)
                scores.append(found_scores)
                places.append(np.where(found >= 0, found + start, -1))
                done = _added(done, getattr(index, "last_plan", {}))
            start += size
        joined, held = np.concatenate(scores, axis=1), np.concatenate(places, axis=1)
        order = np.lexsort((held, -joined), axis=1)[:, :k]
        best_scores, best = np.take_along_axis(joined, order, 1), np.take_along_axis(held, order, 1)
        if best.shape[1] < k:
            short = ((0, 0), (0, k - best.shape[1]))
            best_scores = np.pad(best_scores, short, constant_values=-np.inf)
            best = np.pad(best, short, constant_values=-1)
        numbers = np.where(best >= 0, self.rows[np.maximum(best, 0)] if len(self.rows) else best, -1)
        return best_scores, numbers, done


def _added(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Sums of counts over parts; words are taken from the latest."""
    return {
        key: total.get(key, 0) + value if isinstance(value, int) and key != "threads" else value
        for key, value in {**total, **more}.items()
        if key in more
    } | {key: value for key, value in total.items() if key not in more}

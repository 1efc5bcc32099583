"""The vectors of one version of a collection, held open for searching."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError
from isometry.search.attributes import Masks
from isometry.search.building import Built, open_index
from isometry.search.indexes import AdaptiveIndex, FlatIndex
from isometry.search.store.segments import Segment, SegmentInfo
from isometry.search.store.store import SEGMENTS, read_pending, read_segments
from isometry.types import Index


class _Once:
    """Makes an index when it is first called for, and keeps it."""

    def __init__(self, make: Callable[[], Index]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: Index | None = None

    def __call__(self) -> Index:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class _Part:
    """A segment with its exact index, which is made when it is first needed."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.flat = _Once(lambda: FlatIndex().build(segment.vectors))


class SegmentCache:
    """Segments and indexes by digest, so that a new version opens only what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, _Part] = {}
        self._built: dict[str, Index] = {}

    def get(self, infos: list[SegmentInfo]) -> list[_Part]:
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
                known = _Part(segment)
            held[info.digest] = known
        self._held = held
        return list(held.values())

    def built(self, built: Built, segments: list[Segment]) -> Index | CorruptionError:
        """The index that the manifest names, or why it cannot be used; a harmed file is looked at again."""
        if built.digest not in self._built:
            try:
                self._built = {built.digest: open_index(self._folder, built, segments)}
            except CorruptionError as error:
                return error
        return self._built[built.digest]


@dataclass(frozen=True)
class _Block:
    """Consecutive rows of a view, what searches them, and what searches them exactly."""

    size: int
    search: Callable[[], Index]
    exact: Callable[[], Index]
    approximate: bool


class _Chosen:
    """What a mask lets through of one block."""

    def __init__(self, part: np.ndarray) -> None:
        self.matches = int(np.count_nonzero(part))
        self.mask = None if self.matches == len(part) else part
        self.memo: dict[str, Any] = {}


class VectorView:
    """Every vector of one version: rows `(n,)` ascending, which of them live, and search over them.

    The first rows are searched by the index of the collection's plan, where it is built and whole; the rows behind it
    (and all of them without such an index) exactly.

    Attributes:
        version: the commit that it shows.
        rows: int64 `(n,)`.
        live: bool `(n,)`.
        masks: of filters.
        built: the index file that is used, or None.
        problem: why the file that the manifest names is not used, or None.
    """

    def __init__(
        self, connection: sqlite3.Connection, meta: Mapping[str, Any], path: Path, cache: SegmentCache
    ) -> None:
        self.version, self.dimension = int(meta["version"]), int(meta["dimension"])
        infos = read_segments(connection)
        self._parts = cache.get(infos)
        self._tail_rows, self._tail = read_pending(connection, self.dimension, path)
        self.rows: np.ndarray = np.concatenate([*(part.segment.rows for part in self._parts), self._tail_rows])
        dead = np.fromiter((row for (row,) in connection.execute("SELECT row FROM tombstones")), np.int64)
        self.live: np.ndarray = ~np.isin(self.rows, dead, assume_unique=True)
        self.built: Built | None = None
        self.problem: str | None = None
        self.index: Index | None = None
        note = meta["details"].get("built")
        covered = 0
        if note is not None:
            built = Built.from_dict(note)
            covered = len(built.segments)
            segments = [part.segment for part in self._parts[:covered]]
            if not built.covers([info.digest for info in infos]):
                self.problem, covered = "the segments that it was built from were rewritten", 0
            else:
                found = cache.built(built, segments)
                if isinstance(found, CorruptionError):
                    self.problem, covered = str(found), 0
                else:
                    self.built, self.index = built, found
        self._blocks: list[_Block] = []
        if self.index is not None:
            index, whole = self.index, [part.segment.vectors for part in self._parts[:covered]]
            slow = _Once(lambda: index.exact if isinstance(index, AdaptiveIndex) else _without_copy(whole))
            self._blocks.append(_Block(sum(map(len, whole)), lambda: index, slow, True))
        for part in self._parts[covered:]:
            self._blocks.append(_Block(len(part.segment.rows), part.flat, part.flat, False))
        if len(self._tail_rows):
            tail = _Once(lambda: FlatIndex().build(self._tail))
            self._blocks.append(_Block(len(self._tail_rows), tail, tail, False))
        self.masks = Masks(self.live)
        self._memos: OrderedDict[int, tuple[np.ndarray, list[_Chosen]]] = OrderedDict()

    def _chosen(self, allowed: np.ndarray) -> list[_Chosen]:
        """A mask cut into blocks; kept for masks that come again, which are the same array then."""
        known = self._memos.get(id(allowed))
        if known is None or known[0] is not allowed:
            stops = np.cumsum([0, *(block.size for block in self._blocks)]).tolist()
            known = (allowed, [_Chosen(allowed[start:stop]) for start, stop in pairwise(stops)])
            self._memos[id(allowed)] = known
            while len(self._memos) > 64:
                with suppress(KeyError):
                    self._memos.popitem(last=False)
        return known[1]

    @property
    def segments(self) -> list[Segment]:
        """In the order of their rows."""
        return [part.segment for part in self._parts]

    @property
    def sealed_rows(self) -> int:
        """Rows that stand in segments."""
        return len(self.rows) - len(self._tail_rows)

    @property
    def built_bytes(self) -> int:
        """Bytes that the plan's index holds in memory, codebooks included."""
        shared = getattr(getattr(self.index, "compressor", None), "shared_bytes", 0)
        return int(shared) + sum(_bytes(block.search()) for block in self._blocks if block.approximate)

    @property
    def flat_rows(self) -> int:
        """Rows that are searched exactly."""
        return sum(block.size for block in self._blocks if not block.approximate)

    @property
    def flat_bytes(self) -> int:
        """Bytes that exact search holds in memory."""
        return sum(_bytes(block.search()) for block in self._blocks if not block.approximate) + self._tail.nbytes

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Float32 `(m, d)` of the given rows, which must be here."""
        found = np.empty((len(rows), self.dimension), np.float32)
        places = np.searchsorted(self.rows, rows)
        start = 0
        blocks = [part.segment.vectors for part in self._parts] + ([self._tail] if len(self._tail_rows) else [])
        for block in blocks:
            here = (places >= start) & (places < start + len(block))
            found[here] = block[places[here] - start]
            start += len(block)
        return found

    def target(self, row: int) -> np.ndarray:
        """What finds records like the one in this row: its vector `(d,)`."""
        return self.vectors(np.array([row], np.int64))[0]

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Top-k of `(q, d)`: (scores `(q, k)`, rows `(q, k)` as row numbers, what was done); padded with -1.

        Scores are exact; which rows are found is so too where `exact`, or where what was done says `answer: exact`.
        """
        scores = [np.full((len(queries), 0), -np.inf, np.float32)]
        places = [np.full((len(queries), 0), -1, np.int64)]
        done: dict[str, Any] = {"answer": "exact"}
        start, approximate = 0, None
        for block, chosen in zip(self._blocks, self._chosen(allowed), strict=True):
            if chosen.matches:
                index: Any = block.exact() if exact else block.search()
                options = {"memo": chosen.memo} if isinstance(index, AdaptiveIndex) else {}
                found_scores, found, step = index.search_with_plan(queries, min(k, block.size), chosen.mask, **options)
                scores.append(found_scores)
                places.append(np.where(found >= 0, found + start, -1))
                sure = step.pop("guaranteed", step["stage"] in ("float32 rows", "none"))
                done = _added(done, step)
                if block.approximate and not exact and not sure:
                    done["answer"], approximate = "approximate", step["stage"]
            start += block.size
        if approximate is not None:
            done["stage"] = approximate
        joined, held = np.concatenate(scores, axis=1), np.concatenate(places, axis=1)
        order = np.lexsort((held, -joined), axis=1)[:, :k]
        best_scores, best = np.take_along_axis(joined, order, 1), np.take_along_axis(held, order, 1)
        if best.shape[1] < k:
            short = ((0, 0), (0, k - best.shape[1]))
            best_scores = np.pad(best_scores, short, constant_values=-np.inf)
            best = np.pad(best, short, constant_values=-1)
        numbers = np.where(best >= 0, self.rows[np.maximum(best, 0)] if len(self.rows) else best, -1)
        return best_scores, numbers, done


def _without_copy(vectors: list[np.ndarray]) -> FlatIndex:
    """Exact search that holds no copy in memory."""
    return FlatIndex(first_stage="float32").build(vectors)


def _bytes(index: Index) -> int:
    return int(getattr(index, "bytes_in_memory", 0))


def _added(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Sums of counts over parts; words are taken from the latest."""
    return {
        key: total.get(key, 0) + value if isinstance(value, int) and key != "threads" else value
        for key, value in {**total, **more}.items()
        if key in more
    } | {key: value for key, value in total.items() if key not in more}

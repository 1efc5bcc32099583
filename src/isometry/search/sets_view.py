"""One version of a collection whose records hold several vectors each, held open for searching."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.search.attributes import Masks
from isometry.search.encoded import Encoded, open_encoded
from isometry.search.indexes.multivector import HeldSets, MultiVectorIndex, SetPart
from isometry.search.store.segments import Segment, SegmentInfo
from isometry.search.store.store import SEGMENTS, read_pending_sets, read_segments
from isometry.types import VectorSets


class SetsCache:
    """Segments and encodings by digest, so that a new version opens only what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Segment] = {}
        self._encoded: tuple[Any, Encoded | None, str | None] = (None, None, None)

    def get(self, infos: list[SegmentInfo]) -> list[Segment]:
        """The segments of a version; their vectors are checked when they are read."""
        held = self._held
        self._held = {info.digest: held.get(info.digest) or Segment(self._folder / SEGMENTS, info) for info in infos}
        return list(self._held.values())

    def encoded(self, note: Mapping[str, Any] | None) -> tuple[Encoded | None, str | None]:
        """The encodings that the manifest names, and why they cannot be used where they cannot; looked at once."""
        if note is None:
            return None, None
        if self._encoded[0] != note:
            self._encoded = (note, *open_encoded(self._folder, note))
        return self._encoded[1:]


class SetsView:
    """All vectors of one version: rows `(n,)` ascending, which of them live, and search over them.

    With encodings (paper 32), a query is answered from the `shortlist` records whose encodings are nearest, scored
    exactly; records behind the encoded ones, and all records where there are none, are looked at one by one.

    Attributes:
        version: the commit that it shows.
        rows: int64 `(n,)`.
        live: bool `(n,)`.
        masks: of filters.
        built: None (`VectorView` has more).
        problem: why the encodings that the manifest names are not used, or None.
    """

    built = None
    sealed_rows = 0

    def __init__(self, connection: sqlite3.Connection, meta: Mapping[str, Any], path: Path, cache: SetsCache) -> None:
        self.version, self.dimension = int(meta["version"]), int(meta["dimension"])
        self.segments = cache.get(read_segments(connection))
        tail_rows, tail = read_pending_sets(connection, self.dimension, path)
        self.rows: np.ndarray = np.concatenate([*(part.rows for part in self.segments), tail_rows])
        dead = np.fromiter((row for (row,) in connection.execute("SELECT row FROM tombstones")), np.int64)
        self.live: np.ndarray = ~np.isin(self.rows, dead, assume_unique=True)
        self._parts: list[SetPart] = [*self.segments, *([HeldSets(tail)] if len(tail_rows) else [])]  # type: ignore[list-item]
        self._sizes = [len(part.offsets) - 1 for part in self._parts]
        self.masks = Masks(self.live)
        encoded, self.problem = cache.encoded(meta["details"].get("encodings"))
        covered = [] if encoded is None else encoded.covering([segment.info.digest for segment in self.segments])
        self._encoded_rows = sum(self._sizes[: len(covered)])
        self._blocks: list[tuple[MultiVectorIndex, int]] = []
        if covered and encoded is not None:
            index = encoded.index(covered).attach(self._parts[: len(covered)], self.dimension)
            self._blocks.append((index, self._encoded_rows))
        rest = self._parts[len(covered) :]
        if rest:
            plain = MultiVectorIndex().attach(rest, self.dimension)
            self._blocks.append((plain, len(self.rows) - self._encoded_rows))

    @property
    def plain_vectors(self) -> int:
        """Vectors of records that have no encoding."""
        start, total = 0, 0
        for part, size in zip(self._parts, self._sizes, strict=True):
            total += int(part.offsets[-1]) if start >= self._encoded_rows else 0
            start += size
        return total

    @property
    def index_bytes(self) -> int:
        """Bytes that search holds in memory."""
        return sum(index.bytes_in_memory for index, _ in self._blocks)

    def described(self) -> dict[str, Any]:
        """What `isometry info` says of search over this version."""
        return {
            "kind": "muvera" if self._encoded_rows else "flat",
            "exact": self._encoded_rows == 0,
            "complete": True,
            "vectors": sum(int(part.offsets[-1]) for part in self._parts),
            "encoded_records": self._encoded_rows,
            "problem": self.problem,
        }

    def sets(self, rows: np.ndarray) -> VectorSets:
        """The vectors of the given rows, which must be here, in the order of `rows`."""
        places = np.searchsorted(self.rows, rows)
        order = np.argsort(places, kind="stable")
        start, parts = 0, []
        for part, size in zip(self._parts, self._sizes, strict=True):
            here = places[order]
            here = here[(here >= start) & (here < start + size)] - start
            if len(here):
                parts.append(part.sets(here))
            start += size
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return VectorSets.joined(parts, self.dimension).take(back)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Float32 `(m, d)`: for each of the given rows the mean of its vectors, at length one."""
        found = np.empty((len(rows), self.dimension), np.float32)
        for start in range(0, len(rows), 256):
            values, offsets = self.sets(rows[start : start + 256])
            means = np.add.reduceat(values, offsets[:-1], axis=0) if len(offsets) > 1 else values
            found[start : start + 256] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return found

    def target(self, row: int) -> np.ndarray:
        """What finds records like the one in this row: all its vectors `(t, d)`."""
        return self.sets(np.array([row], np.int64)).values

    def search(
        self, queries: Sequence[np.ndarray] | np.ndarray, k: int, allowed: np.ndarray, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Top-k of queries of `(t_i, d)` each: (scores `(q, k)`, row numbers `(q, k)`, what was done); padded with -1.

        Scores are exact; which rows are found is so too where `exact`, or where what was done says `answer: exact`.
        """
        asked = VectorSets.joined([VectorSets(one, np.array([0, len(one)])) for one in queries], self.dimension)
        scores = [np.full((len(queries), 0), -np.inf, np.float32)]
        places = [np.full((len(queries), 0), -1, np.int64)]
        done: dict[str, Any] = {"answer": "exact", "stage": "all items", "matches": 0, "candidates": 0, "scored": 0}
        start = 0
        for index, size in self._blocks:
            part = allowed[start : start + size]
            if part.any():
                mask = part if not part.all() else None
                found_scores, found, step = index.search_with_plan(*asked, min(k, size), mask, exact=exact)
                scores.append(found_scores)
                places.append(np.where(found >= 0, found + start, -1))
                for name in ("matches", "candidates", "scored"):
                    done[name] += step[name]
                if step["stage"] == "encodings":
                    done |= {"answer": "approximate", "stage": "encodings", "shortlist": max(k, index.shortlist)}
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

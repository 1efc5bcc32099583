"""An int8 copy, cells and a neighbour graph of the same rows, and the ways through them that a planner chooses among."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isometry.search.indexes.flat import FlatIndex
from isometry.search.kernels.exact import top_k
from isometry.search.planner import Costs, Tables

ENTRIES = 2  # of an unfiltered walk: the rows in the middle of the nearest cells
_NOBODY = np.zeros(1, np.bool_)


class Matches:
    """What one filter lets through: how many rows, and which, once somebody asks."""

    def __init__(self, total: int, allowed: np.ndarray | None, rows: np.ndarray | None = None) -> None:
        self.mask, self._total, self._rows = allowed, total, rows
        if rows is not None:
            self.count = len(rows)
        else:
            self.count = total if allowed is None else int(np.count_nonzero(allowed))
        self.filtered = self.count < total

    def rows(self) -> np.ndarray:
        """Matching rows, ascending."""
        if self._rows is None:
            from isometry.search.kernels.matches import mask_rows

            self._rows = np.arange(self._total) if self.mask is None else mask_rows(self.mask, self.count)
        return self._rows


class Ways:
    """The arrays of an index, and one method for each way through them.

    A walk or probe returns the rows that it found, in no order, and how many it scored by their int8 copy.

    Attributes:
        flat: exact search over the same copy.
        centroids: `(cells, d)`.
        order, starts: the rows of each cell.
        medoids: `(cells,)`.
        neighbours: `(n, links)` int32, padded with -1, or None.
    """

    def __init__(self, flat: FlatIndex, arrays: Mapping[str, np.ndarray]) -> None:
        self.flat, self.rows, self.dimension = flat, len(flat), flat.dimension
        self.codes, self.scale, self.bound = arrays["codes"], arrays["scale"], arrays["bound"]
        self.centroids, self.order, self.starts = arrays["centroids"], arrays["order"], arrays["starts"]
        self.medoids, self.neighbours = arrays["medoids"], arrays.get("neighbours")
        self.cells = len(self.centroids)
        self.links = 0 if self.neighbours is None else self.neighbours.shape[1]
        self._one_part = flat.one_call(0)

    def entries(self, near: np.ndarray) -> np.ndarray:
        """Where a walk starts, by the scores of the cells `(cells,)`."""
        count = min(ENTRIES, len(near))
        found: np.ndarray = self.medoids[np.argpartition(-near, count - 1)[:count]]
        return found

    def walk(
        self,
        query: np.ndarray,
        entries: np.ndarray,
        breadth: int,
        mask: np.ndarray | None = None,
        most: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """Through the graph, keeping the `breadth` best (that match); cut off where `most` rows were scored."""
        from isometry.search.kernels.graph import walk

        rows, scores = np.empty(breadth, np.int64), np.empty(breadth, np.float32)
        allowed = _NOBODY if mask is None else mask
        arguments = (self.neighbours, self.codes, self.scale, query, entries, allowed, mask is not None)
        scored = walk(*arguments, self.rows if most is None else most, rows, scores)
        return rows[rows >= 0], int(scored)

    def acorn(
        self, query: np.ndarray, entries: np.ndarray, breadth: int, mask: np.ndarray | None
    ) -> tuple[np.ndarray, int]:
        """Through matching rows only, from matching `entries`, hopping through neighbours that do not match."""
        from isometry.search.kernels.acorn import acorn_walk

        allowed = mask if mask is not None else np.ones(self.rows, bool)
        rows, scores = np.empty(breadth, np.int64), np.empty(breadth, np.float32)
        arguments = (self.neighbours, self.codes, self.scale, query, entries, allowed)
        scored = acorn_walk(*arguments, self.rows, rows, scores)
        return rows[rows >= 0], int(scored)

    def probe(
        self, query: np.ndarray, k: int, near: np.ndarray, probes: int, mask: np.ndarray | None
    ) -> tuple[np.ndarray, int]:
        """The rows (that match) of the nearest cells; a few more than k."""
        from isometry.search.kernels.graph import probe

        chosen = np.argpartition(-near, probes - 1)[:probes] if probes < len(near) else np.arange(len(near))
        rows, scores = np.empty(2 * k + 16, np.int64), np.empty(2 * k + 16, np.float32)
        allowed = _NOBODY if mask is None else mask
        given = (self.order, self.starts, chosen, self.codes, self.scale, query, allowed, mask is not None)
        scored = probe(*given, rows, scores)
        return rows[rows >= 0], int(scored)

    def best_of(self, query: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The k best of ascending `rows` for one query: scores, rows, how many were scored in float32."""
        if self._one_part:
            return self.flat.best_of(query, k, rows)
        from isometry.search.kernels.matches import near_rows

        near = near_rows(self.codes, self.scale, self.bound, rows, query, k)
        scores, found = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int64)
        if len(near):
            scores[:], found[:] = top_k(self.flat.scores_of(query, near), near, k)
        return scores, found, len(near)

    def nearest(self, rows: np.ndarray, query: np.ndarray, most: int) -> np.ndarray:
        """The best `most` of `rows` by their int8 scores."""
        from isometry.search.kernels.int8 import approximate_rows

        if len(rows) <= most:
            return rows
        scores = np.empty(len(rows), np.float32)
        approximate_rows(self.codes, query, rows, scores)
        return rows[np.argpartition(-scores * self.scale[rows], most - 1)[:most]]

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Float32 vectors `(m, d)` of the given rows."""
        return np.stack([
            next(part.values[row - part.start] for part in self.flat.parts if row < part.stop) for row in rows
        ])  # fmt: skip

    def weigh(self, query: np.ndarray, k: int, matches: Matches, tables: Tables, costs: Costs) -> Weighed:
        """How the matches lie to the query, and what each way would cost."""
        from isometry.search.kernels import weigh

        near = self.centroids @ query
        nearest, entries = np.empty(min(ENTRIES, self.cells), np.int32), np.empty(16, np.int32)
        costing = np.empty((7, 2))
        best, local, probes, found = weigh.weigh(
            near, self.order, self.starts, matches.mask if matches.filtered else _NOBODY, matches.count, k, len(query),
            self.links, tables.curves, tables.cuts, costs.array, nearest, entries, costing,
        )  # fmt: skip
        return Weighed(near, best, local, probes, entries[:found], self.medoids[nearest], costing)


class Weighed:
    """One query before it is answered.

    Attributes:
        near: scores of the cells.
        best: the cheapest of planner.STRATEGIES.
        local: share of matches around the query.
        probes: cells to read.
        entries: matches near the query.
        first: where unfiltered walks start.
        costing: rows and nanoseconds of every strategy, `(7, 2)`.
    """

    __slots__ = ("best", "costing", "entries", "first", "local", "near", "probes")

    def __init__(
        self,
        near: np.ndarray,
        best: int,
        local: float,
        probes: int,
        entries: np.ndarray,
        first: np.ndarray,
        costing: np.ndarray,
    ) -> None:
        self.near, self.best, self.local, self.probes = near, best, local, probes
        self.entries, self.first, self.costing = entries, first, costing

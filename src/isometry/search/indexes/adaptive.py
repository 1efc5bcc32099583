"""An int8 copy, a partition into cells and a neighbour graph; for each query the planner chooses the way through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.search.calibration import machine_costs
from isometry.search.indexes._faiss import load_faiss
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.indexes.flat import _ONE_CALL, FlatIndex, _openmp_threads
from isometry.search.kernels.exact import top_k
from isometry.search.planner import Situation, Tables, estimates

STRATEGIES = (
    "exact scan",
    "cells",
    "graph",
    "graph, in filter",
    "graph, over-fetched",
    "acorn",
    "exact scan of matches",
)
_SAMPLE = 96
_ADDED = 16_384
_BREADTHS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_BATCH = 8


class AdaptiveIndex:
    """Approximate top-k by inner product that keeps its recall under any filter (paper 25).

    The graph is built by faiss (HNSW; its lowest level is kept) and walked here over int8 rows; cells are faiss k-means.
    What a query needs of either for `recall` is measured at the end of the build, on rows and mixtures of rows as
    queries; `isometry.search.planner` turns that and the filter into a choice. Too few hits, or a walk that was cut off,
    end in an exact scan of the matches: min(k, matches) rows always come back. Scores are exact.

    Args:
        links: neighbours of a row in the graph (M; twice as many on the level that is kept); 0 for no graph.
        build_breadth: efConstruction. cells: None for the square root of the number of rows.
        recall: of the unfiltered answer, to be reached on average; cells and walks are as large as that takes.

    Attributes:
        last_plan: what ran, the strategies with their estimates, rows scored, bytes touched.
    """

    def __init__(
        self, *, links: int = 16, build_breadth: int = 100, cells: int | None = None, recall: float = 0.97
    ) -> None:
        if links < 0 or build_breadth < 1 or not 0.5 <= recall <= 1:
            raise InputError("links is at least 0, build_breadth at least 1, and recall from 0.5 to 1")
        self.links, self.build_breadth, self.cells, self.recall = links, build_breadth, cells, recall
        self.last_plan: dict[str, Any] = {}

    # ---- building --------------------------------------------------------------------------------------------------

    def build(self, vectors: np.ndarray | Sequence[np.ndarray]) -> AdaptiveIndex:
        """Take float32 vectors (n, d), or a list of such arrays as consecutive rows; they are kept, not copied."""
        flat = FlatIndex(first_stage="int8").build(vectors)
        if not len(flat):
            raise ShapeError("there are no vectors to build cells from.")
        with _openmp_threads(1):  # so that the same vectors give the same index
            arrays = {**flat.arrays(), **self._partition(flat)}
            if self.links:
                arrays["neighbours"] = self._linked(flat)
            self._take(flat, arrays)
            arrays |= self._measured(flat)
        return self.restore(vectors, arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` takes."""
        return dict(self._arrays)

    def restore(self, vectors: np.ndarray | Sequence[np.ndarray], arrays: Mapping[str, np.ndarray]) -> AdaptiveIndex:
        """As `build` on the same vectors, with the arrays it made then, which may be memory-mapped."""
        self._take(FlatIndex(first_stage="int8").restore(vectors, arrays), arrays)
        self._tables = _tables(arrays)
        return self

    def aimed(self, recall: float) -> AdaptiveIndex:
        """The same copy, cells and graph with what another `recall` takes of them."""
        other = AdaptiveIndex(links=self.links, build_breadth=self.build_breadth, cells=self.cells, recall=recall)
        other._take(self._flat, self._arrays)
        other._arrays |= other._measured(self._flat)
        other._tables = _tables(other._arrays)
        return other

    def _take(self, flat: FlatIndex, arrays: Mapping[str, np.ndarray]) -> None:
        self._flat, self._arrays = flat, dict(arrays)
        self._one_part = flat.one_call(0)
        self._few_rows: int | None = None
        self._codes, self._scale = arrays["codes"], arrays["scale"]
        self._centroids, self._order, self._starts = arrays["centroids"], arrays["order"], arrays["starts"]
        self._medoids, self._neighbours = arrays["medoids"], arrays.get("neighbours")

    def _partition(self, flat: FlatIndex) -> dict[str, np.ndarray]:
        faiss = load_faiss()
        parts = [part.values for part in flat._parts]
        n, dimension = len(flat), parts[0].shape[1] if parts else 1
        cells = max(1, min(self.cells or round(n**0.5), n))
        chosen = np.sort(np.random.default_rng(0).choice(n, min(n, 64 * cells), replace=False))
        sample = np.concatenate([
            part.values[chosen[slice(*np.searchsorted(chosen, (part.start, part.stop)))] - part.start]
            for part in flat._parts
        ])  # fmt: skip
        means = faiss.Kmeans(dimension, cells, niter=10, seed=1, min_points_per_centroid=1, spherical=True)
        means.train(sample)
        nearest = faiss.IndexFlatIP(dimension)
        nearest.add(means.centroids)
        cell, score = np.empty(n, np.int64), np.empty(n, np.float32)
        for part in flat._parts:
            for at in range(0, len(part.values), 8192):
                found_scores, found = nearest.search(part.values[at : at + 8192], 1)
                here = slice(part.start + at, part.start + at + len(found))
                cell[here], score[here] = found[:, 0], found_scores[:, 0]
        order = np.lexsort((-score, cell))
        starts = np.searchsorted(cell[order], np.arange(cells + 1))
        medoids = order[np.minimum(starts[:-1], n - 1)]
        return {"centroids": means.centroids, "order": order.astype(np.int32), "starts": starts.astype(np.int64),
                "medoids": medoids.astype(np.int32)}  # fmt: skip

    def _linked(self, flat: FlatIndex) -> np.ndarray:
        faiss = load_faiss()
        index = faiss.IndexHNSWFlat(flat._dimension, self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_breadth
        for at in range(0, len(flat), _ADDED):  # in equal steps, whatever the parts are: each step makes its levels
            pieces = [part.values[max(0, at - part.start) : max(0, at + _ADDED - part.start)] for part in flat._parts]
            index.add(np.concatenate(pieces))
        held = faiss.vector_to_array(index.hnsw.neighbors)
        offsets = faiss.vector_to_array(index.hnsw.offsets)[:-1].astype(np.int64)
        lowest = np.arange(index.hnsw.nb_neighbors(0))
        return np.ascontiguousarray(held[offsets[:, None] + lowest], np.int32)

    def _measured(self, flat: FlatIndex) -> dict[str, np.ndarray]:
        """Cells and widths that reach `recall`, on rows and on mixtures of two rows as queries."""
        n, random = len(flat), np.random.default_rng(2)
        rows = random.choice(n, min(n, 2 * _SAMPLE), replace=False)
        values = np.concatenate([self._row(flat, row) for row in rows])
        half = len(values) // 2
        asked = np.concatenate([values[:half], values[:half] + 0.4 * values[half : 2 * half]]).astype(np.float32)
        asked /= np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1e-12)
        asked = np.concatenate([asked, values[2 * half :]]) if len(asked) == 0 else asked
        deepest = min(n, 3000)
        _, truth = flat.search(asked, deepest)
        cell_of = np.empty(n, np.int64)
        cell_of[self._order] = np.repeat(np.arange(len(self._centroids)), np.diff(self._starts))
        rank = np.argsort(np.argsort(-(asked @ self._centroids.T), axis=1), axis=1) + 1
        wanted = 1 - (1 - self.recall) / 2  # half of the loss is left to what follows
        probes = []
        for depth in sorted({d for d in (10, 30, 100, 300, 1000, 3000) if d <= deepest} | {min(10, deepest)}):
            # the outer half of the ranks: what a filter's k nearest look like when they lie as deep as this
            outer = truth[:, depth // 2 : depth] if depth > 10 else truth[:, :depth]
            needed = np.sort(np.take_along_axis(rank, cell_of[outer], axis=1).ravel())
            probes.append((depth, needed[min(len(needed) - 1, int(np.ceil(wanted * len(needed))))]))
        breadths, scored = [(1.0, 1.0)], [(1.0, 1.0)]
        table: dict[str, np.ndarray] = {}
        if self._neighbours is not None:
            breadths, scored = self._walked(asked, truth, deepest)
            table = {"acorn": self._hopped(asked, truth, breadths)}
        table |= {"probes": np.maximum.accumulate(np.array(probes, np.float64), axis=0)}
        return {**table, "breadths": np.array(breadths, np.float64), "scored": np.array(scored, np.float64)}

    def _walked(self, asked: np.ndarray, truth: np.ndarray, deepest: int) -> tuple[list[Any], list[Any]]:
        breadths: list[tuple[int, int]] = []
        scored: list[tuple[int, float]] = []
        for breadth in (b for b in _BREADTHS if b <= max(12, deepest)):
            found = [self._walk(query, self._entries(self._centroids @ query), breadth) for query in asked]
            scored.append((breadth, float(np.mean([count for _, count in found]))))
            for k in (10, 100):
                if breadth < k or any(known == k for known, _ in breadths):
                    continue
                hits = [len(np.intersect1d(rows, true[:k])) / min(k, len(true)) for (rows, _), true in
                        zip(((self._nearest(rows, query, k), c) for (rows, c), query in zip(found, asked, strict=True)),
                            truth, strict=True)]  # fmt: skip
                if np.mean(hits) >= self.recall or breadth == _BREADTHS[-1]:
                    breadths.append((k, breadth))
        breadths = sorted(breadths) or [(10, scored[-1][0])]
        return breadths, scored

    def _hopped(self, asked: np.ndarray, truth: np.ndarray, breadths: list[Any]) -> np.ndarray:
        """For shares of matches, ascending, how much wider than an unfiltered walk acorn's must be for `recall` `(m, 2)`;
        shares at which none is wide enough are left out."""
        k, usual = breadths[0]
        random = np.random.default_rng(3)
        found = []
        for share in (0.5, 0.25, 0.12, 0.06):
            mask = random.random(len(self)) < share
            best = [true[mask[true]][:k] for true in truth]
            if not all(len(rows) == k for rows in best):
                break
            matching = _Filter(self, mask)
            near = [self._met_near(self._centroids @ query, mask, k) for query in asked]
            for breadth in (b for b in _BREADTHS if b >= usual):
                hits = [
                    len(np.intersect1d(self._nearest(self._acorn(query, breadth, matching, met[1])[0], query, k), true))
                    for query, met, true in zip(asked, near, best, strict=True)
                ]
                if np.mean(hits) >= self.recall * k:
                    found.append((share, breadth / usual))
                    break
            else:
                break
        return np.array(sorted(found), np.float64).reshape(-1, 2)

    def _met_near(self, near: np.ndarray, mask: np.ndarray, k: int) -> tuple[tuple[int, int, int], np.ndarray]:
        """Cells, rows and matches that are passed for 3k matches, and matches near the query."""
        from isometry.search.kernels.matches import met_near

        entries = np.empty(16, np.int32)
        *passed, count = met_near(near, self._order, self._starts, mask, 3 * k, entries)
        return tuple(passed), entries[:count]

    def _row(self, flat: FlatIndex, row: int) -> np.ndarray:
        part = next(part for part in flat._parts if part.start <= row < part.stop)
        return part.values[row - part.start][None, :]

    # ---- searching -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._flat)

    @property
    def exact(self) -> FlatIndex:
        """Exact search over the same int8 copy."""
        return self._flat

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the int8 copy, cells and graph; the float32 vectors may be mapped and are not counted."""
        return sum(array.nbytes for array in self._arrays.values())

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        scores, rows, self.last_plan = self.search_with_plan(queries, k, allowed)
        return scores, rows

    def search_with_plan(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        *,
        memo: dict[str, Any] | None = None,
        strategy: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """As `search`, with what ran; several threads may call it at once.

        Args:
            memo: kept by the caller for one `allowed`; what the filter needs once is put there.
            strategy: one of STRATEGIES instead of the planner's choice.
        """
        known = {} if memo is None else memo
        if strategy is None and allowed is not None:
            answer = self._at_once(queries, k, allowed, known)
            if answer is not None:
                return answer
        queries = check_queries(queries, self._flat._dimension, k)
        allowed = check_allowed(allowed, len(self))
        if "filter" not in known:
            known["filter"] = _Filter(self, allowed)
        matching: _Filter = known["filter"]
        exact = ("exact scan of matches", "exact scan")
        if matching.count <= 2 * k or len(queries) == 0 or strategy in exact:
            return self._exactly(queries, k, allowed, matching, [])
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        plan: dict[str, Any] = {"stage": "", "matches": matching.count, "scanned": 0, "candidates": 0, "bytes": 0}
        ran: dict[str, int] = {}
        left = []
        for number, query in enumerate(queries):
            choices, near, entries, situation = self._choices(query, k, matching)
            chosen = strategy or choices[0].strategy
            if number == 0:
                plan["choices"] = [one.to_dict() for one in choices]
                plan["selectivity"], plan["near_selectivity"] = matching.count / len(self), round(situation.local, 6)
                if strategy is None and len(queries) >= _BATCH:
                    together = machine_costs().batch * situation.dimension / 384 * matching.count / 1000
                    if together < choices[0].microseconds:
                        return self._exactly(queries, k, allowed, matching, plan["choices"])
            found, scored = None, 0
            if chosen not in exact:
                found, scored = self._run(chosen, query, k, matching, near, entries, situation)
            if found is None or len(found) < min(k, matching.count):
                left.append(number)
                continue
            scores[number], rows[number], again = self._best_of(query, k, np.sort(found))
            ran[chosen] = ran.get(chosen, 0) + 1
            plan["scanned"] += scored
            plan["candidates"] += again
        if left:
            scores[left], rows[left], step = self._exactly(queries[left], k, allowed, matching, [])
            ran[step["stage"]] = len(left)
            plan["scanned"] += step["scanned"]
            plan["candidates"] += step["candidates"]
        plan["stage"] = max(ran, key=lambda name: ran[name])
        if len(ran) > 1:
            plan["ran"] = ran
        if set(ran) <= set(exact):
            plan["guaranteed"] = True
        plan["bytes"] = plan["scanned"] * (queries.shape[1] + 8) + plan["candidates"] * queries.shape[1] * 4
        return scores, rows, plan

    def _at_once(self, queries: Any, k: int, allowed: Any, known: dict[str, Any]) -> Any:
        """One query whose filter lets so few rows through that weighing the ways costs more than scanning them: the
        answer of two compiled calls; None for any other case, and for input that is to be refused."""
        shape = (1, self._flat._dimension)
        if not (
            type(queries) is np.ndarray and queries.shape == shape and type(k) is int and k > 0
            and queries.dtype == np.float32 and type(allowed) is np.ndarray and allowed.dtype == np.bool_
            and allowed.shape == (len(self._codes),) and allowed.flags.c_contiguous and queries.flags.c_contiguous
        ):  # fmt: skip
            return None
        from isometry.search.kernels.matches import mask_rows

        matching: _Filter | None = known.get("filter")
        few = self._few()
        if matching is None:
            rows = mask_rows(allowed, few)
        elif matching.count > few:
            return None
        else:
            rows = matching.rows()
        count = len(rows)
        if count > few or count < k:
            return None
        scores, found, again = self._best_of(queries[0], k, rows)
        if again == 0:  # a query that is not finite
            return None
        if matching is None:
            known["filter"] = _Filter(self, allowed, rows)
        width, each = shape[1], machine_costs().gather * shape[1] / 384 / 1e6
        choices = [
            {"strategy": "exact scan of matches", "rows": count, "estimated_ms": round(count * each, 4)},
            {"strategy": "any other, at least", "rows": 0, "estimated_ms": round(few * each, 4)},
        ]
        plan = {
            "stage": "exact scan of matches", "guaranteed": True, "matches": count, "scanned": count,
            "candidates": again, "bytes": count * (width + 8) + again * width * 4, "threads": 1, "choices": choices,
            "selectivity": count / len(self._codes),
        }  # fmt: skip
        return scores[None], found[None], plan

    def _few(self) -> int:
        """Matches whose scan stays below the least that another way takes: ordering the cells, and weighing the ways."""
        if self._few_rows is None:
            costs, size = machine_costs(), self._flat._dimension / 384
            least = costs.centroid * len(self._centroids) * size + costs.weigh
            self._few_rows = min(_ONE_CALL, 3 * len(self) // 4, int(least / (costs.gather * size)))
        return self._few_rows

    def _best_of(self, query: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The k best of ascending `rows` for one query: scores, rows, how many were scored in float32."""
        if self._one_part:
            return self._flat.best_of(query, k, rows)
        from isometry.search.kernels.matches import near_rows

        near = near_rows(self._codes, self._scale, self._arrays["bound"], rows, query, k)
        scores, found = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int64)
        if len(near):
            scores[:], found[:] = top_k(self._flat._exact(query, near), near, k)
        return scores, found, len(near)

    def _exactly(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, matching: _Filter, choices: list[Any]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        rows_allowed = None if allowed is None else matching.rows()
        count = matching.count
        if len(queries) == 1 and rows_allowed is not None and 0 < count <= _ONE_CALL and 4 * count < 3 * len(self):
            best, found, again = self._best_of(queries[0], k, rows_allowed)
            width = queries.shape[1]
            plan = {
                "stage": "exact scan of matches", "guaranteed": True, "matches": count, "scanned": count,
                "candidates": again, "bytes": count * (width + 8) + again * width * 4, "threads": 1,
            }  # fmt: skip
            return best[None], found[None], {**plan, "choices": choices} if choices else plan
        scores, rows, plan = self._flat.search_with_plan(queries, k, allowed, rows_allowed=rows_allowed)
        plan |= {"stage": "exact scan" if allowed is None else "exact scan of matches", "guaranteed": True}
        return scores, rows, {**plan, "choices": choices} if choices else plan

    def _choices(
        self, query: np.ndarray, k: int, matching: _Filter
    ) -> tuple[list[Any], np.ndarray, np.ndarray, Situation]:
        """Estimates, cheapest first; centroid scores; matches near the query; the situation they follow from."""
        near = self._centroids @ query
        n, cells = len(self), len(self._centroids)
        entries = _NO_ROWS
        if matching.count == n:
            probes = self._tables.cells_for(k, cells)
            local, probed = 1.0, int(n / cells * probes * 1.3)
        else:
            assert matching.mask is not None
            (place, passed, met), entries = self._met_near(near, matching.mask, k)
            local = met / max(1, passed)
            probes = max(place, self._tables.cells_for(k / max(local, 1e-9), cells))
            probed = min(matching.count, met + int((probes - place) * n / cells * local))
        links = 0 if self._neighbours is None else self._neighbours.shape[1]
        situation = Situation(n, matching.count, k, len(query), cells, links, local, min(probes, cells), probed)
        if matching.choices is not None and matching.choices[0] == k and matching.count == n:
            return matching.choices[1], near, entries, situation
        found = estimates(situation, self._tables, machine_costs())
        matching.choices = (k, found)
        return found, near, entries, situation

    def _run(
        self,
        strategy: str,
        query: np.ndarray,
        k: int,
        matching: _Filter,
        near: np.ndarray,
        entries: np.ndarray,
        s: Situation,
    ) -> tuple[np.ndarray | None, int]:
        """Matching rows that were found, and how many were scored; None where a walk was cut off."""
        if strategy == "cells":
            return self._probe(query, k, matching, near, s.probes)
        if self._neighbours is None or strategy not in STRATEGIES:
            raise InputError(f"this index has no strategy '{strategy}'")
        breadth = self._tables.breadth_for(k)
        if strategy == "acorn":
            wider = self._tables.acorn_factor(s.local)
            breadth = ceil(breadth * (wider if np.isfinite(wider) else 4.0))
            entries = entries if len(entries) else self._entries(near)  # with no filter there were none to look for
            return self._acorn(query, min(breadth, len(self)), matching, entries)
        if strategy == "graph, over-fetched":
            wide = self._tables.breadth_for(ceil(1.5 * k / max(s.local, 1e-9)))
            while wide < len(self):
                rows, scored = self._walk(query, self._entries(near), wide)
                kept = rows[matching.mask[rows]] if matching.mask is not None else rows
                if len(kept) >= k:
                    return kept, scored
                wide *= 2
            return None, 0
        mask = matching.mask
        if mask is not None:
            breadth = min(self._tables.matches_for(k, max(s.local, 1e-9)), matching.count)
        most = len(self) if mask is None else max(2000, len(self) // 2)
        rows, scored = self._walk(query, self._entries(near), breadth, mask, most)
        return (None if scored >= most else rows), scored

    def _probe(
        self, query: np.ndarray, k: int, matching: _Filter, near: np.ndarray, probes: int
    ) -> tuple[np.ndarray, int]:
        from isometry.search.kernels.graph import probe

        chosen = np.argpartition(-near, probes - 1)[:probes] if probes < len(near) else np.arange(len(near))
        rows, scores = np.empty(2 * k + 16, np.int64), np.empty(2 * k + 16, np.float32)
        mask = _NOBODY if matching.mask is None else matching.mask
        given = (self._order, self._starts, chosen, self._codes, self._scale, query, mask, matching.mask is not None)
        scored = probe(*given, rows, scores)
        return rows[rows >= 0], int(scored)

    def _acorn(self, query: np.ndarray, breadth: int, matching: _Filter, entries: np.ndarray) -> tuple[np.ndarray, int]:
        from isometry.search.kernels.acorn import acorn_walk

        mask = matching.mask if matching.mask is not None else np.ones(len(self), bool)
        rows, scores = np.empty(breadth, np.int64), np.empty(breadth, np.float32)
        arguments = (self._neighbours, self._codes, self._scale, query, entries, mask)
        scored = acorn_walk(*arguments, len(self), rows, scores)
        return rows[rows >= 0], int(scored)

    def _walk(
        self,
        query: np.ndarray,
        entries: np.ndarray,
        breadth: int,
        mask: np.ndarray | None = None,
        most: int | None = None,
    ) -> tuple[np.ndarray, int]:
        from isometry.search.kernels.graph import walk

        rows, scores = np.empty(breadth, np.int64), np.empty(breadth, np.float32)
        allowed = _NOBODY if mask is None else mask
        arguments = (self._neighbours, self._codes, self._scale, query, entries, allowed, mask is not None)
        scored = walk(*arguments, len(self) if most is None else most, rows, scores)
        return rows[rows >= 0], int(scored)

    def _entries(self, near: np.ndarray) -> np.ndarray:
        count = min(2, len(near))
        return self._medoids[np.argpartition(-near, count - 1)[:count]]

    def _nearest(self, rows: np.ndarray, query: np.ndarray, most: int) -> np.ndarray:
        """The best `most` of `rows` by their int8 scores."""
        from isometry.search.kernels.int8 import approximate_rows

        if len(rows) <= most:
            return rows
        scores = np.empty(len(rows), np.float32)
        approximate_rows(self._codes, query, rows, scores)
        return rows[np.argpartition(-scores * self._scale[rows], most - 1)[:most]]


_NOBODY = np.zeros(1, np.bool_)
_NO_ROWS = np.empty(0, np.int32)


def _tables(arrays: Mapping[str, np.ndarray]) -> Tables:
    acorn = arrays.get("acorn")
    curves = [arrays[name] for name in ("probes", "breadths", "scored")]
    return Tables.of(*curves) if acorn is None else Tables.of(*curves, acorn)


class _Filter:
    """What one filter means for one index: how many rows match, and which, once somebody asks."""

    def __init__(self, index: AdaptiveIndex, allowed: np.ndarray | None, rows: np.ndarray | None = None) -> None:
        self.mask = allowed
        self.choices: tuple[int, list[Any]] | None = None
        self._index = index
        self._rows = rows
        if rows is not None:
            self.count = len(rows)
        else:
            self.count = len(index) if allowed is None else int(np.count_nonzero(allowed))

    def rows(self) -> np.ndarray:
        """Matching rows, ascending."""
        if self._rows is None:
            from isometry.search.kernels.matches import mask_rows

            self._rows = np.arange(len(self._index)) if self.mask is None else mask_rows(self.mask, self.count)
        return self._rows

"""An int8 copy, a partition into cells and a neighbour graph; for each query the planner chooses the way through them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.search.calibration import measure
from isometry.search.indexes._faiss import load_faiss
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.indexes.flat import _ONE_CALL, FlatIndex, _openmp_threads
from isometry.search.indexes.ways import Matches, Ways, Weighed
from isometry.search.planner import STRATEGIES, Costs, Tables, listed

_EXACT = ("exact scan of matches", "exact scan")
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
        build_breadth: efConstruction.
        cells: None for the square root of the number of rows.
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
            arrays |= self._measured(Ways(flat, arrays))
        return self.restore(vectors, arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` takes."""
        return dict(self._arrays)

    def restore(self, vectors: np.ndarray | Sequence[np.ndarray], arrays: Mapping[str, np.ndarray]) -> AdaptiveIndex:
        """As `build` on the same vectors, with the arrays it made then, which may be memory-mapped."""
        self._take(FlatIndex(first_stage="int8").restore(vectors, arrays), arrays)
        return self

    def aimed(self, recall: float) -> AdaptiveIndex:
        """The same copy, cells and graph with what another `recall` takes of them."""
        other = AdaptiveIndex(links=self.links, build_breadth=self.build_breadth, cells=self.cells, recall=recall)
        other._take(self._ways.flat, {**self._arrays, **other._measured(self._ways)})
        return other

    def _take(self, flat: FlatIndex, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays, self._ways = dict(arrays), Ways(flat, arrays)
        self._tables = Tables(arrays["probes"], arrays["breadths"], arrays["scored"], arrays.get("acorn"))
        self._measured_costs: Costs | None = None
        self._few = 0

    def _partition(self, flat: FlatIndex) -> dict[str, np.ndarray]:
        faiss = load_faiss()
        parts = [part.values for part in flat.parts]
        n, dimension = len(flat), parts[0].shape[1] if parts else 1
        cells = max(1, min(self.cells or round(n**0.5), n))
        chosen = np.sort(np.random.default_rng(0).choice(n, min(n, 64 * cells), replace=False))
        sample = np.concatenate([
            part.values[chosen[slice(*np.searchsorted(chosen, (part.start, part.stop)))] - part.start]
            for part in flat.parts
        ])  # fmt: skip
        means = faiss.Kmeans(dimension, cells, niter=10, seed=1, min_points_per_centroid=1, spherical=True)
        means.train(sample)
        nearest = faiss.IndexFlatIP(dimension)
        nearest.add(means.centroids)
        cell, score = np.empty(n, np.int64), np.empty(n, np.float32)
        for part in flat.parts:
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
        index = faiss.IndexHNSWFlat(flat.dimension, self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_breadth
        for at in range(0, len(flat), _ADDED):  # in equal steps, whatever the parts are: each step makes its levels
            pieces = [part.values[max(0, at - part.start) : max(0, at + _ADDED - part.start)] for part in flat.parts]
            index.add(np.concatenate(pieces))
        held = faiss.vector_to_array(index.hnsw.neighbors)
        offsets = faiss.vector_to_array(index.hnsw.offsets)[:-1].astype(np.int64)
        lowest = np.arange(index.hnsw.nb_neighbors(0))
        return np.ascontiguousarray(held[offsets[:, None] + lowest], np.int32)

    def _measured(self, ways: Ways) -> dict[str, np.ndarray]:
        """Cells and widths that reach `recall`, on rows and on mixtures of two rows as queries."""
        n, random = ways.rows, np.random.default_rng(2)
        values = ways.values(random.choice(n, min(n, 2 * _SAMPLE), replace=False))
        half = len(values) // 2
        asked = np.concatenate([values[:half], values[:half] + 0.4 * values[half : 2 * half]]).astype(np.float32)
        asked /= np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1e-12)
        asked = np.concatenate([asked, values[2 * half :]]) if len(asked) == 0 else asked
        deepest = min(n, 3000)
        _, truth = ways.flat.search(asked, deepest)
        cell_of = np.empty(n, np.int64)
        cell_of[ways.order] = np.repeat(np.arange(ways.cells), np.diff(ways.starts))
        rank = np.argsort(np.argsort(-(asked @ ways.centroids.T), axis=1), axis=1) + 1
        wanted = 1 - (1 - self.recall) / 2  # half of the loss is left to what follows
        probes = []
        for depth in sorted({d for d in (10, 30, 100, 300, 1000, 3000) if d <= deepest} | {min(10, deepest)}):
            # the outer half of the ranks: what a filter's k nearest look like when they lie as deep as this
            outer = truth[:, depth // 2 : depth] if depth > 10 else truth[:, :depth]
            needed = np.sort(np.take_along_axis(rank, cell_of[outer], axis=1).ravel())
            probes.append((depth, needed[min(len(needed) - 1, int(np.ceil(wanted * len(needed))))]))
        breadths, scored = [(1.0, 1.0)], [(1.0, 1.0)]
        table: dict[str, np.ndarray] = {}
        if ways.neighbours is not None:
            breadths, scored = self._walked(ways, asked, truth, deepest)
            table = {"acorn": self._hopped(ways, asked, truth, breadths)}
        table |= {"probes": np.maximum.accumulate(np.array(probes, np.float64), axis=0)}
        return {**table, "breadths": np.array(breadths, np.float64), "scored": np.array(scored, np.float64)}

    def _walked(self, ways: Ways, asked: np.ndarray, truth: np.ndarray, deepest: int) -> tuple[list[Any], list[Any]]:
        breadths: list[tuple[int, int]] = []
        scored: list[tuple[int, float]] = []
        for breadth in (b for b in _BREADTHS if b <= max(12, deepest)):
            found = [ways.walk(query, ways.entries(ways.centroids @ query), breadth) for query in asked]
            scored.append((breadth, float(np.mean([count for _, count in found]))))
            for k in (10, 100):
                if breadth < k or any(known == k for known, _ in breadths):
                    continue
                hits = [len(np.intersect1d(rows, true[:k])) / min(k, len(true)) for (rows, _), true in
                        zip(((ways.nearest(rows, query, k), c) for (rows, c), query in zip(found, asked, strict=True)),
                            truth, strict=True)]  # fmt: skip
                if np.mean(hits) >= self.recall or breadth == _BREADTHS[-1]:
                    breadths.append((k, breadth))
        breadths = sorted(breadths) or [(10, scored[-1][0])]
        return breadths, scored

    def _hopped(self, ways: Ways, asked: np.ndarray, truth: np.ndarray, breadths: list[Any]) -> np.ndarray:
        """For shares of matches, ascending, how much wider than an unfiltered walk acorn's must be for `recall` `(m, 2)`;
        shares at which none is wide enough are left out."""
        k, usual = breadths[0]
        random = np.random.default_rng(3)
        flat, costs = np.array([[1.0, 1.0]]), Costs()
        found = []
        for share in (0.5, 0.25, 0.12, 0.06):
            mask = random.random(ways.rows) < share
            best = [true[mask[true]][:k] for true in truth]
            if not all(len(rows) == k for rows in best):
                break
            matches = Matches(ways.rows, mask)
            near = [ways.weigh(query, k, matches, Tables(flat, flat, flat), costs).entries for query in asked]
            for breadth in (b for b in _BREADTHS if b >= usual):
                hits = [
                    len(np.intersect1d(ways.nearest(ways.acorn(query, entries, breadth, mask)[0], query, k), true))
                    for query, entries, true in zip(asked, near, best, strict=True)
                ]
                if np.mean(hits) >= self.recall * k:
                    found.append((share, breadth / usual))
                    break
            else:
                break
        return np.array(sorted(found), np.float64).reshape(-1, 2)

    # ---- searching -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._ways.rows

    @property
    def exact(self) -> FlatIndex:
        """Exact search over the same int8 copy."""
        return self._ways.flat

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the int8 copy, cells and graph; the float32 vectors may be mapped and are not counted."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def costs(self) -> Costs:
        """Of this index on this machine, measured when they are first asked for."""
        held = self._measured_costs
        if held is None:
            held = self._measured_costs = measure(self._ways, self._tables)
            self._few = self._scanned_at_once(held)
        return held

    def _scanned_at_once(self, costs: Costs) -> int:
        """Matches whose scan stays below twice the least that another way takes (ordering the cells, weighing the ways, and
        the narrowest walk or the fewest cells): listing the matches twice and weighing costs as much, mostly in vain."""
        ways, tables, size = self._ways, self._tables, self._ways.dimension / 384
        least = ways.rows / ways.cells * tables.cells_for(1, ways.cells) * costs.look
        if ways.links:
            least = min(least, tables.scored_by(tables.breadth_for(1)) * costs.hop * size)
        least += costs.centroid * ways.cells * size + costs.weigh
        return min(_ONE_CALL, 3 * ways.rows // 4, int(2 * least / (costs.gather * size)))

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
        """As `search`, with what ran and what it took (`measured_ms`, beside the `choices` that were estimated); several
        threads may call it at once.

        Args:
            memo: kept by the caller for one `allowed`; what the filter needs once is put there.
            strategy: one of STRATEGIES instead of the planner's choice.
        """
        costs = self.costs  # measured before the clock runs
        began = time.perf_counter_ns()
        scores, rows, plan = self._answered(queries, k, allowed, {} if memo is None else memo, strategy, costs)
        plan["measured_ms"] = round((time.perf_counter_ns() - began) / 1e6, 4)
        return scores, rows, plan

    def _answered(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, known: dict[str, Any], strategy: str | None,
        costs: Costs,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:  # fmt: skip
        if strategy is None and allowed is not None:
            answer = self._at_once(queries, k, allowed, known)
            if answer is not None:
                return answer
        queries = check_queries(queries, self._ways.dimension, k)
        allowed = check_allowed(allowed, len(self))
        matches: Matches | None = known.get("matches")
        if matches is None:
            matches = known["matches"] = Matches(len(self), allowed)
        if matches.count <= 2 * k or len(queries) == 0 or strategy in _EXACT:
            return self._exactly(queries, k, allowed, matches, [])
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        plan: dict[str, Any] = {"stage": "", "matches": matches.count, "scanned": 0, "candidates": 0, "bytes": 0}
        ran: dict[str, int] = {}
        left: list[int] = []
        for number, query in enumerate(queries):
            weighed = self._ways.weigh(query, k, matches, self._tables, costs)
            chosen = strategy or STRATEGIES[weighed.best]
            if number == 0:
                plan["choices"] = [one.to_dict() for one in listed(weighed.costing)]
                plan["selectivity"], plan["near_selectivity"] = matches.count / len(self), round(weighed.local, 6)
                if strategy is None and len(queries) >= _BATCH:
                    together = costs.batch * self._ways.dimension / 384 * matches.count
                    if together < weighed.costing[weighed.best, 1]:
                        return self._exactly(queries, k, allowed, matches, plan["choices"])
            found, scored = None, 0
            if chosen not in _EXACT:
                found, scored = self._run(chosen, query, k, matches, weighed)
            if found is None or len(found) < min(k, matches.count):
                left.append(number)
                continue
            found.sort()
            scores[number], rows[number], again = self._ways.best_of(query, k, found)
            ran[chosen] = ran.get(chosen, 0) + 1
            plan["scanned"] += scored
            plan["candidates"] += again
        if left:
            scores[left], rows[left], step = self._exactly(queries[left], k, allowed, matches, [])
            ran[step["stage"]] = len(left)
            plan["scanned"] += step["scanned"]
            plan["candidates"] += step["candidates"]
        plan["stage"] = max(ran, key=lambda name: ran[name])
        if len(ran) > 1:
            plan["ran"] = ran
        if set(ran) <= set(_EXACT):
            plan["guaranteed"] = True
        plan["bytes"] = plan["scanned"] * (queries.shape[1] + 8) + plan["candidates"] * queries.shape[1] * 4
        return scores, rows, plan

    def _at_once(self, queries: Any, k: int, allowed: Any, known: dict[str, Any]) -> Any:
        """One query whose filter lets so few rows through that weighing the ways costs more than scanning them: the
        answer of two compiled calls; None for any other case, and for input that is to be refused."""
        if not (
            type(queries) is np.ndarray and queries.shape == (1, self._ways.dimension) and type(k) is int and k > 0
            and queries.dtype == np.float32 and type(allowed) is np.ndarray and allowed.dtype == np.bool_
            and allowed.shape == (len(self),) and allowed.flags.c_contiguous and queries.flags.c_contiguous
        ):  # fmt: skip
            return None
        from isometry.search.kernels.matches import mask_rows

        matches: Matches | None = known.get("matches")
        costs, few = self.costs, self._few
        if matches is None:
            rows = mask_rows(allowed, few)
        elif matches.count > few:
            return None
        else:
            rows = matches.rows()
        count = len(rows)
        if count > few or count < k:
            return None
        scores, found, again = self._ways.best_of(queries[0], k, rows)
        if again == 0:  # a query that is not finite
            return None
        if matches is None:
            known["matches"] = Matches(len(self), allowed, rows)
        width = self._ways.dimension
        each = costs.gather * width / 384
        choices = [
            {"strategy": "exact scan of matches", "rows": count, "estimated_ms": round((costs.query + count * each) / 1e6, 4)},
            {"strategy": "any other, at least", "rows": 0, "estimated_ms": round((costs.query + few * each / 2) / 1e6, 4)},
        ]  # fmt: skip
        plan = {
            "stage": "exact scan of matches", "guaranteed": True, "matches": count, "scanned": count,
            "candidates": again, "bytes": count * (width + 8) + again * width * 4, "threads": 1, "choices": choices,
            "selectivity": count / len(self),
        }  # fmt: skip
        return scores[None], found[None], plan

    def _exactly(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, matches: Matches, choices: list[Any]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        rows_allowed = None if allowed is None else matches.rows()
        count = matches.count
        if len(queries) == 1 and rows_allowed is not None and 0 < count <= _ONE_CALL and 4 * count < 3 * len(self):
            best, found, again = self._ways.best_of(queries[0], k, rows_allowed)
            width = queries.shape[1]
            plan = {
                "stage": "exact scan of matches", "guaranteed": True, "matches": count, "scanned": count,
                "candidates": again, "bytes": count * (width + 8) + again * width * 4, "threads": 1,
            }  # fmt: skip
            return best[None], found[None], {**plan, "choices": choices} if choices else plan
        scores, rows, plan = self._ways.flat.search_with_plan(queries, k, allowed, rows_allowed=rows_allowed)
        plan |= {"stage": "exact scan" if allowed is None else "exact scan of matches", "guaranteed": True}
        return scores, rows, {**plan, "choices": choices} if choices else plan

    def _run(
        self, strategy: str, query: np.ndarray, k: int, matches: Matches, weighed: Weighed
    ) -> tuple[np.ndarray | None, int]:
        """Matching rows that were found, and how many were scored; None where a walk was cut off."""
        ways, mask = self._ways, matches.mask
        if strategy == "cells":
            return ways.probe(query, k, weighed.near, weighed.probes, mask)
        if ways.neighbours is None or strategy not in STRATEGIES:
            raise InputError(f"this index has no strategy '{strategy}'")
        local = max(weighed.local, 1e-9)
        if strategy == "acorn":
            wider = self._tables.acorn_factor(weighed.local)
            breadth = ceil(self._tables.breadth_for(k) * (wider if np.isfinite(wider) else 4.0))
            entries = weighed.entries if len(weighed.entries) else weighed.first  # none were looked for with no filter
            return ways.acorn(query, entries, min(breadth, len(self)), mask)
        if strategy == "graph, over-fetched":
            wide = self._tables.breadth_for(ceil(1.5 * k / local))
            while wide < len(self):
                rows, scored = ways.walk(query, weighed.first, wide)
                kept = rows[mask[rows]] if mask is not None else rows
                if len(kept) >= k:
                    return kept, scored
                wide *= 2
            return None, 0
        if mask is None:
            return ways.walk(query, weighed.first, self._tables.breadth_for(k))
        most = max(2000, len(self) // 2)
        breadth = min(self._tables.matches_for(k, local), matches.count)
        rows, scored = ways.walk(query, weighed.first, breadth, mask, most)
        return (None if scored >= most else rows), scored

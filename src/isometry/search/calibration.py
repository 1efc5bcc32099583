"""What the steps of a search cost on this machine, measured on the index itself when it is first searched.

Rows that a benchmark makes up lie in memory, and are walked, other than the rows of an index: estimates by them were two
to four times too low. So each way is run on a few rows of the index, which takes some ten milliseconds, and divided by the rows
that the planner expects it to score.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from isometry.search.planner import Costs, Tables

if TYPE_CHECKING:
    from isometry.search.indexes.ways import Ways

_QUERIES, _K = 12, 10
_FEW, _MANY = 256, 4096
_STEPS = 6_000.0  # nanoseconds of what lies between the calls, twice: checks, lists, the plan that is said; as profiled


def measure(ways: Ways, tables: Tables) -> Costs:
    """Medians over a few queries, in this thread's processor time, so that a busy machine changes little."""
    from isometry.search.indexes.ways import Matches
    from isometry.search.kernels import int8
    from isometry.search.kernels.weigh import CELLS

    n, size, random = ways.rows, ways.dimension / 384, np.random.default_rng(5)
    usual = Costs()
    rows = ways.values(random.choice(n, min(n, 2 * _QUERIES), replace=False))
    half = max(1, len(rows) // 2)
    asked = (rows[:half] + 0.4 * rows[-half:]).astype(np.float32)
    asked /= np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1e-12)

    block = min(n, 65_536)
    products, kept = np.empty(block, np.float32), np.empty(block, np.int64)
    everyone, whole = np.ones(1, np.bool_), np.empty(ways.dimension, np.int16)

    def scan(i: int) -> None:
        heap = np.full(_K, -np.inf, np.float32)
        step, error = int8.whole_query(asked[i], whole)
        int8.approximate_whole(ways.codes, whole, step, 0, block, products)
        sides = (everyone, False, np.float32(1.0), error)
        int8.raise_floor(products, ways.scale[:block], ways.bound[:block], *sides, heap)
        int8.collect(products, ways.bound[:block], *sides, heap[0], kept)

    turns = range(len(asked))
    costs = replace(usual, scan=_median(scan, turns) / block / size)
    few, many = min(n, _FEW), min(n, _MANY)
    lists = {count: [np.sort(random.choice(n, count, replace=False)) for _ in turns] for count in (few, many)}
    least = _median(lambda i: ways.best_of(asked[i], _K, lists[few][i]), turns)
    most = _median(lambda i: ways.best_of(asked[i], _K, lists[many][i]), turns)
    if many > few:
        costs = replace(costs, gather=max((most - least) / (many - few) / size, costs.scan / 2))
    costs = replace(costs, query=max(1_000.0, least - few * costs.gather * size) + _STEPS, batch=costs.scan / 6)

    scores = _median(lambda i: ways.centroids @ asked[i], turns)
    costs = replace(costs, centroid=scores / ways.cells / size)
    quarter, everything = Matches(n, random.random(n) < 0.25), Matches(n, None)
    weighing = _median(lambda i: ways.weigh(asked[i], _K, quarter, tables, costs), turns) - scores
    costs = replace(costs, weigh=max(1_000.0, weighing) + _STEPS)

    seen = [ways.weigh(query, _K, quarter, tables, costs) for query in asked]
    probed = _median(lambda i: ways.probe(asked[i], _K, seen[i].near, seen[i].probes, quarter.mask), turns)
    looked = n / ways.cells * float(np.median([one.probes for one in seen]))
    rest = probed - float(np.median([one.costing[CELLS, 0] for one in seen])) * costs.gather * size
    costs = replace(costs, look=max(0.3, rest / max(looked, 1.0)))
    if ways.links:
        breadth = tables.breadth_for(_K)
        firsts = [ways.weigh(query, _K, everything, tables, costs).first for query in asked]
        walked = _median(lambda i: ways.walk(asked[i], firsts[i], breadth), turns)
        costs = replace(costs, hop=walked / max(1.0, tables.scored_by(breadth)) / size)
        factor = tables.acorn_factor(0.25)
        if np.isfinite(factor) and all(len(one.entries) for one in seen):
            broad = ceil(breadth * factor)
            hopped = _median(lambda i: ways.acorn(asked[i], seen[i].entries, broad, quarter.mask), turns)
            rest = hopped - min(tables.scored_by(broad), quarter.count) * costs.hop * size
            costs = replace(costs, test=max(0.05, rest / (broad * ways.links * (1 + 0.75 * ways.links))))
    return costs


def _median(run: Callable[[int], object], turns: range) -> float:
    """Nanoseconds of one call; the first is made once more before, which compiles what is used."""
    run(turns[0])
    spent = []
    for turn in turns:
        began = time.thread_time_ns()
        run(turn)
        spent.append(time.thread_time_ns() - began)
    return max(1.0, float(np.median(spent)))

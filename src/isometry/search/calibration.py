"""What the steps of a search cost on this machine: measured once, in about a second, and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

_ROWS, _WIDTH, _BREADTH = 131_072, 32, 64  # more than the caches hold, as collections are
_VERSION = 5


@dataclass(frozen=True)
class Costs:
    """Nanoseconds for one row of 384 int8 coordinates (other dimensions in proportion), or as said.

    Attributes:
        scan: rows in their order. gather: rows here and there. batch: a row and query within a product of many queries.
        hop: a row that a graph walk scores. test: a neighbour that is only looked up. centroid: a float32 centroid.
        exact: a float32 row scored exactly. query: every search, whatever it does. look: a row that is only looked up in
        the filter. weigh: the choice, and the steps around a walk; six times its estimates, as profiled.
    """

    scan: float = 20.0
    gather: float = 30.0
    batch: float = 4.0
    hop: float = 45.0
    test: float = 2.0
    centroid: float = 30.0
    exact: float = 100.0
    query: float = 30_000.0
    look: float = 1.0
    weigh: float = 40_000.0


@cache
def machine_costs() -> Costs:
    """Of this machine: from the user's cache, or measured now and put there."""
    path = _path()
    try:
        held = json.loads(path.read_text())
        values = {field.name: float(held[field.name]) for field in fields(Costs)}
        if all(0 < value < 1e9 for value in values.values()):
            return Costs(**values)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    costs = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(costs)))
        temporary.replace(path)
    except OSError:
        pass  # a cache that cannot be written is measured again
    return costs


def measure() -> Costs:
    """Best of several short runs each, in this thread's processor time, so that a busy machine changes little."""
    from isometry.search.kernels import int8
    from isometry.search.kernels.acorn import acorn_walk
    from isometry.search.kernels.graph import probe, walk
    from isometry.search.planner import Situation, Tables, estimates

    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (_ROWS, 384), np.int8)
    scale, query = np.ones(_ROWS, np.float32), random.standard_normal(384).astype(np.float32)
    rows, out = np.sort(random.choice(_ROWS, _ROWS // 8, replace=False)), np.empty(_ROWS, np.float32)
    graph = random.integers(0, _ROWS, (_ROWS, _WIDTH)).astype(np.int32)
    entries, found, scores = np.zeros(1, np.int32), np.empty(_BREADTH, np.int64), np.empty(_BREADTH, np.float32)
    every, none, half = np.ones(_ROWS, bool), np.zeros(1, bool), random.random(_ROWS) < 0.25
    half[0] = True
    floats = codes[:4096].astype(np.float32)
    few = np.arange(4096)
    scan = _best(lambda: int8.approximate(codes, query, 0, _ROWS, out)) / _ROWS
    gather = _best(lambda: int8.approximate_rows(codes, query, rows, out)) / len(rows)
    walked = walk(graph, codes, scale, query, entries, none, False, 3000, found, scores)
    hop = _best(lambda: walk(graph, codes, scale, query, entries, none, False, 3000, found, scores)) / walked
    whole = acorn_walk(graph, codes, scale, query, entries, every, 3000, found, scores)
    looked = _best(lambda: acorn_walk(graph, codes, scale, query, entries, every, 3000, found, scores)) / whole
    part = acorn_walk(graph, codes, scale, query, entries, half, 3000, found, scores)
    sparse = _best(lambda: acorn_walk(graph, codes, scale, query, entries, half, 3000, found, scores)) / part
    with threadpool_limits(1):  # threads that wait for each other would count
        centroid = _best(lambda: floats @ query) / len(floats)
    exact = _best(lambda: int8.exact_scores(floats, few, query, out[:4096])) / len(floats)
    tables = Tables.of(*(np.array([[10.0, 4.0], [1000.0, 40.0]]) for _ in range(3)))
    situation = Situation(_ROWS, _ROWS // 4, 10, 384, 128, _WIDTH, 0.25, 8, 400)
    weigh = _best(lambda: estimates(situation, tables, Costs()))
    order, cell = random.permutation(_ROWS).astype(np.int32), (np.array([0, _ROWS // 4]), np.zeros(1, np.int64))
    probed = _best(lambda: probe(order, *cell, codes, scale, query, half, True, found, scores)) / cell[0][1]
    look = float(max(0.5, probed - gather / 4))
    return Costs(
        scan=scan, gather=gather, batch=scan / 6, hop=hop, test=max(0.2, (sparse - looked) / 4), centroid=centroid,
        exact=2 * exact, look=look, weigh=6 * weigh,
    )  # fmt: skip


def _best(run: Callable[[], object], repeats: int = 15) -> float:
    """Fewest nanoseconds of several runs, the first one left out."""
    run()
    spent = []
    for _ in range(repeats):
        began = time.thread_time_ns()
        run()
        spent.append(time.thread_time_ns() - began)
    return max(1.0, float(min(spent)))


def _path() -> Path:
    from isometry.search.kernels.exact import LANES

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isometry"
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    machine = hashlib.blake2b(repr((_VERSION, model, os.cpu_count(), LANES)).encode(), digest_size=6).hexdigest()
    return folder / f"search-costs-{machine}.json"

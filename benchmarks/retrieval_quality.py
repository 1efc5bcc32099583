"""Retrieval quality of the three search modes on four judged collections, by the commands a user would give.

    python benchmarks/retrieval_quality.py [--data FOLDER] [--work FOLDER] [--encoder default] [--out docs]

For each of cranfield, cisi, cacm and nfcorpus: write it as a BEIR folder, `isometry index` its corpus, `isometry eval`
the collection in the modes vector, text and hybrid. Writes docs/benchmarks/retrieval_quality.md and the table in
docs/evaluation.md. With `--work` the collections are kept, and a second run indexes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from isometry.evaluation import beir_from_parquet
from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.beir import PARQUET_COLLECTIONS
from isometry.evaluation.evidence import machine_in_words, package_versions
from isometry.evaluation.report import markdown_table
from isometry.recipes._data import find_data

METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map")
MODES = ("vector", "text", "hybrid")
BEGIN, END = "<!-- retrieval_quality: begin -->", "<!-- retrieval_quality: end -->"


def isometry(*arguments: str) -> dict[str, Any]:
    """Run the command line with --json and read what it says."""
    print("isometry", *arguments, file=sys.stderr, flush=True)
    found = subprocess.run([sys.executable, "-m", "isometry", *arguments, "--json"], capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr)
    return json.loads(found.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    texts = find_data("text/retrieval-docs.parquet", arguments.data).parent
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(texts, arguments.work or Path(temporary), arguments.encoder)
    header = ["collection", "documents", "queries", "mode", *METRICS]
    table = markdown_table(header, rows)
    machine = machine_in_words()
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    page = f"""# Retrieval quality

Written by `python benchmarks/retrieval_quality.py`; not edited by hand.

Each cell is the mean over the test queries with its 95 % bootstrap interval (BCa). Encoder: {arguments.encoder}.

{table}

{machine["cpu"]}, {machine["cores"]} cores; {versions}.
"""
    (arguments.out / "benchmarks").mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "benchmarks" / "retrieval_quality.md", page.encode())
    guide = arguments.out / "evaluation.md"
    if guide.is_file() and BEGIN in guide.read_text():
        before, rest = guide.read_text().split(BEGIN, 1)
        write_atomically(guide, f"{before}{BEGIN}\n{table}\n{END}{rest.split(END, 1)[1]}".encode())
    print(table)


def measure(texts: Path, work: Path, encoder: str) -> list[list[str]]:
    rows = []
    for name in PARQUET_COLLECTIONS:
        beir, collection = work / "beir" / name, work / name
        beir_from_parquet(texts, name, beir)
        columns = ("--id", "_id", "--text", "title,text", "--encoder", encoder)
        isometry("index", str(beir / "corpus.jsonl"), "--into", str(collection), *columns)
        for mode in MODES:
            found = isometry("eval", str(collection), "--data", str(beir), "--mode", mode)
            cells = []
            for metric in METRICS:
                low, high = found["metrics"][metric]["interval"]
                cells.append(f"{found['metrics'][metric]['value']:.3f} [{low:.3f}, {high:.3f}]")
            rows.append([name, f"{found['documents']:,}", str(found["queries"]), mode, *cells])
    return rows


if __name__ == "__main__":
    main()

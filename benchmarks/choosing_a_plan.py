"""The measured front of the page 'Choosing a plan': `isometry tune` on arXiv papers.

    python benchmarks/choosing_a_plan.py --data DATA --work FOLDER [--rows 20000] [--text title]

Makes a collection of ROWS papers in FOLDER (or goes on with the one there), asks it with the titles of held-out papers and
writes docs/benchmarks/choosing_a_plan.md, .json and .png. A run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from isometry.encoders import load_encoder
from isometry.evaluation.evidence import machine_in_words
from isometry.evaluation.front import write_front
from isometry.evaluation.report import markdown_table
from isometry.search import Collection
from isometry.search.tuning import Budget, TuneReport, tune

BUDGETS = (
    ("recall of at least 0.95", Budget(recall=0.95)),
    ("recall of at least 0.99", Budget(recall=0.99)),
    ("64 bytes a vector", Budget(bytes_per_vector=64)),
    ("128 bytes a vector", Budget(bytes_per_vector=128)),
    ("recall of at least 0.9, the collection on half of its disk", Budget(recall=0.9)),
)


def made(given: argparse.Namespace) -> Collection:
    """The collection; papers that are in it already are not encoded again."""
    columns = [*given.text.split(","), "primary_category", "created"]
    table = pq.read_table(given.data / "arxiv" / "arxiv.parquet", columns=["id", *columns])
    table = table.take(np.sort(np.random.default_rng(3).permutation(len(table))[: given.rows]))
    path, encoder = given.work / "papers", load_encoder("default")
    if path.exists():
        opened = Collection.open(path, writable=True, encoder=encoder)
    else:
        schema = table.schema.remove(table.schema.get_field_index("id"))
        opened = Collection.create(path, encoder=encoder, schema=schema, text_columns=given.text.split(","))
    for batch in table.to_batches(max_chunksize=512):
        opened.upsert(batch)
        print(f"{len(opened)} of {given.rows} papers", flush=True)
    return opened


def page(report: TuneReport, opened: Collection, text: str) -> str:
    head = [
        "candidate",
        "recall",
        "95 % interval",
        "p95 ms",
        "of it searching",
        "bytes a vector",
        "RAM MB",
        "disk MB",
        "records",
    ]
    rows = [
        [one.candidate.label, f"{one.recall:.3f}", f"{one.interval[0]:.3f} to {one.interval[1]:.3f}", f"{one.p95_ms:.2f}",
         f"{one.search_p95_ms:.2f}", f"{one.bytes_per_vector:.0f}", f"{one.ram_mb:.1f}", f"{one.disk_mb:.1f}", f"{one.rows:,}"]
        for one in report.front
    ]  # fmt: skip
    half = next(one for one in report.final if one.candidate.label == "exact").disk_mb / 2
    lines = []
    for name, budget in BUDGETS:
        asked = Budget(recall=0.9, disk_mb=half) if "half" in name else budget
        best = asked.choose(report.final)
        lines.append(
            f"- {name}: "
            + (
                f"**{best.candidate.label}**, recall {best.recall:.3f}, {best.bytes_per_vector:.0f} bytes a vector,"
                f" p95 {best.p95_ms:.2f} ms"
                if best
                else f"nothing: {asked.refusal(report.final)}"
            )
        )
    steps = ", ".join(f"{rows:,} records with {count} queries" for rows, count in report.rungs)
    exits = [one for one in report.measured if one.candidate.recodes]
    ladder = sorted(
        exits, key=lambda one: (-(one.candidate.layers or 99), -(one.candidate.dimensions or 9999), one.candidate.key)
    )
    return "\n".join([
        "# The front of 'Choosing a plan'", "",
        f"{report.records:,} arXiv papers ({text}), all-MiniLM-L6-v2, {opened.dimension} dimensions. {report.asked}. Recall is of the"
        f" exact float32 {report.k} best. {len(report.measured)} candidates by successive halving ({steps}). p95 is of encoding one query"
        " and searching. Written by `python benchmarks/choosing_a_plan.py`.", "",
        "![Recall against p95 and against memory](choosing_a_plan.png)", "", markdown_table(head, rows), "",
        "## What fits a budget", "", *lines, "",
        "## Fewer layers and dimensions", "",
        "Exact search over the vectors of every exit of the encoder, at the last step that each reached. This encoder was not trained to"
        " be cut (papers 03 and 23 say how); recall is of what the whole encoder finds.", "",
        markdown_table(
            ["exit", "recall", "p95 ms", "bytes a vector", "disk MB", "records"],
            [[one.candidate.label, f"{one.recall:.3f}", f"{one.p95_ms:.2f}", f"{one.bytes_per_vector:.0f}", f"{one.disk_mb:.1f}",
              f"{one.rows:,}"] for one in ladder if one.candidate.plan.index == "exact"],
        ), "", f"{machine_in_words()['cpu']}, {os.cpu_count()} cores; {report.seconds:.0f} s.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ISOMETRY_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "isometry" / "choosing")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--text", default="title")
    parser.add_argument("--exit-rows", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    with made(given) as opened:

        def said(done: int, total: int | None) -> None:
            print(f"measured {done} of {total}", flush=True)

        report = tune(opened, exit_rows=given.exit_rows, folder=given.work / "tune", progress=said)
        found = report.to_dict()
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "choosing_a_plan.json").write_text(json.dumps(found, indent=1))
        picture, _ = write_front(found, given.work)
        shutil.copyfile(picture, given.out / "choosing_a_plan.png")
        text = page(report, opened, given.text.replace(",", " and "))
        (given.out / "choosing_a_plan.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()

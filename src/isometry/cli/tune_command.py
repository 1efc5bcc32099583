"""isometry tune DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isometry.cli._shared import print_json, progress_bar, tell
from isometry.cli.search_command import _read_queries
from isometry.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune(
    collection: Annotated[Path, typer.Argument(help="the collection's folder")],
    recall: Annotated[float | None, typer.Option("--recall", help="of the exact k best, at least (as 0.95)")] = None,
    p95_ms: Annotated[float | None, typer.Option("--p95-ms", help="95 % of queries encoded and found within")] = None,
    bytes_per_vector: Annotated[
        float | None, typer.Option("--bytes-per-vector", help="of the index in memory, at most")
    ] = None,
    ram_mb: Annotated[float | None, typer.Option("--ram-mb", help="in memory for searching, at most")] = None,
    disk_mb: Annotated[float | None, typer.Option("--disk-mb", help="on disk, at most")] = None,
    queries: Annotated[
        str | None, typer.Option("--queries", help="a text file with a query a line (- for stdin), or vectors as .npy")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="hits that a search is asked for")] = 10,
    exits: Annotated[
        bool, typer.Option("--exits/--no-exits", help="also try fewer layers and dimensions of the encoder")
    ] = True,
    exit_rows: Annotated[int, typer.Option("--exit-rows", help="records that are encoded by every exit")] = 5_000,
    rows: Annotated[int, typer.Option("--rows", help="records that are measured on, at most")] = 200_000,
    count: Annotated[int, typer.Option("--count", help="held-out records that stand for queries")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="of every draw")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="folder for the front; DIR/cache/tune otherwise")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="rebuild the collection to what is recommended")] = False,
    encoder: Annotated[str | None, typer.Option("--encoder", help="where the model is now, if it has moved")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Measure many ways to keep and search a collection, and recommend the one that fits a budget.

    Cut off, the same command goes on. Figures are of this machine and these records.
    """
    from isometry.evaluation.front import write_front
    from isometry.search import Collection, tuning

    budget = tuning.Budget(recall, p95_ms, bytes_per_vector, ram_mb, disk_mb)
    if rows < tuning.LEAST_RECORDS:
        raise InputError(f"rows is {rows}; give at least {tuning.LEAST_RECORDS}")
    given = None if queries is None else _vectors(queries) if queries.endswith(".npy") else _read_queries(queries)
    loaded = None
    if encoder is not None:
        from isometry.encoders import load_encoder

        loaded = load_encoder(encoder)
    with Collection.open(collection, writable=apply, encoder=loaded) as opened:
        folder = opened.path / "cache" / "tune" if out is None else out
        with progress_bar("tuning") as progress:
            report = tuning.tune(
                opened, budget=budget, queries=given, k=k, exits=exits, most_rows=rows, exit_rows=exit_rows,
                count=count, seed=seed, folder=folder, progress=progress,
            )  # fmt: skip
        found = report.to_dict()
        picture, page = write_front(found, folder)
        found |= {"picture": str(picture), "page": str(page), "applied": False}
        best = report.recommended
        if best is None:
            raise InputError(
                f"{(budget if budget.limited else tuning.Budget(recall=0.95)).refusal(report.final)}; see {page}"
            )
        if apply:
            with progress_bar("encoding", show=best.candidate.recodes) as progress:
                tuning.apply(opened, best.candidate, progress=progress)
            found["applied"] = True
    if as_json:
        print_json(found)
        return
    tell(f"{report.asked}; {report.records:,} records, {len(report.measured)} candidates in {report.seconds:.0f} s")
    print("recall  p95 ms  bytes/vector   RAM MB  disk MB  candidate")
    for one in report.front:
        mark = "*" if one is best or one == best else " "
        part = "" if one.rows >= min(report.records, rows) - count else f"  (on {one.rows:,} records)"
        print(
            f"{mark}{one.recall:.3f} {one.p95_ms:7.2f} {one.bytes_per_vector:13.1f} {one.ram_mb:8.1f} {one.disk_mb:8.1f}"
            f"  {one.candidate.label}{part}"
        )
    print(f"* recommended: {best.candidate.label}")
    print(f"drawn in {picture} and {page}")
    if not apply:
        print("--apply rebuilds the collection to it")


def _vectors(name: str) -> Any:
    import numpy as np

    try:
        return np.load(name, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} is no .npy file of numbers: {error}") from error

"""isometry graph embed EDGES --out NODES.parquet"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from isometry.cli._shared import print_json, progress_bar, tell
from isometry.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def graph() -> None:
    """Work on graphs: their nodes become vectors."""


@app.command()
def embed(
    edges: Annotated[Path, typer.Argument(help="edge list (.csv .tsv .txt, also .gz .zst), .parquet or .npz")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write: columns node and vector")],
    method: Annotated[str, typer.Option("--method", help="fastrp or node2vec")] = "fastrp",
    dimension: Annotated[int | None, typer.Option("--dimension", help="length of a vector (512; node2vec 128)")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="fastrp: weights of the powers, as 0,0,1,6.67")
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="fastrp: exponent of the degree scaling (-0.64)")] = None,
    block_size: Annotated[
        int | None, typer.Option("--block-size", help="fastrp: columns at a time, to bound memory")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="seed of the random numbers")] = 0,
    directed: Annotated[bool, typer.Option("--directed", help="keep the directions of the edges")] = False,
    source: Annotated[str | None, typer.Option("--source", help="column of the edges' first node")] = None,
    target: Annotated[str | None, typer.Option("--target", help="column of their second node")] = None,
    weight: Annotated[str | None, typer.Option("--weight", help="column of their weights")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Embed the nodes of a graph and write NODES.parquet."""
    from isometry.graphs import FastRP, read_graph, write_embeddings

    if method not in ("fastrp", "node2vec"):
        raise InputError(f"no method '{method}': use fastrp or node2vec")
    if method == "node2vec" and (weights is not None or beta is not None or block_size is not None):
        raise InputError("--weights, --beta and --block-size belong to fastrp; leave them out with --method node2vec")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InputError(f"--out {out}: give a file in a folder that exists")
    began = time.perf_counter()
    found = read_graph(edges, directed=directed, source_column=source, target_column=target, weight_column=weight)
    for note in found.notes:
        tell(note)
    settings: dict[str, object] = {"random_state": seed}
    if dimension is not None:
        settings["dimension"] = dimension
    with progress_bar(f"embedding {len(found.nodes):,} nodes", show=not as_json) as progress:
        if method == "fastrp":
            settings |= {} if weights is None else {"weights": _numbers(weights)}
            settings |= {} if beta is None else {"beta": beta}
            model = FastRP(block_size=block_size, **settings)  # type: ignore[arg-type]
            vectors = model.fit_transform(found.adjacency, nodes=found.nodes, progress=progress)
        else:
            from isometry.graphs import Node2Vec

            model = Node2Vec(**settings)  # type: ignore[arg-type]
            vectors = model.fit_transform(found.adjacency, progress=progress)
    write_embeddings(out, found.nodes, vectors, {"method": method, **model.get_params()})
    report = {
        "nodes": len(found.nodes),
        "edges": found.edge_count,
        "dimension": int(vectors.shape[1]),
        "method": method,
        "notes": list(found.notes),
        "file": str(out),
        "seconds": round(time.perf_counter() - began, 3),
    }
    if as_json:
        print_json(report)
    else:
        print(f"{report['nodes']:,} nodes, {report['edges']:,} edges -> {out} ({vectors.shape[1]} dimensions)")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--weights takes numbers with commas between them, as 0,0,1,6.67, not {text!r}") from None

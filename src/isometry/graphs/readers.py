"""Whatever holds a graph to a `Graph`: edge lists in files, npz, scipy, NetworkX, PyTorch Geometric."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Hashable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from scipy import sparse

from isometry.errors import InputError, NotFoundError, RecordError, ShapeError
from isometry.graphs.graph import Graph, graph_from_edges, graph_from_indices
from isometry.graphs.similarity import checked_adjacency

_SOURCES = ("source", "src", "from", "u", "node1", "head")
_TARGETS = ("target", "dst", "to", "v", "node2", "tail")
_WEIGHTS = ("weight", "w")


def read_graph(
    source: Any,
    *,
    directed: bool = False,
    self_loops: Literal["drop", "keep"] = "drop",
    source_column: str | None = None,
    target_column: str | None = None,
    weight_column: str | None = None,
) -> Graph:
    """Read a graph.

    Args:
        source: path of an edge list (.csv, .tsv, .txt, .edges, .edgelist, each also .gz or .zst; .parquet; .npz), a
            pyarrow table of edges, a scipy sparse matrix or array, a NetworkX graph, or an object with `edge_index`
            `(2, m)` and `num_nodes` as PyTorch Geometric's `Data` has.
        directed: keep directions; otherwise every edge goes both ways, also those of a directed NetworkX graph.
        source_column, target_column, weight_column: names where the file has them; guessed from the header otherwise.

    Text files: fields by tab, comma or blanks; lines that begin with # or % are comments; two fields, or three with a
    weight; a first line naming source and target is a header. Names from text files stay text.

    Raises:
        NotFoundError: no such file. RecordError: a bad line, with its number. InputError: not a graph.
    """
    options: dict[str, Any] = {"directed": directed, "self_loops": self_loops}
    columns = (source_column, target_column, weight_column)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
        try:
            if name.endswith(".npz"):
                return _read_npz(path, options)
            if name.endswith((".parquet", ".pq")):
                return _from_table(pq.read_table(path), columns, str(path), options)
            if name.endswith((".csv", ".tsv", ".txt", ".edges", ".edgelist")):
                return _read_text(path, columns, options)
        except (pa.ArrowException, zipfile.BadZipFile, EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        raise InputError(f"{path}: a graph is read from .csv, .tsv, .txt, .edges, .edgelist, .parquet or .npz")
    if isinstance(source, pa.Table):
        return _from_table(source, columns, "table", options)
    if sparse.issparse(source):
        return _from_sparse(source, options)
    if hasattr(source, "edge_index"):
        return _from_edge_index(source, options)
    if hasattr(source, "nodes") and hasattr(source, "edges") and hasattr(source, "is_directed"):
        return _from_networkx(source, options)
    raise InputError(
        f"a graph cannot be read from {type(source).__name__}: give a file, a sparse matrix or a NetworkX graph"
    )


def _read_text(path: Path, columns: tuple[str | None, ...], options: dict[str, Any]) -> Graph:
    with _opened(path) as stream:
        try:
            return _parse_text(stream, path, columns, options)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _parse_text(stream: TextIO, path: Path, columns: tuple[str | None, ...], options: dict[str, Any]) -> Graph:
    lines = ((number, line.strip()) for number, line in enumerate(stream, start=1))
    kept: Iterator[tuple[int, str]] = ((number, line) for number, line in lines if line and line[0] not in "#%")
    first = next(kept, None)
    if first is None:
        raise InputError(f"{path} holds no edge")
    separator = "\t" if "\t" in first[1] else "," if "," in first[1] else None
    header = [field.strip().strip('"') for field in first[1].split(separator)]
    lowered = [name.lower() for name in header]
    named = any(columns) or (any(name in _SOURCES for name in lowered) and any(name in _TARGETS for name in lowered))
    if named:
        positions = _positions(header, columns, str(path))
    else:
        if len(header) not in (2, 3):
            raise RecordError(str(path), first[0], None, f"an edge has 2 or 3 fields, not {len(header)}")
        positions = (0, 1, 2 if len(header) == 3 else None)
        kept = chain([first], kept)
    names: list[str] = []
    weights: list[float] = []
    width = len(header)
    for number, line in kept:
        fields = [field.strip().strip('"') for field in line.split(separator)]
        if len(fields) != width:
            raise RecordError(str(path), number, None, f"{len(fields)} fields where {width} were expected")
        if not fields[positions[0]] or not fields[positions[1]]:
            raise RecordError(str(path), number, None, "an edge lacks a node's name")
        names += (fields[positions[0]], fields[positions[1]])
        if positions[2] is not None:
            weights.append(_weight(fields[positions[2]], path, number))
    return graph_from_edges(
        names[0::2], names[1::2], weights if positions[2] is not None else None, where=str(path), **options
    )


def _weight(text: str, path: Path, number: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise RecordError(str(path), number, "weight", f"{text!r} is not a number") from None
    if not 0 <= weight < float("inf"):
        raise RecordError(str(path), number, "weight", f"{text} is not a finite number of at least 0")
    return weight


def _positions(header: list[str], columns: tuple[str | None, ...], where: str) -> tuple[int, int, int | None]:
    """Columns of source, target and weight: as asked for, by well-known names, else the first two of two or three."""
    found: list[int | None] = []
    for asked, known in zip(columns, (_SOURCES, _TARGETS, _WEIGHTS), strict=True):
        if asked is not None and asked not in header:
            raise InputError(f"{where} has no column '{asked}': it has {', '.join(header)}")
        guesses = [i for i, name in enumerate(header) if name.lower() in known]
        found.append(header.index(asked) if asked is not None else guesses[0] if guesses else None)
    first, second, weight = found
    if first is None and second is None and len(header) in (2, 3):
        first, second = 0, 1
    if first is None or second is None or first == second:
        raise InputError(
            f"{where}: which columns are source and target? Name them (--source, --target); it has {', '.join(header)}"
        )
    return first, second, weight


def _from_table(table: pa.Table, columns: tuple[str | None, ...], where: str, options: dict[str, Any]) -> Graph:
    first, second, weight = _positions(table.column_names, columns, where)
    for position in (first, second, weight):
        if position is None or table.column(position).null_count == 0:
            continue
        row = table.column(position).is_null().to_pylist().index(True) + 1
        raise RecordError(where, row, table.column_names[position], "the value is missing")
    values = None
    if weight is not None:
        try:
            values = table.column(weight).cast(pa.float64()).to_numpy()
        except pa.ArrowException:
            name = table.column_names[weight]
            raise InputError(
                f"{where}, column '{name}': weights must be numbers, not {table.column(weight).type}"
            ) from None
    sides = [table.column(position).to_pylist() for position in (first, second)]
    try:
        return graph_from_edges(sides[0], sides[1], values, where=where, **options)
    except TypeError as error:
        raise InputError(f"{where}: a node's name must be text or a number ({error})") from error


def _read_npz(path: Path, options: dict[str, Any]) -> Graph:
    """Either scipy's own `save_npz`, or arrays: edges `(m, 2)` (or src_delta and dst) and num_nodes, with optional
    weight, labels or label_indptr / label_indices, and features as x_indptr, x_indices, x_data, x_shape."""
    try:
        arrays = dict(np.load(path, allow_pickle=False))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        if "indptr" in arrays and "shape" in arrays:
            return _from_sparse(sparse.load_npz(path), options)
        if "edges" in arrays:
            row, column = arrays["edges"][:, 0], arrays["edges"][:, 1]
        elif "src_delta" in arrays:
            row, column = np.cumsum(arrays["src_delta"].astype(np.int64)), arrays["dst"]
        else:
            raise InputError(
                f"{path}: an npz graph has 'edges' (m, 2), or 'src_delta' and 'dst'; this one has {', '.join(arrays)}"
            )
        n = int(arrays["num_nodes"]) if "num_nodes" in arrays else int(max(row.max(), column.max())) + 1
        labels: Any = arrays.get("labels")
        if "label_indptr" in arrays:
            indices = arrays["label_indices"].astype(np.int32)
            count = int(arrays.get("num_labels", indices.max() + 1))
            labels = sparse.csr_array(
                (np.ones(len(indices), np.int8), indices, arrays["label_indptr"]), shape=(n, count)
            )
        features = None
        if "x_indptr" in arrays:
            parts = (arrays["x_data"], arrays["x_indices"], arrays["x_indptr"])
            features = sparse.csr_array(parts, shape=tuple(int(size) for size in arrays["x_shape"]))
        names = arrays["node_names"].tolist() if "node_names" in arrays else []
        nodes = names if len(set(names)) == n else range(n)
        return graph_from_indices(
            row, column, arrays.get("weight"), nodes=nodes, labels=labels, features=features, where=str(path), **options
        )
    except (KeyError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its arrays do not fit together: {error}") from error


def _from_sparse(matrix: Any, options: dict[str, Any]) -> Graph:
    checked = checked_adjacency(matrix).tocoo()
    # a matrix of ones means unweighted whatever its type; weights are kept as they are
    return graph_from_indices(
        checked.coords[0], checked.coords[1], checked.data, nodes=range(checked.shape[0]), where="matrix", **options
    )


def _from_edge_index(data: Any, options: dict[str, Any]) -> Graph:
    pairs = np.asarray(data.edge_index)
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ShapeError(f"edge_index has shape (2, edges), not {pairs.shape}")
    n = getattr(data, "num_nodes", None) or (int(pairs.max()) + 1 if pairs.size else 0)
    weights = getattr(data, "edge_weight", None)
    features, labels = getattr(data, "x", None), getattr(data, "y", None)
    return graph_from_indices(
        pairs[0],
        pairs[1],
        None if weights is None else np.asarray(weights).ravel(),
        nodes=range(int(n)),
        labels=None if labels is None else np.asarray(labels),
        features=None if features is None else np.asarray(features),
        where="edge_index",
        **options,
    )


def _from_networkx(graph: Any, options: dict[str, Any]) -> Graph:
    edges = list(graph.edges(data="weight"))
    weighted = any(weight is not None for _, _, weight in edges)
    weights = [1.0 if weight is None else weight for _, _, weight in edges] if weighted else None
    nodes: list[Hashable] = list(graph.nodes)
    return graph_from_edges(
        (edge[0] for edge in edges), (edge[1] for edge in edges), weights, nodes=nodes, where="graph", **options
    )


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix.lower() == ".zst":
        return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb")), encoding="utf-8")
    return path.open(encoding="utf-8")

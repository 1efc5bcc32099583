"""A graph as the estimators take it, with the user's names kept beside the rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from isometry.errors import InputError, ShapeError


@dataclass(frozen=True)
class Graph:
    """n nodes and their edges.

    Attributes:
        adjacency: `(n, n)` float32 `csr_array`, symmetric unless `directed`.
        nodes: n distinct names, row by row, as the user gave them.
        directed: row to column where true.
        labels: class numbers `(n,)` (-1 = none) or indicators `(n, c)`; None where the source has none.
        features: `(n, f)`; None where the source has none.
        notes: what the reader did to the edges, one sentence each.
    """

    adjacency: sparse.csr_array
    nodes: Sequence[Hashable]
    directed: bool = False
    labels: Any = None
    features: Any = None
    notes: tuple[str, ...] = ()

    @property
    def edge_count(self) -> int:
        """Edges, each undirected one counted once."""
        if self.directed:
            return int(self.adjacency.nnz)
        loops = int((self.adjacency.diagonal() != 0).sum())
        return (int(self.adjacency.nnz) - loops) // 2 + loops


def graph_from_edges(
    sources: Iterable[Hashable],
    targets: Iterable[Hashable],
    weights: Any = None,
    *,
    nodes: Sequence[Hashable] | None = None,
    directed: bool = False,
    self_loops: Literal["drop", "keep"] = "drop",
    where: str = "edges",
) -> Graph:
    """Graph from two lists of names and optional weights.

    Args:
        sources, targets: m names of any hashable kind; nodes are numbered as they first appear (or as in `nodes`).
        weights: `(m,)` numbers >= 0; None counts every listed edge as 1. An edge of weight 0 is no edge.
        self_loops: 'drop' (walks and averages would stay where they are) or 'keep'.
        where: what to call the source in errors.
    Repeated edges: without weights they count once; with weights, repeats of the same direction are added, and an
    undirected edge listed in both directions takes the larger of the two and not their sum.

    Raises:
        InputError: negative weight, NaN, unequal lengths, an edge of a node that `nodes` lacks, no node at all.
    """
    index: dict[Hashable, int] = {name: i for i, name in enumerate(nodes or ())}
    if nodes is not None and len(index) != len(nodes):
        raise InputError(f"{where}: node names must be distinct")
    if nodes is None:
        rows = np.fromiter(
            (index.setdefault(_plain(name), len(index)) for name in _pairwise(sources, targets)), np.int64
        )
        if len(rows) % 2:
            raise InputError(f"{where}: there are not as many sources as targets")
        row, column = rows[0::2], rows[1::2]
    else:
        try:
            row = np.fromiter((index[_plain(name)] for name in sources), np.int64)
            column = np.fromiter((index[_plain(name)] for name in targets), np.int64)
        except KeyError as error:
            raise InputError(f"{where}: an edge names node {error.args[0]!r}, which is not among the nodes") from None
        if len(row) != len(column):
            raise InputError(f"{where}: there are {len(row)} sources and {len(column)} targets")
    names = list(index) if nodes is None else nodes
    return graph_from_indices(row, column, weights, nodes=names, directed=directed, self_loops=self_loops, where=where)


def graph_from_indices(
    row: np.ndarray,
    column: np.ndarray,
    weights: Any,
    *,
    nodes: Sequence[Hashable],
    directed: bool = False,
    self_loops: Literal["drop", "keep"] = "drop",
    where: str = "edges",
    labels: Any = None,
    features: Any = None,
) -> Graph:
    """The same from row numbers `(m,)` into `nodes`."""
    n = len(nodes)
    if n == 0:
        raise InputError(f"{where}: there is no node")
    if self_loops not in ("drop", "keep"):
        raise InputError(f"self_loops is 'drop' or 'keep', not {self_loops!r}")
    row, column = np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64)
    if len(row) and (min(row.min(), column.min()) < 0 or max(row.max(), column.max()) >= n):
        raise InputError(f"{where}: an edge names a node outside 0..{n - 1}")
    values = _weights(weights, len(row), where)
    notes = []
    loops = row == column
    if loops.any() and self_loops == "drop":
        notes.append(f"{int(loops.sum())} self loops were left out")
    used = (values > 0) & ~(loops if self_loops == "drop" else np.zeros_like(loops))
    if (values == 0).any():
        notes.append(f"{int((values == 0).sum())} edges of weight 0 were left out")
    row, column, values = row[used], column[used], values[used]
    matrix = sparse.coo_array((values, (row, column)), shape=(n, n)).tocsr()
    if not directed:
        matrix = matrix.maximum(matrix.T)
    matrix = sparse.csr_array(matrix, dtype=np.float32)
    if weights is None:
        matrix.data[:] = 1.0
    graph = Graph(matrix, nodes, directed, labels, features)
    repeated = len(row) - graph.edge_count
    if repeated > 0:
        kept = "counted once" if weights is None else "merged: added within a direction, the larger of two directions"
        notes.append(f"{repeated} repeated edges were {kept}")
    return Graph(matrix, nodes, directed, labels, features, tuple(notes))


def _weights(weights: Any, m: int, where: str) -> np.ndarray:
    if weights is None:
        return np.ones(m)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (m,):
        raise ShapeError(f"{where}: there are {len(values)} weights for {m} edges")
    bad = np.flatnonzero(~(values >= 0) | np.isinf(values))
    if len(bad):
        raise InputError(f"{where}, edge {bad[0] + 1}: weight {values[bad[0]]:g} is not a finite number of at least 0")
    return values


def _pairwise(sources: Iterable[Hashable], targets: Iterable[Hashable]) -> Iterable[Hashable]:
    missing = object()
    targets = iter(targets)
    for source in sources:
        yield source
        target = next(targets, missing)
        if target is missing:
            return
        yield target
    if next(targets, missing) is not missing:
        yield None


def _plain(name: Any) -> Hashable:
    """numpy scalars become Python's, so that a name compares and hashes as the user's own."""
    return name.item() if isinstance(name, np.generic) else name

"""Node vectors as a Parquet file: column `node` and column `vector`, a fixed-size list of float32."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isometry.errors import InputError, ShapeError
from isometry.evaluation.atomic import atomic_file


def write_embeddings(
    path: str | Path, nodes: Sequence[Hashable], vectors: np.ndarray, made_by: Mapping[str, Any] | None = None
) -> None:
    """Write n names and vectors `(n, d)`, whole or not at all.

    Names that are all whole numbers become int64, all others text. `made_by` is kept as JSON in the schema's metadata
    under 'isometry.made_by'.
    """
    if len(nodes) != len(vectors) or vectors.ndim != 2:
        raise ShapeError(f"there are {len(nodes)} names for vectors of shape {vectors.shape}")
    whole = all(isinstance(node, (int, np.integer)) and not isinstance(node, bool) for node in nodes)
    try:
        names = pa.array([int(node) for node in nodes], pa.int64()) if whole else pa.array(map(str, nodes), pa.string())  # type: ignore[call-overload]
    except (OverflowError, pa.ArrowInvalid):
        names = pa.array(map(str, nodes), pa.string())
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    metadata = {"isometry.made_by": json.dumps(dict(made_by or {}), default=str)}
    schema = pa.schema([("node", names.type), ("vector", column.type)], metadata=metadata)
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_arrays([names, column], schema=schema), temporary)


def read_embeddings(path: str | Path) -> tuple[list[Hashable], np.ndarray]:
    """Names and vectors float32 `(n, d)` of a file that `write_embeddings` wrote."""
    try:
        table = pq.read_table(path)
        column = table.column("vector").combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
        return table.column("node").to_pylist(), np.ascontiguousarray(vectors, dtype=np.float32)
    except (pa.ArrowException, KeyError, AttributeError, OSError) as error:
        raise InputError(f"{path} is not a file of node vectors: {error}") from error

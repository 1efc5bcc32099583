"""Checks that every index makes on what it is given."""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError, ShapeError


def check_queries(queries: np.ndarray, dimension: int, k: int) -> np.ndarray:
    """Queries (q, d) as float32, C-contiguous.

    Raises: ShapeError for another shape or dimension, NaN or infinity; InputError for k < 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k is {k!r}; ask for at least 1 result.")
    queries = np.asarray(queries)
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise ShapeError(
            f"queries have shape {queries.shape}; the index holds vectors of dimension {dimension}: (q, {dimension})."
        )
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise ShapeError(f"query {row} holds NaN or infinity; encode it again.")
    return queries


def check_allowed(allowed: np.ndarray | None, n: int) -> np.ndarray | None:
    """A boolean mask (n,), or None where every row may come back. Raises: ShapeError."""
    if allowed is None:
        return None
    allowed = np.asarray(allowed)
    if allowed.shape != (n,) or allowed.dtype != np.bool_:
        raise ShapeError(f"allowed is {allowed.dtype} of shape {allowed.shape}; give a boolean mask of shape ({n},).")
    return np.ascontiguousarray(allowed)

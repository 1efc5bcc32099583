"""What a collection does differently where its records hold several vectors each (late interaction)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.compression.fixed_dimensional import check_tokens
from isometry.errors import ShapeError
from isometry.search import encoded
from isometry.search.sets_view import SetsView
from isometry.types import VectorSets

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot
    from isometry.search.store import Store

# Up to so many vectors without encodings are looked at one by one: some 20 ms for a query of 16 vectors of 384.
PLAIN_VECTORS = 200_000
MOST_VECTORS = 65_536


def fitted_sets(given: Any, dimension: int, metric: str, path: Path) -> VectorSets:
    """Checked sets: float32, at least one vector an item, each at length one where the metric is the cosine.

    Takes `VectorSets` or another pair (values, offsets), or a list with an array `(t_i, d)` for each item.
    Raises: ShapeError.
    """
    if isinstance(given, list) or (isinstance(given, np.ndarray) and given.ndim == 3):
        given = _listed(list(given), dimension, path)
    if not isinstance(given, tuple) or len(given) != 2:
        raise ShapeError(f"{path} holds several vectors a record; give (values, offsets), or a list of arrays (t, d)")
    values, offsets = check_tokens(np.asarray(given[0]), np.asarray(given[1]), dimension)
    sizes = np.diff(offsets)
    if (sizes == 0).any():
        raise ShapeError(
            f"item {int(np.flatnonzero(sizes == 0)[0]) + 1} has no vector; give at least one, or leave it out"
        )
    if (sizes > MOST_VECTORS).any():
        item = int(np.flatnonzero(sizes > MOST_VECTORS)[0])
        raise ShapeError(
            f"item {item + 1} has {sizes[item]:,} vectors and at most {MOST_VECTORS:,} are taken; split it"
        )
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("td,td->t", values, values, dtype=np.float64))
        if (lengths == 0).any():
            item = int(np.searchsorted(offsets, np.flatnonzero(lengths == 0)[0], side="right"))
            raise ShapeError(f"item {item} has a vector that is zero and has no direction; leave it out")
        if (np.abs(lengths - 1) > 1e-6).any():
            values = (values / lengths[:, None]).astype(np.float32)
    return VectorSets(values, offsets)


def _listed(items: Sequence[Any], dimension: int, path: Path) -> VectorSets:
    arrays = []
    for number, item in enumerate(items, 1):
        try:
            array = np.asarray(item, np.float32)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"the vectors of item {number} must be numbers in the shape (t, d): {error}") from error
        if array.ndim != 2 or array.shape[1] != dimension:
            raise ShapeError(f"item {number} has vectors of shape {array.shape} and {path} takes (t, {dimension})")
        arrays.append(VectorSets(array, np.array([0, len(array)])))
    return VectorSets.joined(arrays, dimension)


def each(sets: VectorSets) -> list[np.ndarray]:
    """An array `(t_i, d)` for each item."""
    return [sets.values[start:stop] for start, stop in zip(sets.offsets[:-1], sets.offsets[1:], strict=True)]


def wants_encodings(snapshot: Snapshot) -> bool:
    """Whether more vectors have no encoding than are to be looked at one by one, or a file of encodings is damaged."""
    view = snapshot.view
    return isinstance(view, SetsView) and (view.plain_vectors > PLAIN_VECTORS or view.problem is not None)


def tend_encodings(store: Store, snapshot: Snapshot) -> None:
    """Encode the segments that have no encodings yet, and commit their files."""
    view = snapshot.view
    assert isinstance(view, SetsView)
    note = encoded.encode_segments(
        store.path,
        snapshot.meta["details"].get("encodings"),
        view.segments,
        parameters=encoded.ENCODING,
        shortlist=encoded.SHORTLIST,
    )
    store.set_detail("encodings", note)
    encoded.remove_unnamed(store.path, note)

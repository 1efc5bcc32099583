"""Filtered search judged: real filters of three kinds, drawn, with or against the query, and recall by selectivity.

Paper 25 (arXiv 2507.21989): exact match (EM), range (R) and exact match in a set (EMIS); values come from the records, so
that selectivity follows their natural skew. Filters against the query are this project's addition: paper 25 draws its
values independently of the query, and what hurts graphs most are matches that lie far away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isometry.errors import InputError

Kind = Literal["EM", "R", "EMIS"]
Relation = Literal["drawn", "with", "against"]
EDGES = (0.0, 0.0003, 0.001, 0.01, 0.05, 0.2, 1.0)
_SHARES = (0.5, 0.3, 0.1, 0.05, 0.01, 0.003, 0.001, 0.0003, 0.0001)


@dataclass(frozen=True)
class DrawnFilter:
    """A filter for one query.

    Attributes:
        kind: of the test.
        relation: of its value to the query.
        name: of the attribute.
        value: what it has to be or hold;
            (low, high), both included, for a range.
        mask: bool `(n,)`, what passes.
    """

    kind: Kind
    relation: Relation
    name: str
    value: Any
    mask: np.ndarray

    @property
    def where(self) -> str:
        """As `Collection.search` takes it."""
        if self.kind == "R":
            low, high = (_written(one) for one in self.value)
            return f"{self.name} BETWEEN {low} AND {high}"
        return (
            f"{self.name} = {_written(self.value)}" if self.kind == "EM" else f"{_written(self.value)} IN {self.name}"
        )

    @property
    def selectivity(self) -> float:
        return float(np.count_nonzero(self.mask)) / len(self.mask)


class FilterDrawer:
    """Draws filters over the attributes of n records.

    Args:
        exact: name -> one value for each record.
        ordered: name -> a number for each.
        sets: name -> a list of values for each.
        vectors: float32 `(n, d)`, by which values lie near to a query or far from it.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        exact: Mapping[str, Sequence[Any]],
        ordered: Mapping[str, np.ndarray],
        sets: Mapping[str, Sequence[Sequence[Any]]],
    ) -> None:
        self._n = len(vectors)
        self._ordered = {name: np.asarray(values) for name, values in ordered.items()}
        self._order = {name: np.argsort(values, kind="stable") for name, values in self._ordered.items()}
        self._values: dict[tuple[Kind, str], list[list[Any]]] = {}
        for name, values in exact.items():
            self._values["EM", name] = [[] if value is None else [value] for value in values]
        for name, lists in sets.items():
            self._values["EMIS", name] = [sorted(set(some)) for some in lists]
        self._postings = {key: _grouped(lists) for key, lists in self._values.items()}
        self._vectors = vectors
        self._means: dict[tuple[Kind, str], tuple[list[Any], np.ndarray, np.ndarray]] = {}

    def drawn(self, kind: Kind, name: str, rng: np.random.Generator) -> DrawnFilter:
        """A value of a random record; for a range a random share of the records around a random place."""
        if kind == "R":
            share = _SHARES[int(rng.integers(len(_SHARES)))]
            width = max(1, round(share * self._n))
            first = int(rng.integers(0, self._n - width + 1))
            values, order = self._ordered[name], self._order[name]
            low, high = values[order[first]], values[order[first + width - 1]]
            mask = (values >= low) & (values <= high)
            return DrawnFilter(kind, "drawn", name, (low.item(), high.item()), mask)
        mine: list[Any] = []
        while not mine:
            mine = self._values[kind, name][int(rng.integers(self._n))]
        return self._of(kind, "drawn", name, mine[int(rng.integers(len(mine)))])

    def near(self, kind: Kind, name: str, values: Sequence[Any], rng: np.random.Generator) -> DrawnFilter | None:
        """A filter that the query's own record would pass, of its `values`; None where no record has one of them."""
        mine = [value for value in values if value in self._postings[kind, name]]
        return self._of(kind, "with", name, mine[int(rng.integers(len(mine)))]) if mine else None

    def against(self, kind: Kind, name: str, query: np.ndarray, rng: np.random.Generator) -> DrawnFilter:
        """Of 40 values drawn as records have them, the one whose records' mean lies farthest from the query `(d,)`."""
        names, counts, means = self._centres(kind, name)
        some = np.unique(rng.choice(len(names), size=40, p=counts / counts.sum()))
        return self._of(kind, "against", name, names[int(some[np.argmin(means[some] @ query)])])

    def _of(self, kind: Kind, relation: Relation, name: str, value: Any) -> DrawnFilter:
        mask = np.zeros(self._n, bool)
        mask[self._postings[kind, name][value]] = True
        return DrawnFilter(kind, relation, name, value, mask)

    def _centres(self, kind: Kind, name: str) -> tuple[list[Any], np.ndarray, np.ndarray]:
        if (kind, name) not in self._means:
            postings = {value: rows for value, rows in self._postings[kind, name].items() if len(rows) >= 10}
            if not postings:
                raise InputError(f"no value of '{name}' is in 10 records, so none can be said to lie far away")
            means = np.stack([self._vectors[rows].mean(axis=0) for rows in postings.values()])
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
            counts = np.array([len(rows) for rows in postings.values()], np.float64)
            self._means[kind, name] = list(postings), counts, means
        return self._means[kind, name]


def filtered_best(vectors: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k best by inner product among those that pass, best first, ties by lower row; fewer where fewer pass."""
    rows = np.flatnonzero(mask)
    scores = vectors[rows] @ query
    if len(rows) > k:
        kept = scores >= np.partition(scores, -k)[-k]
        rows, scores = rows[kept], scores[kept]
    return rows[np.lexsort((rows, -scores))][:k]


def recall_of(found: np.ndarray, best: np.ndarray) -> float:
    """Share of the best that were found; 1 where there is nothing to find. Rows below 0 are padding."""
    return 1.0 if not len(best) else len(np.intersect1d(found[found >= 0], best)) / len(best)


def bucket_of(selectivity: float) -> int:
    """Which of the spans between EDGES holds it: 0 for the smallest selectivities; an edge belongs to the span above."""
    return int(np.clip(np.searchsorted(EDGES, selectivity, side="right") - 1, 0, len(EDGES) - 2))


def bucket_name(bucket: int) -> str:
    """The span in per cent."""
    low, high = 100 * EDGES[bucket], 100 * EDGES[bucket + 1]
    return f"below {high:g} %" if bucket == 0 else f"{low:g} to {high:g} %"


def _grouped(lists: list[list[Any]]) -> dict[Any, np.ndarray]:
    """Value to the rows that have it, ascending."""
    rows: dict[Any, list[int]] = {}
    for row, values in enumerate(lists):
        for value in values:
            rows.setdefault(value, []).append(row)
    return {value: np.array(some, np.int64) for value, some in rows.items()}


def _written(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


__all__ = ["DrawnFilter", "FilterDrawer", "bucket_name", "bucket_of", "filtered_best", "recall_of"]

"""Which way to answer a filtered query: estimates of every strategy's cost, for this query, filter and machine.

Paper 25 finds that no method wins everywhere, and that filters which let only far rows through break graph search. So
the choice is made for each query from what is known before anything is scored:

- how many rows match, from the filter's bitmap;
- how the matches lie to the query: the cells of a k-means partition are ordered by the query's centroid scores, and the
  matches in the nearest ones are counted. Where `near` rows had to be passed for a few times k matches, the k-th match
  is about the k-th of 1 / (local selectivity) rows, its `depth`: the rank it would have without a filter;
- how many cells, and how wide a walk, the measured recall asked for at such a depth when the index was built;
- what the steps cost on this machine, measured on the index itself when it is first searched (`calibration`).

The arithmetic is in `kernels.weigh`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np

STRATEGIES = (
    "exact scan",
    "cells",
    "graph",
    "graph, in filter",
    "graph, over-fetched",
    "acorn",
    "exact scan of matches",
)


@dataclass(frozen=True)
class Costs:
    """Nanoseconds for one row of 384 int8 coordinates (other dimensions in proportion), or as said.

    Attributes:
        scan: rows in their order.
        gather: rows here and there.
        hop: a row that a graph walk scores.
        test: a neighbour that acorn only looks up.
        centroid: a float32 centroid.
        look: a row that is only looked up in the filter.
        weigh: the choice, and the steps around a walk, a query.
        query: every search, whatever it does.
        batch: a row and query within a product of many queries.
    """

    scan: float = 11.0
    gather: float = 20.0
    hop: float = 60.0
    test: float = 2.0
    centroid: float = 20.0
    look: float = 2.0
    weigh: float = 15_000.0
    query: float = 12_000.0
    batch: float = 4.0

    @cached_property
    def array(self) -> np.ndarray:
        """All of them, as `kernels.weigh` takes them."""
        return np.array(astuple(self))


@dataclass(frozen=True)
class Estimate:
    """A strategy with the rows it is expected to score and its expected cost."""

    strategy: str
    rows: int
    microseconds: float

    def to_dict(self) -> dict[str, object]:
        return {"strategy": self.strategy, "rows": self.rows, "estimated_ms": round(self.microseconds / 1000, 4)}


class Tables:
    """What was measured when an index was built: curves `(m, 2)` of lines (x ascending, y), all above zero.

    Args:
        probes: rank without a filter -> cells to read.
        breadths: k -> width of the walk.
        scored: width -> rows scored.
        acorn: share of matches around the query -> times that width; may be empty.
    """

    def __init__(
        self, probes: np.ndarray, breadths: np.ndarray, scored: np.ndarray, acorn: np.ndarray | None = None
    ) -> None:
        held = [probes, breadths, scored, np.empty((0, 2)) if acorn is None else acorn]
        self.curves = np.ascontiguousarray(np.concatenate(held), np.float64)
        self.cuts = np.cumsum([0, *map(len, held)])

    def cells_for(self, depth: float, cells: int) -> int:
        """Cells to read so that rows down to this rank are found."""
        from isometry.search.kernels import weigh

        return int(weigh.cells_for(self.curves, self.cuts, depth, cells))

    def breadth_for(self, k: int) -> int:
        """Width of a walk for the k nearest."""
        from isometry.search.kernels import weigh

        return int(weigh.breadth_for(self.curves, self.cuts, k))

    def acorn_factor(self, local: float) -> float:
        """How much wider than an unfiltered walk acorn's must be; infinite where no width was found to do."""
        from isometry.search.kernels import weigh

        return float(weigh.acorn_factor(self.curves, self.cuts, local))

    def matches_for(self, k: int, local: float) -> int:
        """Matches that a walk in the filter keeps: those among what an unfiltered walk for as deep a rank would keep."""
        from isometry.search.kernels import weigh

        return int(weigh.matches_for(self.curves, self.cuts, k, local))

    def scored_by(self, breadth: float) -> float:
        """Rows that a walk of this width scores."""
        from isometry.search.kernels import weigh

        return float(weigh.along(self.curves, self.cuts, weigh.SCORED, breadth))


@dataclass(frozen=True)
class Situation:
    """One query before it is answered.

    Attributes:
        rows, matches, k, dimension: of the index, the filter, the query.
        cells: of the partition.
        links: neighbours of a row in the graph, 0 without one.
        local: share of matches among the rows around the query.
        probes: cells to read.
        probed: matches in them.
    """

    rows: int
    matches: int
    k: int
    dimension: int
    cells: int
    links: int
    local: float
    probes: int
    probed: int


def estimates(situation: Situation, tables: Tables, costs: Costs) -> list[Estimate]:
    """Every strategy that can answer, cheapest first."""
    from isometry.search.kernels.weigh import estimate

    out = np.empty((len(STRATEGIES), 2))
    estimate(*astuple(situation), tables.curves, tables.cuts, costs.array, out)
    return listed(out)


def listed(out: np.ndarray) -> list[Estimate]:
    """What `kernels.weigh` found, cheapest first."""
    found = [
        Estimate(name, int(rows), nanoseconds / 1000)
        for name, (rows, nanoseconds) in zip(STRATEGIES, out.tolist(), strict=True)
        if nanoseconds < float("inf")
    ]
    return sorted(found, key=lambda one: one.microseconds)

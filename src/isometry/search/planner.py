"""Which way to answer a filtered query: estimates of every strategy's cost, for this query, filter and machine.

Paper 25 finds that no method wins everywhere, and that filters which let only far rows through break graph search. So
the choice is made for each query from what is known before anything is scored:

- how many rows match, from the filter's bitmap;
- how the matches lie to the query: the cells of a k-means partition are ordered by the query's centroid scores, and the
  matches in the nearest ones are counted. Where `near` rows had to be passed for a few times k matches, the k-th match
  is about the k-th of 1 / (local selectivity) rows, its `depth`: the rank it would have without a filter;
- how many cells, and how wide a walk, the measured recall asked for at such a depth when the index was built.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from isometry.search.calibration import Costs

Curve = tuple[tuple[float, ...], tuple[float, ...]]
_SLACK = 1.25  # matches lie unevenly: the k-th may lie deeper than k / local


@dataclass(frozen=True)
class Estimate:
    """A strategy with the rows it is expected to score and its expected cost."""

    strategy: str
    rows: int
    microseconds: float

    def to_dict(self) -> dict[str, object]:
        return {"strategy": self.strategy, "rows": self.rows, "estimated_ms": round(self.microseconds / 1000, 4)}


@dataclass(frozen=True)
class Tables:
    """What was measured when an index was built: curves as (xs ascending, ys), all above zero.

    Attributes:
        probes: rank without a filter -> cells to read. breadths: k -> width of the walk. scored: width -> rows scored.
        acorn: share of matches around the query -> times that width; may be empty.
    """

    probes: Curve
    breadths: Curve
    scored: Curve
    acorn: Curve = ((), ())

    @classmethod
    def of(cls, *arrays: np.ndarray) -> Tables:
        """From arrays `(m, 2)`."""
        return cls(*((tuple(array[:, 0].tolist()), tuple(array[:, 1].tolist())) for array in arrays))

    def cells_for(self, depth: float, cells: int) -> int:
        """Cells to read so that rows down to this rank are found."""
        return min(max(1, ceil(_along(self.probes, depth))), cells)

    def breadth_for(self, k: int) -> int:
        """Width of a walk for the k nearest."""
        return max(k, ceil(_along(self.breadths, k)))

    def acorn_factor(self, local: float) -> float:
        """How much wider than an unfiltered walk acorn's must be; infinite where no width was found to do."""
        xs = self.acorn[0]
        return _along(self.acorn, min(local, xs[-1])) if xs and local >= xs[0] else float("inf")

    def matches_for(self, k: int, local: float) -> int:
        """Matches that a walk in the filter keeps: those among what an unfiltered walk for as deep a rank would keep."""
        return max(k, ceil(self.breadth_for(ceil(_SLACK * k / local)) * local))

    def scored_by(self, breadth: float) -> float:
        """Rows that a walk of this width scores."""
        return _along(self.scored, breadth)


@dataclass(frozen=True)
class Situation:
    """One query before it is answered.

    Attributes:
        rows, matches, k, dimension: of the index, the filter, the query. cells: of the partition. links: neighbours of
        a row in the graph, 0 without one. local: share of matches among the rows around the query. probes: cells to
        read. probed: matches in them.
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
    s, size = situation, situation.dimension / 384
    filtered = s.matches < s.rows
    order = costs.centroid * s.cells * size + costs.weigh / 2  # what an exact scan does not need
    found: list[tuple[str, float, float]] = []
    if 4 * s.matches < 3 * s.rows:
        found.append(("exact scan of matches", s.matches, s.matches * costs.gather * size))
    else:
        found.append(("exact scan", s.rows, s.rows * costs.scan * size))
    looked = s.rows / s.cells * s.probes if filtered else 0
    found.append(("cells", s.probed, order + s.probed * costs.gather * size + looked * costs.look))
    if s.links:
        breadth = tables.breadth_for(s.k)
        local = max(s.local, 1e-9)
        if not filtered:
            scored = tables.scored_by(breadth)
            found.append(("graph", scored, order + scored * costs.hop * size))
        else:
            walked = tables.scored_by(tables.breadth_for(ceil(_SLACK * s.k / local)))
            if walked < s.rows / 2:
                found.append(("graph, in filter", walked, order + walked * costs.hop * size))
            wide = tables.scored_by(tables.breadth_for(ceil(1.5 * s.k / local)))
            if wide < s.rows / 2:
                found.append(("graph, over-fetched", wide, order + wide * costs.hop * size))
            wide = breadth * tables.acorn_factor(local)
            if wide < s.rows / 2:
                scored = min(tables.scored_by(wide), s.matches)
                looked = wide * s.links * (1 + (1 - local) * s.links)
                found.append(("acorn", scored, order + scored * costs.hop * size + looked * costs.test))
    return sorted((Estimate(name, int(rows), nanoseconds / 1000) for name, rows, nanoseconds in found),
                  key=lambda one: one.microseconds)  # fmt: skip


def _along(table: Curve, at: float) -> float:
    """Between the lines of a table on logarithmic scales; in proportion to the first column beyond its end."""
    xs, ys = table
    if at <= xs[0]:
        return ys[0]
    if at >= xs[-1]:
        return ys[-1] * at / xs[-1]
    place = bisect_right(xs, at)
    x0, x1, y0, y1 = xs[place - 1], xs[place], ys[place - 1], ys[place]
    return float(y0 * (y1 / y0) ** (log(at / x0) / log(x1 / x0)))

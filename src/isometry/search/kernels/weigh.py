"""The planner's arithmetic, compiled: how the matches lie to a query, and what each way to answer it would cost.

`isometry.search.planner` says what is weighed and why; here it is done in one call, since in Python it took longer than
many of the answers. Curves are lines (x, y) in `curves` (m, 2) float64, those of curve i being cuts[i] : cuts[i + 1], in
the order of `planner.Tables`; `costs` are the fields of `planner.Costs` in their order. Needs numba.
"""

from __future__ import annotations

from math import ceil, inf, log

import numpy as np
from numba import njit

from isometry.search.kernels.graph import pop, push

PROBES, BREADTHS, SCORED, ACORN = range(4)
SLACK = 1.25  # matches lie unevenly: the k-th may lie deeper than k / local
_SCAN, _GATHER, _HOP, _TEST, _CENTROID, _LOOK, _WEIGH, _QUERY = range(8)
EXACT, CELLS, GRAPH, IN_FILTER, OVER_FETCHED, BY_ACORN, MATCHES = range(7)


@njit(nogil=True, cache=True)
def along(curves: np.ndarray, cuts: np.ndarray, curve: int, at: float) -> float:
    """Between the lines of a curve on logarithmic scales; in proportion to x beyond its end."""
    low, high = cuts[curve], cuts[curve + 1] - 1
    if at <= curves[low, 0]:
        return curves[low, 1]
    if at >= curves[high, 0]:
        return curves[high, 1] * at / curves[high, 0]
    while curves[low + 1, 0] <= at:
        low += 1
    x0, y0, x1, y1 = curves[low, 0], curves[low, 1], curves[low + 1, 0], curves[low + 1, 1]
    return y0 * (y1 / y0) ** (log(at / x0) / log(x1 / x0))


@njit(nogil=True, cache=True)
def cells_for(curves: np.ndarray, cuts: np.ndarray, depth: float, cells: int) -> int:
    """Cells to read so that rows down to this rank are found."""
    return min(max(1, ceil(along(curves, cuts, PROBES, depth))), cells)


@njit(nogil=True, cache=True)
def breadth_for(curves: np.ndarray, cuts: np.ndarray, k: int) -> int:
    """Width of a walk for the k nearest."""
    return max(k, ceil(along(curves, cuts, BREADTHS, k)))


@njit(nogil=True, cache=True)
def matches_for(curves: np.ndarray, cuts: np.ndarray, k: int, local: float) -> int:
    """Matches that a walk in the filter keeps: those among what an unfiltered walk for as deep a rank would keep."""
    return max(k, ceil(breadth_for(curves, cuts, ceil(SLACK * k / local)) * local))


@njit(nogil=True, cache=True)
def acorn_factor(curves: np.ndarray, cuts: np.ndarray, local: float) -> float:
    """How much wider than an unfiltered walk acorn's must be; infinite where no width was found to do."""
    low, high = cuts[ACORN], cuts[ACORN + 1] - 1
    if high < low or local < curves[low, 0]:
        return inf
    return along(curves, cuts, ACORN, min(local, curves[high, 0]))


@njit(nogil=True, cache=True)
def estimate(
    rows: int, matches: int, k: int, dimension: int, cells: int, links: int, local: float, probes: int, probed: int,
    curves: np.ndarray, cuts: np.ndarray, costs: np.ndarray, out: np.ndarray,
) -> int:  # fmt: skip
    """Rows scored and nanoseconds of every way into `out` (7, 2), infinite where it cannot answer; the cheapest."""
    size = dimension / 384
    filtered = matches < rows
    order = costs[_CENTROID] * cells * size + costs[_WEIGH]  # what an exact scan does not need
    out[:] = inf
    if 4 * matches < 3 * rows:
        out[MATCHES, 0], out[MATCHES, 1] = matches, matches * costs[_GATHER] * size
    else:
        out[EXACT, 0], out[EXACT, 1] = rows, rows * costs[_SCAN] * size
    looked = rows / cells * probes if filtered else 0.0
    out[CELLS, 0], out[CELLS, 1] = probed, order + probed * costs[_GATHER] * size + looked * costs[_LOOK]
    if links > 0:
        breadth = breadth_for(curves, cuts, k)
        local = max(local, 1e-9)
        if not filtered:
            scored = along(curves, cuts, SCORED, breadth)
            out[GRAPH, 0], out[GRAPH, 1] = scored, order + scored * costs[_HOP] * size
        else:
            walked = along(curves, cuts, SCORED, breadth_for(curves, cuts, ceil(SLACK * k / local)))
            if walked < rows / 2:
                out[IN_FILTER, 0], out[IN_FILTER, 1] = walked, order + walked * costs[_HOP] * size
            wide = along(curves, cuts, SCORED, breadth_for(curves, cuts, ceil(1.5 * k / local)))
            if wide < rows / 2:
                out[OVER_FETCHED, 0], out[OVER_FETCHED, 1] = wide, order + wide * costs[_HOP] * size
            broad = breadth * acorn_factor(curves, cuts, local)
            if broad < rows / 2:
                scored = min(along(curves, cuts, SCORED, broad), matches)
                tested = broad * links * (1 + (1 - local) * links)
                out[BY_ACORN, 0] = scored
                out[BY_ACORN, 1] = order + scored * costs[_HOP] * size + tested * costs[_TEST]
    best = 0
    for way in range(len(out)):
        out[way, 1] += costs[_QUERY]
        if out[way, 1] < out[best, 1]:
            best = way
    return best


@njit(nogil=True, cache=True)
def met_near(
    near: np.ndarray, order: np.ndarray, starts: np.ndarray, mask: np.ndarray, wanted: int, nearest: np.ndarray,
    entries: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """How the matches lie to a query: cells are gone through from the nearest until they held `wanted` of them.

    near: a score for each cell. order, starts: the rows of each. mask (n,): what matches. nearest (f,): filled with the
    nearest cells. entries (e,): filled with up to four matches of each of the first cells that hold any. Returns cells,
    rows and matches passed, and entries found.
    """
    cells = len(near)
    scores, names = np.empty(cells, np.float32), np.empty(cells, np.int32)
    for cell in range(cells):
        push(scores, names, cell, near[cell], cell)
    place, last, passed, met, found = 0, 0, 0, 0, 0
    while place < cells and (met < wanted or place < len(nearest)):
        cell = names[0]
        pop(scores, names, cells - place)
        if place < len(nearest):
            nearest[place] = cell
        place += 1
        if met < wanted:
            taken = 0
            for i in range(starts[cell], starts[cell + 1]):
                if mask[order[i]]:
                    met += 1
                    if taken < 4 and found < len(entries):
                        entries[found] = order[i]
                        found += 1
                        taken += 1
            passed += starts[cell + 1] - starts[cell]
            last = place
    return last, passed, met, found


@njit(nogil=True, cache=True)
def weigh(
    near: np.ndarray, order: np.ndarray, starts: np.ndarray, mask: np.ndarray, matches: int, k: int, dimension: int,
    links: int, curves: np.ndarray, cuts: np.ndarray, costs: np.ndarray, nearest: np.ndarray, entries: np.ndarray,
    out: np.ndarray,
) -> tuple[int, float, int, int]:  # fmt: skip
    """`met_near` until 3k matches (of a filter that all rows pass: for `nearest` alone), then `estimate`.

    Returns the cheapest way, the share of matches around the query, cells to read, and entries found.
    """
    rows, cells = len(order), len(near)
    if matches < rows:
        last, passed, met, found = met_near(near, order, starts, mask, 3 * k, nearest, entries)
        local = met / max(1, passed)
        probes = max(last, cells_for(curves, cuts, k / max(local, 1e-9), cells))
        probed = min(matches, met + int((probes - last) * rows / cells * local))
    else:
        found = met_near(near, order, starts, mask, 0, nearest, entries)[3]
        local, probes = 1.0, cells_for(curves, cuts, k, cells)
        probed = int(rows / cells * probes * 1.3)
    best = estimate(rows, matches, k, dimension, cells, links, local, probes, probed, curves, cuts, costs, out)
    return best, local, probes, found

"""Successive halving: all candidates on few records, the better ones on more, the best on all.

Better has several sides here, so candidates are ranked by fronts: those that no other beats on every side, then those
that only they beat, and so on (non-dominated sorting), the crowded ones last within a front. Those that meet the budget
come first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.search.tuning.budget import Budget
from isometry.search.tuning.measuring import Measured

LEAST = 12


def rungs(rows: int, queries: int) -> list[tuple[int, int]]:
    """(records, queries) of each step: an eighth of the last size and so on, down to 2,000; all queries at the last."""
    sizes = sorted({min(rows, max(2000, rows // share)) for share in (64, 16, 4, 1)})
    return [(size, max(min(queries, 50), queries >> (len(sizes) - 1 - step))) for step, size in enumerate(sizes)]


def survivors(measured: Sequence[Measured], budget: Budget) -> list[Measured]:
    """The better half, at least LEAST, in the order of `ranked`."""
    return ranked(measured, budget)[: max(LEAST, -(-len(measured) // 2))]


def ranked(measured: Sequence[Measured], budget: Budget) -> list[Measured]:
    """Best first."""
    front = fronts(_costs(measured))
    crowd = _crowding(_costs(measured), front)
    # a sample is not the whole: what misses a limit by less than a tenth may still meet it
    far = [sum(gap for gap in budget.misses(one).values() if gap > 0.1) for one in measured]
    order = sorted(range(len(measured)), key=lambda i: (far[i], front[i], -crowd[i], measured[i].candidate.key))
    return [measured[i] for i in order]


def front_of(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other beats on every side, the highest recall first."""
    if not measured:
        return []
    level = fronts(_costs(measured))
    kept = [one for one, number in zip(measured, level, strict=True) if number == 0]
    return sorted(kept, key=lambda one: (-one.recall, one.p95_ms, one.candidate.key))


def fronts(costs: np.ndarray) -> np.ndarray:
    """Number of the front of each row of costs `(n, m)`, lower is better: 0 for those that no other dominates."""
    n = len(costs)
    level = np.full(n, -1)
    not_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    dominates = not_worse & (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    number = 0
    while (level < 0).any():
        left = level < 0
        level[left & ~(dominates & left[:, None]).any(axis=0)] = number
        number += 1
    return level


def _costs(measured: Sequence[Measured]) -> np.ndarray:
    sides = [(-one.recall, one.p95_ms, one.bytes_per_vector, one.disk_mb) for one in measured]
    return np.array(sides, np.float64).reshape(-1, 4)


def _crowding(costs: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Room around each row within its front (Deb et al., 2002): the ends of every side have infinitely much."""
    room = np.zeros(len(costs))
    for number in np.unique(front):
        here = np.flatnonzero(front == number)
        for side in range(costs.shape[1]):
            order = here[np.argsort(costs[here, side], kind="stable")]
            values = costs[order, side]
            spread = values[-1] - values[0]
            room[order[[0, -1]]] = np.inf
            if spread > 0 and len(order) > 2:
                room[order[1:-1]] += (values[2:] - values[:-2]) / spread
    return room

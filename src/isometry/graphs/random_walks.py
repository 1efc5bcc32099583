"""Random walks over a graph, first order (DeepWalk) or biased by the step before (node2vec).

Sources: Perozzi, Al-Rfou, Skiena, "DeepWalk", KDD 2014; Grover, Leskovec, "node2vec", KDD 2016. The biased step is
drawn by rejection (Yang et al., "KnightKing", SOSP 2019): no table per edge pair, the same distribution.
Every walk has its own stream of random numbers, so the walks do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError
from isometry.graphs.similarity import checked_adjacency

try:
    import numba
except ImportError as error:
    raise MissingExtraError("random walks", "graph") from error


def sample_walks(
    adjacency: Any, walks_per_node: int = 10, walk_length: int = 40, p: float = 1.0, q: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Walks int32 `(walks_per_node * n, walk_length)`; round by round, each round in a new order of the nodes.

    Args:
        adjacency: `(n, n)`, weights >= 0; a step goes along an edge with probability in proportion to its weight.
        p: return parameter: going back to the node before has weight 1/p.
        q: in-out parameter: going to a node that is no neighbour of the node before has weight 1/q.
    A walk that reaches a node without an edge ends: the rest of its row is -1.
    """
    if walks_per_node < 1 or walk_length < 1:
        raise InputError(f"walks need numbers above 0, not {walks_per_node} walks of length {walk_length}")
    if not (0 < p < np.inf and 0 < q < np.inf):
        raise InputError(f"p and q are finite numbers above 0, not {p} and {q}")
    matrix = checked_adjacency(adjacency)
    matrix.sort_indices()
    # the running sum of each row: a uniform number under its last entry picks an edge by bisection
    cumulative = np.cumsum(matrix.data, dtype=np.float64)
    generator = np.random.default_rng(seed)
    n = matrix.shape[0]
    starts = np.concatenate([generator.permutation(n) for _ in range(walks_per_node)]).astype(np.int32)
    seeds = generator.integers(0, 2**63, len(starts), dtype=np.uint64)
    walks = np.full((len(starts), walk_length), -1, dtype=np.int32)
    indptr = matrix.indptr.astype(np.int64)
    _walk(indptr, matrix.indices, cumulative, starts, seeds, float(p), float(q), walks)
    return walks


@numba.njit(inline="always")
def next_random(state):  # type: ignore[no-untyped-def]
    """Next state of a SplitMix64 stream and 64 random bits."""
    state += np.uint64(0x9E3779B97F4A7C15)
    bits = state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, bits ^ (bits >> np.uint64(31))


@numba.njit(inline="always")
def unit_random(bits):  # type: ignore[no-untyped-def]
    return float(bits >> np.uint64(11)) * 2.0**-53


@numba.njit
def _draw(indptr, indices, cumulative, node, share):  # type: ignore[no-untyped-def]
    """Neighbour of `node` at `share` in [0, 1) of its weights' running sum."""
    first, last = indptr[node], indptr[node + 1]
    below = cumulative[first - 1] if first else 0.0
    wanted = below + share * (cumulative[last - 1] - below)
    low, high = first, last - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] <= wanted:
            low = middle + 1
        else:
            high = middle
    return indices[low]


@numba.njit
def _linked(indptr, indices, node, other):  # type: ignore[no-untyped-def]
    low, high = indptr[node], indptr[node + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < other:
            low = middle + 1
        else:
            high = middle
    return low < indptr[node + 1] and indices[low] == other


@numba.njit(parallel=True, cache=True)
def _walk(indptr, indices, cumulative, starts, seeds, p, q, walks):  # type: ignore[no-untyped-def]
    ceiling = max(1.0 / p, 1.0, 1.0 / q)
    for w in numba.prange(len(starts)):
        state, node, before = seeds[w], starts[w], np.int32(-1)
        for step in range(walks.shape[1]):
            walks[w, step] = node
            if indptr[node] == indptr[node + 1]:
                break
            while True:
                state, bits = next_random(state)
                candidate = _draw(indptr, indices, cumulative, node, unit_random(bits))
                if before < 0 or (p == 1.0 and q == 1.0):
                    break
                if candidate == before:
                    weight = 1.0 / p
                elif _linked(indptr, indices, before, candidate):
                    weight = 1.0
                else:
                    weight = 1.0 / q
                state, bits = next_random(state)
                if unit_random(bits) * ceiling < weight:
                    break
            before = node
            node = candidate

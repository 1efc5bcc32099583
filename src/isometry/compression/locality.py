"""Batches whose members are near each other, so that in-batch negatives are what a re-ranker meets (paper 19)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError


@dataclass(frozen=True)
class PairBatch:
    """Row numbers of one batch: queries (b,), their positives (b,), further negatives (b * negatives,)."""

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def locality_batches(
    candidates: np.ndarray,
    positives: Sequence[int] | np.ndarray,
    documents: int,
    *,
    batch_size: int = 128,
    negatives: int = 1,
    strategy: str = "walk",
    near: tuple[int, int] = (0, 200),
    link: tuple[int, int] = (200, 400),
    seed: int = 0,
) -> Iterator[PairBatch]:
    """One epoch of batches; every query appears once.

    A batch grows along a graph: a query's negatives are drawn from its candidates of ranks `near`; each drawn document
    leads to the queries that have it at ranks `link`, which wait their turn. "walk" takes the query that came last (a
    depth-first walk), "snowball" the one that came first; an empty line takes a random unused query. "random" ignores
    the graph and draws negatives anywhere. No document is a negative twice in a batch.

    Args:
        candidates: (queries, c) documents found for each query by the served coarse index, best first; -1 for none.
        positives: (queries,) the right document of each query, never drawn as its negative.
        documents: how many documents there are.
    Raises: InputError for another strategy or fewer than batch_size * (negatives + 1) documents.
    """
    if strategy not in ("walk", "snowball", "random"):
        raise InputError(f"strategy is {strategy!r}; choose 'walk', 'snowball' or 'random'.")
    if documents < batch_size * (negatives + 1):
        raise InputError(f"{documents} documents cannot fill batches of {batch_size} with {negatives} negatives each.")
    draw = np.random.default_rng(seed)
    positives = np.asarray(positives)
    asking = _queries_of(candidates[:, link[0] : link[1]], documents) if strategy != "random" else None
    waiting_order = draw.permutation(len(candidates))
    unused = np.ones(len(candidates), bool)
    at = 0
    while at < len(candidates) or unused.any():
        chosen: list[int] = []
        taken: set[int] = set()
        further: list[int] = []
        line: deque[int] = deque()
        while len(chosen) < batch_size and unused.any():
            if line:
                query = line.pop() if strategy == "walk" else line.popleft()
                if not unused[query]:
                    continue
            else:
                while not unused[waiting_order[at]]:
                    at += 1
                query = int(waiting_order[at])
            unused[query] = False
            chosen.append(query)
            taken.add(int(positives[query]))
            own = candidates[query, near[0] : near[1]] if strategy != "random" else np.empty(0, np.int64)
            drawn = [int(d) for d in draw.permutation(own[own >= 0]) if int(d) not in taken][:negatives]
            taken.update(drawn)
            while len(drawn) < negatives:
                other = int(draw.integers(documents))
                if other not in taken:
                    drawn.append(other)
                    taken.add(other)
            further += drawn
            if asking is not None:
                for document in drawn:
                    line.extend(q for q in asking[document] if unused[q])
        if not chosen:
            break
        queries = np.array(chosen)
        yield PairBatch(queries, positives[queries], np.array(further, np.int64))


def _queries_of(candidates: np.ndarray, documents: int) -> list[list[int]]:
    """For each document the queries that have it among their candidates (q, c)."""
    found: list[list[int]] = [[] for _ in range(documents)]
    for query, row in enumerate(candidates):
        for document in row:
            if document >= 0:
                found[document].append(query)
    return found

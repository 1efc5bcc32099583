"""ACORN-style walk: only matching rows are scored, and a hop goes through neighbours that do not match. Needs numba.

Paper: Patel et al., "ACORN: Performant and Predicate-Agnostic Search Over Vector Embeddings and Structured Data",
SIGMOD 2024, the variant ACORN-1: an ordinary graph, expanded at query time to the neighbours of neighbours. Departs from
it: the walk starts at matching rows that are given, not at the top of the hierarchy; a neighbour that matches is taken as
it is and only one that does not is looked through; a hop takes at most `width` rows, as there. Reconstructed from the
description in note 25: medium confidence.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.search.kernels.bits import heap_replace
from isometry.search.kernels.graph import pop, push, row_score, seen
from isometry.search.kernels.prefetch import address, prefetch_row


@njit(nogil=True, cache=True)
def acorn_walk(
    neighbours: np.ndarray, codes: np.ndarray, scale: np.ndarray, query: np.ndarray, entries: np.ndarray,
    allowed: np.ndarray, most: int, rows: np.ndarray, scores: np.ndarray,
) -> int:  # fmt: skip
    """As `kernels.graph.walk`, over the rows where `allowed`; `entries` must be such rows."""
    visited = np.zeros((len(codes) >> 6) + 1, np.uint64)
    rows[:] = -1
    scores[:] = -np.inf
    open_scores, open_rows = np.empty(1024, np.float32), np.empty(1024, np.int32)
    size, scored = 0, 0
    for entry in entries:
        if not seen(visited, entry):
            score = row_score(codes, scale, query, entry)
            scored += 1
            push(open_scores, open_rows, size, score, entry)
            size += 1
            if score > scores[0]:
                heap_replace(scores, rows, score, entry)
    width = neighbours.shape[1]
    fresh = np.empty(width, np.int32)
    base, scales, links = address(codes), address(scale), address(neighbours)
    while size > 0:
        if open_scores[0] < scores[0] or scored >= most:
            break
        row = open_rows[0]
        pop(open_scores, open_rows, size)
        size -= 1
        count = 0
        for j in range(width):
            near = neighbours[row, j]
            if near >= 0 and not allowed[near]:
                prefetch_row(links, near, 4 * width)
        for j in range(width):
            near = neighbours[row, j]
            if near < 0 or count == width:
                break
            if allowed[near]:
                if not seen(visited, near):
                    fresh[count] = near
                    count += 1
                continue
            if seen(visited, near):  # it was looked through already
                continue
            for i in range(width):
                far = neighbours[near, i]
                if far < 0 or count == width:
                    break
                if allowed[far] and not seen(visited, far):
                    fresh[count] = far
                    count += 1
        for j in range(count):
            prefetch_row(base, fresh[j], codes.shape[1])
            prefetch_row(scales, fresh[j], 4)
        scored += count
        if size + count > len(open_scores):
            open_scores = np.concatenate((open_scores, np.empty_like(open_scores)))
            open_rows = np.concatenate((open_rows, np.empty_like(open_rows)))
        for j in range(count):
            near = fresh[j]
            score = row_score(codes, scale, query, near)
            if score > scores[0]:
                push(open_scores, open_rows, size, score, near)
                size += 1
                heap_replace(scores, rows, score, near)
    return scored

"""Reciprocal rank fusion of several rankings (Cormack, Clarke and Buettcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RRF_CONSTANT = 60


def reciprocal_rank_fusion(
    rankings: Mapping[str, Sequence[int]], constant: int = RRF_CONSTANT
) -> list[tuple[int, float]]:
    """(row, score) best first, where score = sum over rankings of 1 / (constant + rank), ranks from 1.

    Equal scores are ordered by row.
    """
    scores: dict[int, float] = {}
    for ranking in rankings.values():
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1.0 / (constant + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))

"""Bitext mining: is a sentence's translation its nearest neighbour?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from isometry.evaluation.tasks._base import (
    Result,
    SubsetResult,
    check_lengths,
    document_vectors,
    evaluate_subsets,
    unit,
)
from isometry.types import Encoder


@dataclass(frozen=True)
class ParallelTexts:
    """n sentences and their n translations, row by row."""

    first: tuple[str, ...]
    second: tuple[str, ...]

    def __post_init__(self) -> None:
        check_lengths(first=self.first, second=self.second)


@dataclass(frozen=True)
class BitextMining:
    """F1 of the nearest neighbour by cosine among all translations, from the first column to the second (mteb: `f1`).

    Every translation is one class; a class's F1 falls when other sentences claim it too. An item is a sentence; its
    value is the F1 of its class. Equal scores go to the earlier translation.
    """

    name: str
    data: Mapping[str, ParallelTexts]
    kind = "BitextMining"
    metric = "f1"

    def texts(self) -> Iterator[str]:
        for pairs in self.data.values():
            yield from pairs.first
            yield from pairs.second

    def evaluate(self, encoder: Encoder) -> Result:
        def judge(pairs: ParallelTexts) -> SubsetResult:
            first, second = (unit(document_vectors(encoder, texts)) for texts in (pairs.first, pairs.second))
            nearest = np.concatenate(
                [(first[start : start + 1024] @ second.T).argmax(axis=1) for start in range(0, len(first), 1024)]
            )
            items = f1_items(nearest)
            hits = nearest == np.arange(len(nearest))
            return SubsetResult(float(items.mean()), items, {"f1": float(items.mean()), "accuracy": float(hits.mean())})

        return evaluate_subsets(self, judge)


def f1_items(nearest: np.ndarray) -> np.ndarray:
    """F1 of each class `(n,)` where row i's true class is i and its predicted one `nearest[i]`."""
    claimed = np.bincount(nearest, minlength=len(nearest))[: len(nearest)]
    return 2.0 * (nearest == np.arange(len(nearest))) / (1 + claimed)

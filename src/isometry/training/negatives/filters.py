"""Leaving out examples and negatives that a teacher does not believe.

Papers 06 (ranking-consistency filter over positives) and 55 (a guide's judgement over negatives).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.training.margins import MarginRule
from isometry.types import Index


def consistent_rows(
    queries: np.ndarray,
    documents: np.ndarray,
    positives: Sequence[Sequence[int]],
    top: int = 50,
    index: Index | None = None,
) -> np.ndarray:
    """Which examples have a positive among the `top` documents nearest to their query: `(q,)` bool.

    Paper 06: an example whose positive the teacher cannot find is mislabelled or useless. The best of several
    positives counts, and a tie with the last rank keeps the example. With an index, rank is by what it returns.

    Args:
        queries `(q, d)`, documents `(n, d)`: the teacher's vectors.
        positives: rows of the documents per query.
    """
    queries, documents = np.asarray(queries, dtype=np.float32), np.asarray(documents, dtype=np.float32)
    if len(positives) != len(queries) or queries.ndim != 2 or documents.ndim != 2:
        raise ShapeError(f"{queries.shape} queries, {documents.shape} documents, {len(positives)} lists of positives")
    if top < 1:
        raise InputError(f"top is at least 1, not {top}")
    kept = np.zeros(len(queries), dtype=bool)
    for start in range(0, len(queries), 256):
        block = slice(start, min(start + 256, len(queries)))
        if index is None:
            scores = queries[block] @ documents.T
            last = -np.partition(-scores, min(top, len(documents)) - 1, axis=1)[:, min(top, len(documents)) - 1]
        else:
            last = index.search(queries[block], min(top, len(documents)))[0][:, -1]
        for offset, row in enumerate(range(block.start, block.stop)):
            best = max((float(queries[row] @ documents[p]) for p in positives[row]), default=-np.inf)
            kept[row] = best >= last[offset] - 1e-6
    return kept


def guided_rows(
    queries: np.ndarray, positives: np.ndarray, negatives: np.ndarray, rule: MarginRule | None = None
) -> np.ndarray:
    """Which negatives a guide lets stand: `(q, m)` bool, true = at most the rule's threshold below the own positive.

    Paper 55, applied beforehand instead of per batch. Vectors are the guide's, of length one.

    Args:
        queries: `(q, d)`.
        positives: `(q, d)`.
        negatives: `(q, m, d)`.
        rule: default no margin.
    """
    rule = rule or MarginRule("absolute", 0.0)
    own = np.einsum("qd,qd->q", queries, positives)
    scores = np.einsum("qd,qmd->qm", queries, negatives)
    return np.asarray(scores <= rule.threshold(own)[:, None])

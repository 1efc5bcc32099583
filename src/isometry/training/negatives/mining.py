"""Hard negatives from nearest-neighbour search, kept a margin away from each query's own positive.

Papers 05 (top k below 95 % of the positive), 06 (a window of ranks, sampled), 42 (margins that adapt to the positive).
sentence-transformers' `mine_hard_negatives` works on texts and a model; this works on vectors and any index of this
project, keeps several positives apart, and reports what was filtered and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.training.margins import MarginRule
from isometry.types import Index


@dataclass(frozen=True)
class NegativesReport:
    """What a miner or filter did, in counts; `lines()` says it in sentences.

    Attributes:
        queries: how many were asked.
        candidates: neighbours looked at, positives left out.
        too_close: candidates above the margin's threshold.
        outside: candidates outside the window of ranks.
        kept: negatives handed out, padding included.
        padded: those drawn at random because too few were left.
        starved: queries that needed padding.
        false_negatives: share of handed-out negatives that an oracle calls relevant, where one was given.
        removed_false: share of the oracle's relevant candidates that the margin removed, where one was given.
    """

    queries: int
    candidates: int
    too_close: int
    outside: int
    kept: int
    padded: int
    starved: int
    false_negatives: float | None = None
    removed_false: float | None = None

    @property
    def kept_fraction(self) -> float:
        """Share of the candidates that pass the margin: a compressed teacher keeps nearly nothing (paper 05)."""
        return 1.0 - self.too_close / self.candidates if self.candidates else 0.0

    def lines(self) -> list[str]:
        found = [
            f"{self.queries} queries, {self.candidates} candidates: {self.too_close} too close to the positive "
            f"({self.kept_fraction:.1%} pass), {self.outside} outside the ranks, {self.kept} negatives handed out"
        ]
        if self.padded:
            found.append(f"{self.padded} of them random, for {self.starved} queries with too few candidates")
        if self.false_negatives is not None:
            found.append(f"{self.false_negatives:.1%} of the negatives are relevant by the oracle")
        return found


@dataclass(frozen=True)
class MinedNegatives:
    """Negatives for q queries: `rows` `(q, m)` int64 into the documents, their `scores` `(q, m)` float32, a report."""

    rows: np.ndarray
    scores: np.ndarray
    report: NegativesReport


def mine_negatives(
    queries: np.ndarray,
    documents: np.ndarray,
    positives: Sequence[Sequence[int]],
    count: int = 7,
    *,
    rule: MarginRule | None = None,
    first_rank: int = 0,
    last_rank: int = 100,
    choose: Literal["hardest", "random"] = "hardest",
    forbidden: Sequence[Sequence[int]] | None = None,
    index: Index | None = None,
    oracle: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
) -> MinedNegatives:
    """For every query the hardest (or random) documents in a window of ranks that pass the margin.

    Args:
        queries: `(q, d)`, documents: `(n, d)`, float32 of length one.
        positives: rows of the documents, per query.
        rule: see `MarginRule`; judged against the best of the query's positives. None keeps every candidate.
        first_rank, last_rank: window of ranks among the non-positives, 0 is the nearest; clamped to the corpus
            (ranks 50 to 100 of a small corpus are random texts: paper 06).
        choose: "hardest" = from the front of the window, "random" = uniformly from it.
        forbidden: further rows never to be handed out (for example documents with the query's own text).
        index: an index of this project built over the documents; None searches exactly.
        oracle: rows that are truly relevant, per query; only for the report.

    Rows are padded with random documents where too few candidates are left; positives and forbidden rows never are.

    Raises:
        ShapeError: shapes that do not fit. InputError: a query without positive, or too few documents.
    """
    queries, documents = np.asarray(queries, dtype=np.float32), np.asarray(documents, dtype=np.float32)
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ShapeError(f"queries (q, d) and documents (n, d) expected; got {queries.shape} and {documents.shape}")
    if len(positives) != len(queries):
        raise ShapeError(f"{len(queries)} queries and {len(positives)} lists of positives; give one for each")
    if not 0 <= first_rank < last_rank:
        raise InputError(f"the window of ranks {first_rank}..{last_rank} is empty")
    rng = np.random.default_rng(seed)
    banned = [set(map(int, rows)) for rows in positives]
    for row, found in enumerate(banned):
        if not found:
            raise InputError(f"query {row} has no positive; leave it out before mining")
    for row, more in enumerate(() if forbidden is None else forbidden):
        banned[row] |= set(map(int, more))
    most = max(map(len, banned), default=0)
    if len(documents) < count + most:
        raise InputError(f"{len(documents)} documents are too few for {count} negatives beside {most} positives")
    depth = min(last_rank + most, len(documents))
    scores, rows = _search(queries, documents, depth, index)
    out_rows = np.empty((len(queries), count), dtype=np.int64)
    out_scores = np.empty((len(queries), count), dtype=np.float32)
    totals = dict.fromkeys(("candidates", "too_close", "outside", "padded", "starved"), 0)
    relevant_seen = relevant_removed = relevant_out = 0
    for q, own in enumerate(banned):
        best = max(float(queries[q] @ documents[p]) for p in positives[q])
        near = [(int(r), float(s)) for r, s in zip(rows[q], scores[q], strict=True) if r >= 0 and int(r) not in own]
        limit = np.inf if rule is None else float(rule.threshold(best))
        window = near[first_rank:last_rank]
        passed = [(r, s) for r, s in window if s <= limit]
        totals["candidates"] += len(window)
        totals["outside"] += len(near) - len(window)
        totals["too_close"] += len(window) - len(passed)
        if choose == "random" and len(passed) > count:
            passed = [passed[i] for i in np.sort(rng.choice(len(passed), count, replace=False))]
        chosen = passed[:count]
        if len(chosen) < count:
            totals["padded"] += count - len(chosen)
            totals["starved"] += 1
            chosen += _padding(queries[q], documents, count - len(chosen), own | {r for r, _ in chosen}, rng)
        out_rows[q] = [r for r, _ in chosen]
        out_scores[q] = [s for _, s in chosen]
        if oracle is not None:
            truth = set(map(int, oracle[q])) - own
            seen = {r for r, _ in window} & truth
            relevant_seen += len(seen)
            relevant_removed += len(seen & {r for r, s in window if s > limit})
            relevant_out += len(truth & set(out_rows[q].tolist()))
    report = NegativesReport(
        queries=len(queries),
        kept=out_rows.size,
        **totals,
        false_negatives=relevant_out / max(out_rows.size, 1) if oracle is not None else None,
        removed_false=relevant_removed / max(relevant_seen, 1) if oracle is not None else None,
    )
    return MinedNegatives(out_rows, out_scores, report)


def _search(
    queries: np.ndarray, documents: np.ndarray, depth: int, index: Index | None
) -> tuple[np.ndarray, np.ndarray]:
    if index is not None:
        return index.search(queries, depth)
    scores, rows = [], []
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256] @ documents.T
        best = np.argsort(-block, axis=1, kind="stable")[:, :depth]
        rows.append(best)
        scores.append(np.take_along_axis(block, best, axis=1))
    if not rows:
        return np.empty((0, depth), np.float32), np.empty((0, depth), np.int64)
    return np.concatenate(scores), np.concatenate(rows)


def _padding(
    query: np.ndarray, documents: np.ndarray, count: int, taken: set[int], rng: np.random.Generator
) -> list[tuple[int, float]]:
    free = np.setdiff1d(np.arange(len(documents)), np.fromiter(taken, dtype=np.int64))
    drawn = rng.choice(free, count, replace=False)
    return [(int(row), float(query @ documents[row])) for row in drawn]

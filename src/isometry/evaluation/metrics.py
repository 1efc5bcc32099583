"""Retrieval metrics, one value per query, through ir-measures.

What is decided here, so that no value depends on an accident:
- The order given is the order judged. trec_eval would sort equal scores by document id; here a ranking is a list, and
  whoever made it has broken the ties.
- Queries without a relevant document are left out of every metric and counted: nothing could be found for them.
- A judged query that is absent from the rankings is an error and not a 0: it was never run. A query that was run and
  found nothing has an empty list, and scores 0.
- A document without a judgement counts as not relevant; the unjudged share of the top 10 is reported as well.
- Gains of nDCG are linear in the relevance, as in trec_eval and BEIR; a relevance below 0 counts as 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError

Judgements = Mapping[str, Mapping[str, int]]
Rankings = Mapping[str, Sequence[str]]
DEFAULT_METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map")
_FAMILIES = {"ndcg": "nDCG", "recall": "R", "mrr": "RR", "map": "AP", "p": "P"}


@dataclass(frozen=True)
class RetrievalScores:
    """Values of each metric, query by query.

    Attributes:
        queries: ids of the q queries that were judged, in the order of the judgements.
        values: metric name to float64 `(q,)`.
        left_out: queries without a relevant document.
        unjudged: share of the first 10 hits that have no judgement, over all queries.
    """

    queries: tuple[str, ...]
    values: dict[str, np.ndarray]
    left_out: int
    unjudged: float

    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.values.items()}


def score_rankings(
    judgements: Judgements, rankings: Rankings, metrics: Sequence[str] = DEFAULT_METRICS
) -> RetrievalScores:
    """Judge rankings.

    Args:
        judgements: query id to document id to relevance (> 0 is relevant).
        rankings: query id to document ids, best first, each once. Queries that nobody judged are ignored.
        metrics: of 'ndcg@k', 'recall@k', 'mrr@k', 'p@k' and 'map' (over the whole list given), with or without '@k' for
            ndcg, mrr and map.
    Raises:
        InputError: a judged query was not run, a document stands twice in a ranking, no query has a relevant document,
            or an unknown metric.
    """
    measures = {name: _measure(name) for name in metrics}
    judged = {query: grades for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError("no query has a relevant document: there is nothing to judge")
    absent = [query for query in judged if query not in rankings]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(judged)} judged queries were never run (the first is '{absent[0]}'): run them, "
            "or give an empty list for a query that found nothing"
        )
    for query in judged:
        if len(set(rankings[query])) != len(rankings[query]):
            raise InputError(f"query '{query}' has a document twice in its ranking")
    # falling scores keep the order: no ties are left for the library to break its own way
    run = {query: {doc: float(-rank) for rank, doc in enumerate(rankings[query])} for query in judged}
    qrels = {query: {doc: max(0, int(grade)) for doc, grade in grades.items()} for query, grades in judged.items()}
    place = {query: i for i, query in enumerate(judged)}
    values = {name: np.zeros(len(judged)) for name in metrics}
    names = {str(measure): name for name, measure in measures.items()}
    for found in _ir_measures().iter_calc(list(measures.values()), qrels, run):
        values[names[str(found.measure)]][place[found.query_id]] = found.value
    shown = [(query, doc) for query in judged for doc in rankings[query][:10]]
    unjudged = sum(doc not in judged[query] for query, doc in shown) / max(1, len(shown))
    return RetrievalScores(tuple(judged), values, len(judgements) - len(judged), unjudged)


def _measure(name: str) -> Any:
    family, at, cutoff = name.lower().partition("@")
    if family not in _FAMILIES or (at and not cutoff.isdigit()) or (family in ("recall", "p") and not at):
        near = difflib.get_close_matches(name.lower(), [*DEFAULT_METRICS, "p@10"], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(DEFAULT_METRICS)} or p@10"
        raise InputError(f"no metric '{name}'; {hint}")
    if at and int(cutoff) < 1:
        raise InputError(f"metric '{name}': the cutoff must be above 0")
    return _ir_measures().parse_measure(_FAMILIES[family] + (f"@{int(cutoff)}" if at else ""))


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("judging rankings", "eval") from error
    return ir_measures

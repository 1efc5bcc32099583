"""Retrieval over a whole corpus, and reranking of given candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError
from isometry.evaluation.metrics import score_rankings
from isometry.evaluation.retrieval import exact_rankings
from isometry.evaluation.tasks._base import (
    Result,
    SubsetResult,
    document_vectors,
    evaluate_subsets,
    query_vectors,
    unit,
)
from isometry.types import Encoder

_DEPTH = 100


@dataclass(frozen=True)
class Judged:
    """A corpus, queries and graded judgements.

    Args:
        corpus: document id to text.
        queries: query id to text.
        judgements: query id to document id to relevance (> 0 is relevant); every query has a relevant document.
        candidates: query id to the document ids that are ranked for it; empty for the whole corpus.
    """

    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    candidates: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.queries or not self.corpus:
            raise InputError("no queries or no documents")
        for query in self.queries:
            grades = self.judgements.get(query, {})
            if not any(grade > 0 for grade in grades.values()):
                raise InputError(f"query '{query}' has no relevant document: leave it out")
            unknown = next((one for one in self.candidates.get(query, ()) if one not in self.corpus), None)
            if unknown is not None:
                raise InputError(f"candidate '{unknown}' of query '{query}' is not in the corpus")


@dataclass(frozen=True)
class Retrieval:
    """nDCG@10 of an exact search by cosine, with linear gains (mteb: `ndcg_at_10`).

    Where candidates are given (`hard_negatives`), a query ranks its own candidates only. Equal scores stay in the
    order of the corpus. An item is a query.
    """

    name: str
    data: Mapping[str, Judged]
    kind = "Retrieval"
    metric = "ndcg_at_10"

    def texts(self) -> Iterator[str]:
        for judged in self.data.values():
            yield from judged.corpus.values()
            yield from judged.queries.values()

    def evaluate(self, encoder: Encoder) -> Result:
        return evaluate_subsets(self, lambda judged: _judge(encoder, judged, "ndcg@10"))

    def rankings(self, encoder: Encoder, depth: int = _DEPTH) -> dict[str, dict[str, list[str]]]:
        """Subset to query id to the `depth` closest documents, best first."""
        return {name: _rank(encoder, judged, depth) for name, judged in self.data.items()}


@dataclass(frozen=True)
class Reranking:
    """Mean average precision over each query's own candidates (mteb: `map_at_1000`). An item is a query."""

    name: str
    data: Mapping[str, Judged]
    kind = "Reranking"
    metric = "map_at_1000"

    def __post_init__(self) -> None:
        for name, judged in self.data.items():
            lacking = next((query for query in judged.queries if not judged.candidates.get(query)), None)
            if lacking is not None:
                raise InputError(f"task '{self.name}', subset '{name}': query '{lacking}' has no candidates")

    texts = Retrieval.texts

    def evaluate(self, encoder: Encoder) -> Result:
        return evaluate_subsets(self, lambda judged: _judge(encoder, judged, "map"))


def _judge(encoder: Encoder, judged: Judged, main: str) -> SubsetResult:
    metrics = ["ndcg@10", "mrr@10", "map", "recall@10", *(["recall@100"] if not judged.candidates else [])]
    found = score_rankings(
        {query: judged.judgements[query] for query in judged.queries}, _rank(encoder, judged, _DEPTH), metrics
    )
    names = {"map": "map_at_1000" if judged.candidates else f"map_at_{_DEPTH}"}
    means = {names.get(name, name.replace("@", "_at_")): value for name, value in found.means().items()}
    return SubsetResult(float(found.values[main].mean()), found.values[main], means)


def _rank(encoder: Encoder, judged: Judged, depth: int) -> dict[str, list[str]]:
    ids = list(judged.corpus)
    documents = document_vectors(encoder, list(judged.corpus.values()))
    queries = query_vectors(encoder, list(judged.queries.values()))
    if not judged.candidates:
        return dict(zip(judged.queries, exact_rankings(queries, [(ids, documents)], depth), strict=True))
    place = {id: row for row, id in enumerate(ids)}
    documents, queries = unit(documents), unit(queries)
    found = {}
    for row, query in enumerate(judged.queries):
        names = judged.candidates[query]
        scores = documents[[place[name] for name in names]] @ queries[row]
        found[query] = [names[i] for i in np.argsort(-scores, kind="stable")]
    return found

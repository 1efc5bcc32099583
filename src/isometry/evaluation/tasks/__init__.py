"""Tasks: local data in, a `Result` with one value per item out, by the metric definitions of mteb 2."""

from __future__ import annotations

from isometry.evaluation.tasks._base import KINDS, Result, SubsetResult, Task, fingerprint
from isometry.evaluation.tasks.bitext_mining import BitextMining, ParallelTexts
from isometry.evaluation.tasks.classification import Classification, TrainTest
from isometry.evaluation.tasks.clustering import Clustering, LabelledTexts
from isometry.evaluation.tasks.pair_classification import LabelledPairs, PairClassification
from isometry.evaluation.tasks.search_tasks import Judged, Reranking, Retrieval
from isometry.evaluation.tasks.sts import STS, GradedPairs

__all__ = [
    "KINDS",
    "STS",
    "BitextMining",
    "Classification",
    "Clustering",
    "GradedPairs",
    "Judged",
    "LabelledPairs",
    "LabelledTexts",
    "PairClassification",
    "ParallelTexts",
    "Reranking",
    "Result",
    "Retrieval",
    "SubsetResult",
    "Task",
    "TrainTest",
    "fingerprint",
]

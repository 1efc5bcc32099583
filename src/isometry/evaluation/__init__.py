"""Metrics, tasks, statistics, evidence and reports. Imports no other room: it judges arrays, rankings and protocols.

Tasks are in `evaluation.tasks`, suites of them in `evaluation.suites`, baselines in `evaluation.baselines`.
"""

from __future__ import annotations

from isometry.evaluation.beir import BeirData, Document, beir_from_parquet, read_beir, write_beir
from isometry.evaluation.evidence import Claim, ClaimLine, Evidence, verdict
from isometry.evaluation.link_prediction import LinkPrediction, LinkSplit
from isometry.evaluation.metrics import DEFAULT_METRICS, RetrievalScores, score_rankings
from isometry.evaluation.multilabel_probe import MultiLabelProbe, ProbeScore
from isometry.evaluation.ranking import (
    CriticalDifference,
    ScoreTable,
    TaskComparison,
    borda,
    compare_models,
    critical_difference,
    mean_by_kind,
    rank_intervals,
    ranks,
)
from isometry.evaluation.report import write_report
from isometry.evaluation.retrieval import MetricComparison, RetrievalResult, compare_runs, exact_rankings
from isometry.evaluation.selection import Selection, cut_curve, hard_negatives, preservation_curve, select_tasks
from isometry.evaluation.statistics import Comparison, bootstrap_interval, holm, paired_bootstrap, sign_flip_p

__all__ = [
    "DEFAULT_METRICS",
    "BeirData",
    "Claim",
    "ClaimLine",
    "Comparison",
    "CriticalDifference",
    "Document",
    "Evidence",
    "LinkPrediction",
    "LinkSplit",
    "MetricComparison",
    "MultiLabelProbe",
    "ProbeScore",
    "RetrievalResult",
    "RetrievalScores",
    "ScoreTable",
    "Selection",
    "TaskComparison",
    "beir_from_parquet",
    "bootstrap_interval",
    "borda",
    "compare_models",
    "compare_runs",
    "critical_difference",
    "cut_curve",
    "exact_rankings",
    "hard_negatives",
    "holm",
    "mean_by_kind",
    "paired_bootstrap",
    "preservation_curve",
    "rank_intervals",
    "ranks",
    "read_beir",
    "score_rankings",
    "select_tasks",
    "sign_flip_p",
    "verdict",
    "write_beir",
    "write_report",
]

"""Metrics, statistics, evidence and reports. Imports no other room: it judges arrays, rankings and protocols."""

from __future__ import annotations

from isometry.evaluation.beir import BeirData, Document, beir_from_parquet, read_beir, write_beir
from isometry.evaluation.evidence import Claim, ClaimLine, Evidence, verdict
from isometry.evaluation.link_prediction import LinkPrediction, LinkSplit
from isometry.evaluation.metrics import DEFAULT_METRICS, RetrievalScores, score_rankings
from isometry.evaluation.multilabel_probe import MultiLabelProbe, ProbeScore
from isometry.evaluation.report import write_report
from isometry.evaluation.retrieval import MetricComparison, RetrievalResult, compare_runs, exact_rankings
from isometry.evaluation.statistics import Comparison, bootstrap_interval, holm, paired_bootstrap, sign_flip_p

__all__ = [
    "DEFAULT_METRICS",
    "BeirData",
    "Claim",
    "ClaimLine",
    "Comparison",
    "Document",
    "Evidence",
    "LinkPrediction",
    "LinkSplit",
    "MetricComparison",
    "MultiLabelProbe",
    "ProbeScore",
    "RetrievalResult",
    "RetrievalScores",
    "beir_from_parquet",
    "bootstrap_interval",
    "compare_runs",
    "exact_rankings",
    "holm",
    "paired_bootstrap",
    "read_beir",
    "score_rankings",
    "sign_flip_p",
    "verdict",
    "write_beir",
    "write_report",
]

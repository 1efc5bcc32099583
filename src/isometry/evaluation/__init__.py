"""Metrics, statistics, evidence and reports. Imports no other room: it judges arrays, rankings and protocols."""

from __future__ import annotations

from isometry.evaluation.evidence import Claim, ClaimLine, Evidence, verdict
from isometry.evaluation.link_prediction import LinkPrediction, LinkSplit
from isometry.evaluation.multilabel_probe import MultiLabelProbe, ProbeScore
from isometry.evaluation.statistics import Comparison, bootstrap_interval, holm, paired_bootstrap, sign_flip_p

__all__ = [
    "Claim",
    "ClaimLine",
    "Comparison",
    "Evidence",
    "LinkPrediction",
    "LinkSplit",
    "MultiLabelProbe",
    "ProbeScore",
    "bootstrap_interval",
    "holm",
    "paired_bootstrap",
    "sign_flip_p",
    "verdict",
]

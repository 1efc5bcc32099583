"""Pairs and runs that take a second."""

from __future__ import annotations

from isometry.training import TrainingData, preset
from tests.tiny_text import sentences


def pairs(count=24, negatives=0):
    anchors = sentences(count, 0)
    texts = {"anchor": anchors, "positive": [f"{text} w1" for text in anchors]}
    texts |= {f"negative_{i + 1}": sentences(count, 7 + i) for i in range(negatives)}
    return TrainingData("pairs", texts)


def run_of(start, name="contrastive", **changes):
    options = {"model": start, "steps": 6, "batch_size": 8, "learning_rate": 1e-3, "save_every": 3, **changes}
    return preset(name, **options)

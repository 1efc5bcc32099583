"""Labelled texts and graded pairs turned into (query, positive, negatives) rows for contrastive training.

Papers 05, 06, 42: "another example of the class" as the positive beats the label's text by far on clustering.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.errors import InputError


def class_triplets(
    texts: Sequence[str], labels: Sequence[str], negatives: int = 1, positives: str = "example", seed: int = 0
) -> dict[str, list[str]]:
    """Columns anchor, positive, negative_1 … of one row per text.

    Args:
        positives: "example" = another text of the class, negatives = texts of other classes (a class with one text is
            left out); "label" = the label's text, negatives = other labels' texts.

    Raises:
        InputError: fewer than two classes, or no class with two texts.
    """
    if positives not in ("example", "label"):
        raise InputError(f"positives are 'example' or 'label', not '{positives}'")
    names = sorted(set(labels))
    if len(names) < 2:
        raise InputError(f"contrastive training on classes needs two of them; the labels hold only {names}")
    rng = np.random.default_rng(seed)
    members = {name: [i for i, label in enumerate(labels) if label == name] for name in names}
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    columns |= {f"negative_{i + 1}": [] for i in range(negatives)}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        others = [name for name in names if name != label]
        if positives == "label":
            positive = label
            drawn = [others[i] for i in rng.choice(len(others), negatives, replace=len(others) < negatives)]
        else:
            mates = [i for i in members[label] if i != row and texts[i] != text]
            if not mates:
                continue
            positive = texts[mates[int(rng.integers(len(mates)))]]
            classes = [others[int(i)] for i in rng.integers(len(others), size=negatives)]
            drawn = [texts[members[name][int(rng.integers(len(members[name])))]] for name in classes]
        columns["anchor"].append(text)
        columns["positive"].append(positive)
        for i, negative in enumerate(drawn):
            columns[f"negative_{i + 1}"].append(negative)
    if not columns["anchor"]:
        raise InputError("no class has two different texts, so there is no example to be a positive")
    return columns


def graded_pairs(
    left: Sequence[str], right: Sequence[str], scores: Sequence[float], threshold: float
) -> dict[str, list[str]]:
    """Graded pairs at or above `threshold` as (anchor, positive), in both directions (paper 05: gold >= 4 of 5)."""
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    for one, other, score in zip(left, right, scores, strict=True):
        if score >= threshold:
            columns["anchor"] += [one, other]
            columns["positive"] += [other, one]
    if not columns["anchor"]:
        raise InputError(f"no pair has a score of {threshold} or more")
    return columns

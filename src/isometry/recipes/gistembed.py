"""Paper 55: a guide that keeps false negatives out of the batch, on picture descriptions where they are certain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, caption_mrr, captions, encode, fit, full_model, student
from isometry.types import Progress

DOUBLE, SINGLE = "MRR, batches with duplicates", "MRR, batches without duplicates"
GIST, PLAIN, ORACLE = "guided (GIST)", "InfoNCE, joint", "true groups masked"
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_doc")

CLAIMS = {
    "tiny": (Claim("With duplicates in the batch a guide helps.", DOUBLE, GIST, PLAIN),),
    "laptop": (
        Claim("With duplicates in the batch a guide helps.", DOUBLE, GIST, PLAIN),
        Claim("A guide is as good as knowing the duplicates (within half a point).", DOUBLE, GIST, ORACLE, -0.005),
        Claim("Without duplicates a guide does no harm (within half a point).", SINGLE, GIST, PLAIN, -0.005),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and rows in all arms; a seed draws pictures, pairs and batches."""
    from isometry.training.losses import InfoNCE

    tiny = scale == "tiny"
    steps, size, pictures, held = (6, 16, 40, 60) if tiny else (40, 64, 600, 500)
    test = captions(data, "test", held, 0)
    arms = (GIST, PLAIN) if tiny else (GIST, PLAIN, ORACLE)
    plans = [(DOUBLE, arm) for arm in arms] + ([] if tiny else [(SINGLE, GIST), (SINGLE, PLAIN)])
    tick = Ticker(progress, len(plans) * len(seeds) * steps)
    values: dict[str, dict[str, list[float]]] = {DOUBLE: {}, SINGLE: {}}
    removed: dict[str, list[float]] = {"share": [], "true": []}
    for seed in seeds:
        groups = captions(data, "train", pictures, seed)
        texts = [text for group in groups for text in group]
        guide = encode(full_model(), texts)
        for metric, arm in plans:
            rows = _pairs(len(groups), size, metric == DOUBLE, seed)
            first, second = ([5 * g + place for g, _, place in rows], [5 * g + place for g, place, _ in rows])
            labels: list[object] = [np.stack([guide[i], guide[j]]) for i, j in zip(first, second, strict=True)]
            if arm == ORACLE:
                labels = [g for g, _, _ in rows]
            columns: list[list[object]] = [[texts[i] for i in first], [texts[j] for j in second]]
            if arm != PLAIN:
                columns.append(labels)
            read = {PLAIN: None, ORACLE: "groups", GIST: "guide"}[arm]
            model = student(2)
            loss = InfoNCE(model, directions=DIRECTIONS, labels=read)  # type: ignore[arg-type]
            fit(model, loss, _in_order(columns, size), steps, seed, tick=tick)
            values[metric].setdefault(arm, []).append(caption_mrr(model, test))
            if (metric, arm) == (DOUBLE, GIST):
                share, true = _judge(guide, first[:size], second[:size], [g for g, _, _ in rows[:size]])
                removed["share"].append(share)
                removed["true"].append(true)
    measured = {
        "untrained_student_mrr": caption_mrr(student(2), test),
        "guide_mrr": caption_mrr(full_model(), test),
        "guide_removes_share_of_negatives": float(np.mean(removed["share"])),
        "removed_that_are_duplicates_share": float(np.mean(removed["true"])),
    }
    what = (
        f"Flickr8k descriptions: {pictures} pictures to train, {held} to test; 2-layer student, {steps} x {size} pairs"
    )
    return Measurement(what, {metric: found for metric, found in values.items() if found}, measured)


def _pairs(groups: int, size: int, doubled: bool, seed: int) -> list[tuple[int, int, int]]:
    """(picture, description, description): with duplicates every batch holds each of size / 8 pictures eight times."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(40 * groups // size + 1):
        chosen = rng.permutation(groups)[: size // 8 if doubled else size]
        for g in np.repeat(chosen, 8) if doubled else chosen:
            first, second = rng.choice(5, 2, replace=False)
            rows.append((int(g), int(first), int(second)))
    return rows


def _in_order(columns: Sequence[Sequence[object]], size: int) -> Iterator[list[list[object]]]:
    """Batches as they were composed, over and over."""
    while True:
        for start in range(0, len(columns[0]) - size + 1, size):
            yield [list(column[start : start + size]) for column in columns]


def _judge(guide: np.ndarray, first: list[int], second: list[int], groups: list[int]) -> tuple[float, float]:
    """Share of one batch's negatives that the guide removes, and share of those that are duplicates."""
    scores = guide[first] @ guide[second].T
    others = ~np.eye(len(first), dtype=bool)
    gone = (scores > scores.diagonal()[:, None]) & others
    same = np.equal.outer(groups, groups)
    return float(gone.sum() / others.sum()), float((gone & same).sum() / max(gone.sum(), 1))


RECIPE = Recipe(
    name="gistembed",
    paper=55,
    title="GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning",
    claim="A strong frozen guide that drops in-batch items closer than the labelled positive makes better students.",
    parts=(
        "isometry.training.losses.InfoNCE",
        "isometry.training.losses.add_guide_vectors",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 3},
    measure=measure,
)

"""Paper 55: a guide that keeps false negatives out of the batch, on picture descriptions where they are certain.

The student is the first two layers of the bundled encoder, frozen, under a trained head; the guide is the whole
encoder. Five people described every picture, so two descriptions of one picture in a batch are a known false negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, captions
from isometry.types import Progress

DOUBLE, SINGLE = "MRR, batches with duplicates", "MRR, batches without duplicates"
GIST, WIDER = "guided (GIST)", "guided, margin .05"
PLAIN, JOINT = "InfoNCE (sentence-transformers)", "InfoNCE, joint"
ORACLE, RANDOM = "true groups masked", "as many masked at random"
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_doc")

CLAIMS = {
    "tiny": (Claim("With duplicates in the batch a guide helps.", DOUBLE, GIST, JOINT),),
    "laptop": (
        Claim("With duplicates in the batch a guide helps, all else equal.", DOUBLE, GIST, JOINT),
        Claim("With duplicates in the batch a guide beats plain InfoNCE.", DOUBLE, GIST, PLAIN),
        Claim("A guide is as good as knowing the duplicates (within half a point).", DOUBLE, GIST, ORACLE, -0.005),
        Claim("What a guide masks matters, not how much: it beats a random mask.", DOUBLE, GIST, RANDOM),
        Claim("A random mask of that size brings nothing (within half a point).", DOUBLE, JOINT, RANDOM, -0.005),
        Claim("Without duplicates a guide does no harm (within half a point).", SINGLE, GIST, JOINT, -0.005),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and rows in all arms; a seed draws pictures, pairs, batches and the head."""
    import torch

    from isometry.recipes._frozen import Head, descend, head_mrr, layer_means
    from isometry.training import MarginRule
    from isometry.training.losses import InfoNCE

    class RandomMask(InfoNCE):
        """The guide's mask with every row's entries shuffled among the other rows: as many, but any."""

        def _closer(self, guide: list[Any], blocks: dict[str, Any]) -> dict[str, Any]:
            found = super()._closer(guide, blocks)
            for block in found.values():
                for i, row in enumerate(block):
                    others = torch.arange(len(row)) != i
                    row[others] = row[others][torch.randperm(int(others.sum()))]
            return found

    tiny = scale == "tiny"
    steps, size, pictures, held = (40, 32, 40, 60) if tiny else (150, 64, 600, 800)
    arms: dict[str, dict[str, Any]] = {
        GIST: {"labels": "guide"},
        WIDER: {"labels": "guide", "guide_margin": MarginRule("absolute", 0.05)},
        PLAIN: {"directions": ("query_to_doc",), "mask_duplicates": False},
        JOINT: {"mask_duplicates": False},
        ORACLE: {"labels": "groups"},
        RANDOM: {"labels": "guide"},
    }
    plans = [(DOUBLE, arm) for arm in ((GIST, JOINT) if tiny else arms)]
    plans += [] if tiny else [(SINGLE, arm) for arm in (GIST, JOINT)]
    tick = Ticker(progress, len(plans) * len(seeds) * steps)
    test = captions(data, "test", held, 0)
    asked, known = (layer_means([group[i] for group in test]) for i in (0, 1))
    pool = captions(data, "train", pictures, 0)
    states = layer_means([text for group in pool for text in group])
    values: dict[str, dict[str, list[float]]] = {DOUBLE: {}, SINGLE: {}}
    removed: dict[str, list[float]] = {"share": [], "true": [], "found": []}
    for seed in seeds:
        for metric, arm in plans:
            rng = np.random.default_rng(seed)
            student = Head(seed=seed)
            loss = (RandomMask if arm == RANDOM else InfoNCE)(None, **{"directions": DIRECTIONS, **arms[arm]})

            def of_batch(
                step: int, arm: str = arm, metric: str = metric, loss: Any = loss, rng: Any = rng, top: Any = student
            ) -> Any:
                groups, first, second = _draw(rng, pictures, size, metric == DOUBLE)
                labels = torch.from_numpy(groups) if arm == ORACLE else None
                if arms[arm].get("labels") == "guide":
                    labels = torch.stack([states[6][first], states[6][second]], dim=1)
                vectors = [top(states[2][first]), top(states[2][second])]
                return loss.compute_loss_from_embeddings(vectors, labels)

            descend([student], of_batch, steps, seed=seed, tick=tick)
            values[metric].setdefault(arm, []).append(head_mrr(student, asked[2], known[2]))
        groups, first, second = _draw(np.random.default_rng(seed), pictures, size, True)
        for name, share in _judge(states[6], groups, first, second).items():
            removed[name].append(share)
    identity = torch.nn.Identity()
    measured = {
        "untrained_student_mrr": head_mrr(identity, asked[2], known[2]),
        "guide_mrr": head_mrr(identity, asked[6], known[6]),
        "guide_removes_share_of_negatives": float(np.mean(removed["share"])),
        "removed_that_are_duplicates_share": float(np.mean(removed["true"])),
        "duplicates_that_are_removed_share": float(np.mean(removed["found"])),
    }
    if not tiny:
        measured["mrr_guided_margin_05"] = float(np.mean(values[DOUBLE][WIDER]))
    what = (
        f"Flickr8k descriptions: {pictures} pictures to train, {held} to test; frozen 2-layer student with a trained "
        f"head, {steps} steps of {size} pairs"
    )
    return Measurement(what, {metric: found for metric, found in values.items() if found}, measured)


def _draw(
    rng: np.random.Generator, pictures: int, size: int, doubled: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch: its pictures and two different descriptions of each; doubled, size / 8 pictures eight times each."""
    groups = rng.permutation(pictures)[: size // 8 if doubled else size].repeat(8 if doubled else 1)
    first = rng.integers(5, size=size)
    second = (first + rng.integers(1, 5, size=size)) % 5
    return groups, 5 * groups + first, 5 * groups + second


def _judge(guide: Any, groups: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Of one batch's negatives the share the guide removes; how many of those are duplicates, and of these removed."""
    from isometry.training.losses import cosine_matrix

    scores = cosine_matrix(guide[first], guide[second]).numpy()
    others = ~np.eye(len(first), dtype=bool)
    gone = (scores > scores.diagonal()[:, None]) & others
    same = np.equal.outer(groups, groups) & others
    both = (gone & same).sum()
    return {"share": gone.sum() / others.sum(), "true": both / max(gone.sum(), 1), "found": both / max(same.sum(), 1)}


RECIPE = Recipe(
    name="gistembed",
    paper=55,
    title="GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning",
    claim="A strong frozen guide that drops in-batch items closer than the labelled positive makes better students.",
    parts=(
        "isometry.training.losses.InfoNCE",
        "isometry.training.losses.add_guide_vectors",
        "isometry.training.MarginRule",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

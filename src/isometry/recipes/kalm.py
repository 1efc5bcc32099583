"""Paper 06: the parts of a training recipe one by one, a filter of positives, mixed negatives, focal weights, a soup.

Pairs are two descriptions of one picture; in the noisy arms a fifth of the answers belong to another picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, captions
from isometry.types import Progress

MRR, PRECISION, RECALL = "MRR", "share of the discarded pairs that are wrong", "share of the wrong pairs discarded"
PLAIN, MIXED = "InfoNCE, 2 negatives", "2 negatives and their mixtures"
SEVEN, MIXED_SEVEN = "InfoNCE, 7 negatives", "7 negatives and their mixtures"
FOCAL, NOISY, NOISY_FOCAL = "focal weights", "a fifth wrong", "a fifth wrong, focal weights"
FILTERED, FILTER = "a fifth wrong, filtered", "consistency filter"
SOUP, MEMBERS, BEST = "soup of three", "its members, on average", "its best member"

CLAIMS = {
    "tiny": (Claim("Four in ten wrong pairs are discarded.", RECALL, FILTER, "four in ten"),),
    "laptop": (
        Claim("Filtering positives restores what wrong pairs cost.", MRR, FILTERED, NOISY),
        Claim("Nine in ten discarded pairs are wrong.", PRECISION, FILTER, "nine in ten"),
        Claim("Six in ten wrong pairs are discarded.", RECALL, FILTER, "six in ten"),
        Claim("Mixed negatives help where there are two.", MRR, MIXED, PLAIN),
        Claim("Focal weights help on clean data.", MRR, FOCAL, PLAIN),
        Claim("Focal weights harm where a fifth of the pairs is wrong.", MRR, NOISY, NOISY_FOCAL),
        Claim("A soup of three is better than its members.", MRR, SOUP, MEMBERS),
        Claim("It is better than the best of them.", MRR, SOUP, BEST),
    ),
}


ARMS: dict[str, tuple[int, bool, dict[str, Any]]] = {
    PLAIN: (2, False, {}),
    MIXED: (2, False, {"mixed_pairs": 1, "mixed_list": True}),
    SEVEN: (7, False, {}),
    MIXED_SEVEN: (7, False, {"mixed_pairs": 1, "mixed_list": True}),
    FOCAL: (2, False, {"focal": 0.5}),
    NOISY: (2, True, {}),
    NOISY_FOCAL: (2, True, {"focal": 0.5}),
    FILTERED: (2, True, {}),
}
"""Negatives of a row, whether a fifth of the answers is wrong, options of the loss."""


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and batches in all arms; a seed draws pairs, wrong answers, negatives, batches and the head."""
    import torch

    from isometry.recipes._frozen import Head, descend, head_mrr, layer_means, unit
    from isometry.training.losses import InfoNCE
    from isometry.training.merging import TaskVector, average, task_matrix
    from isometry.training.negatives import consistent_rows, mine_negatives

    tiny = scale == "tiny"
    pictures, held, steps, size, top, window = (80, 40, 15, 16, 5, 40) if tiny else (900, 800, 100, 48, 50, 100)
    pool, test = captions(data, "train", pictures, 0), captions(data, "test", held, 0)
    states = layer_means([text for group in pool for text in group])
    asked, known = (layer_means([group[i] for group in test], [2])[2] for i in (0, 1))
    guide = unit(states[6])
    arms = {FILTERED: ARMS[FILTERED]} if tiny else ARMS
    tick = Ticker(progress, len(seeds) * steps * (len(arms) + (0 if tiny else 2)))
    values: dict[str, dict[str, list[float]]] = {
        MRR: {},
        PRECISION: {"nine in ten": [0.9]},
        RECALL: {"six in ten": [0.6], "four in ten": [0.4]},
    }
    for seed in seeds:
        rng = np.random.default_rng(seed)
        places = rng.permuted(np.tile(np.arange(5), (pictures, 1)), axis=1)[:, :2] + 5 * np.arange(pictures)[:, None]
        asks, answers = places.T
        wrong = rng.random(pictures) < 0.2
        bad = np.where(wrong, np.roll(answers, 1), answers)
        kept = consistent_rows(guide[asks], guide[answers], _row_of(bad, answers), top)
        values[PRECISION].setdefault(FILTER, []).append(float(wrong[~kept].mean()) if (~kept).any() else 0.0)
        values[RECALL].setdefault(FILTER, []).append(float((~kept)[wrong].mean()))
        mined = {
            noisy: answers[
                mine_negatives(
                    guide[asks],
                    guide[answers],
                    _row_of(bad if noisy else answers, answers),
                    7,
                    first_rank=window // 2,
                    last_rank=window,
                    choose="random",
                    seed=seed,
                ).rows
            ]
            for noisy in (False, True)
        }

        def train(arm: str, order: int, drawn: Any = (asks, answers, bad, kept, mined), number: int = seed) -> Any:
            count, noisy, options = arms[arm]
            columns = [drawn[0], drawn[2] if noisy else drawn[1], *drawn[4][noisy].T[:count]]
            rows = np.flatnonzero(drawn[3]) if arm == FILTERED else np.arange(pictures)
            head = Head(seed=number)
            loss = _batch_loss(states[2], columns, rows, InfoNCE(None, **options), head, order, size)
            descend([head], loss, steps, seed=number, tick=tick)
            return head

        heads = {arm: train(arm, seed) for arm in arms}
        for arm, head in heads.items():
            values[MRR].setdefault(arm, []).append(head_mrr(head, asked, known))
        if not tiny:
            members = [heads[PLAIN], train(PLAIN, seed + 1000), train(PLAIN, seed + 2000)]
            base = Head(seed=seed).state_dict()
            vectors = [TaskVector.between(base, head.state_dict()) for head in members]
            soup = Head(seed=seed)
            soup.load_state_dict(vectors[0].unflatten(average(task_matrix(vectors))).apply(base))
            values[MRR].setdefault(SOUP, []).append(head_mrr(soup, asked, known))
            scores = [head_mrr(head, asked, known) for head in members]
            values[MRR].setdefault(MEMBERS, []).append(float(np.mean(scores)))
            values[MRR].setdefault(BEST, []).append(max(scores))
    measured = {"untrained_mrr": head_mrr(torch.nn.Identity(), asked, known)}
    if not tiny:
        for name, arm in (("mrr_7_negatives", SEVEN), ("mrr_7_negatives_mixed", MIXED_SEVEN)):
            measured[name] = float(np.mean(values[MRR][arm]))
    what = (
        f"Flickr8k descriptions: {pictures} pairs to train, {held} to test; frozen 2-layer student with a trained head, "
        f"{steps} steps of {size} pairs; negatives from ranks {window // 2} to {window}; teacher: the whole encoder"
    )
    return Measurement(what, values, measured)


def _row_of(texts: np.ndarray, corpus: np.ndarray) -> list[list[int]]:
    place = {int(text): row for row, text in enumerate(corpus)}
    return [[place[int(text)]] for text in texts]


def _batch_loss(
    states: Any, columns: list[np.ndarray], rows: np.ndarray, loss: Any, head: Any, seed: int, size: int
) -> Callable[[int], Any]:
    draw = np.random.default_rng(seed)

    def of_step(step: int) -> Any:
        chosen = draw.choice(rows, size, replace=False)
        found = head(states[np.concatenate([column[chosen] for column in columns])]).split(size)
        return loss.compute_loss_from_embeddings(list(found))

    return of_step


RECIPE = Recipe(
    name="kalm",
    paper=6,
    title="KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A Versatile Embedding Model",
    claim="Filtering positives, mixing negatives, focal weights and a soup each make a small encoder better.",
    parts=(
        "isometry.training.negatives.consistent_rows",
        "isometry.training.negatives.mine_negatives",
        "isometry.training.losses.InfoNCE",
        "isometry.training.merging.average",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

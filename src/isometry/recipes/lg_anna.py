"""Paper 42: hard negatives kept below a margin of their own positive, and a teacher's scores as soft labels.

Five people described every picture. One description asks, one is its labelled answer, and the other three are answers
that nobody labelled: whoever mines the hardest negatives finds exactly those. So the oracle is known.
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

NDCG, FALSE = "nDCG@10 over all other descriptions", "log2 of the share of false negatives"
TOP, RELATIVE, ABSOLUTE, NONE = (
    "hardest 7",
    "hardest 7 below 95 %",
    "hardest 7 below .05 less",
    "no hard negatives, larger batch",
)
SOFT, ONLY = "below 95 %, soft labels too", "below 95 %, soft labels only"

CLAIMS = {
    "tiny": (Claim("The margin removes at least half of the false negatives.", FALSE, RELATIVE, TOP, 1.0, False),),
    "laptop": (
        Claim("Negatives below a margin of their positive teach better than the hardest.", NDCG, RELATIVE, TOP),
        Claim("The margin removes at least half of the false negatives.", FALSE, RELATIVE, TOP, 1.0, False),
        Claim("Hard negatives below the margin beat a batch of as many texts without any.", NDCG, RELATIVE, NONE),
        Claim("Soft labels help on top of hard ones.", NDCG, SOFT, RELATIVE),
        Claim("Soft labels on top of hard ones beat soft ones alone.", NDCG, SOFT, ONLY),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and texts in all arms; a seed draws which descriptions ask and answer, and the head.

    Without hard negatives a batch has 4.5 times the pairs, which is as many texts: in-batch negatives for the same work.
    """
    import torch
    from torch.nn import functional as F

    from isometry.recipes._frozen import Head, descend, layer_means, unit
    from isometry.training import MarginRule
    from isometry.training.losses import InfoNCE
    from isometry.training.negatives import Bm25, mine_negatives, standardised_sum

    tiny = scale == "tiny"
    pictures, held, steps, size = (60, 40, 20, 16) if tiny else (600, 500, 150, 32)
    arms = (TOP, RELATIVE) if tiny else (TOP, RELATIVE, ABSOLUTE, NONE, SOFT, ONLY)
    rules = {TOP: None, RELATIVE: MarginRule("relative", 0.05), ABSOLUTE: MarginRule("absolute", 0.05)}
    pool, test = captions(data, "train", pictures, 0), captions(data, "test", held, 0)
    texts = [text for group in pool for text in group]
    states, judged = layer_means(texts), layer_means([text for group in test for text in group])
    known = unit(states[6])
    words = Bm25(texts)
    tick = Ticker(progress, len(seeds) * len(arms) * steps)
    values: dict[str, dict[str, list[float]]] = {NDCG: {}, FALSE: {}}
    removed: dict[str, list[float]] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permuted(np.tile(np.arange(5), (pictures, 1)), axis=1) + 5 * np.arange(pictures)[:, None]
        asks, answers, others = order[:, 0], order[:, 1], order[:, 2:]
        mined = {}
        for name, rule in rules.items():
            found = mine_negatives(
                known[asks],
                known,
                answers[:, None].tolist(),
                7,
                rule=rule,
                forbidden=asks[:, None].tolist(),
                oracle=others.tolist(),
                seed=seed,
            )
            mined[name] = found.rows
            values[FALSE].setdefault(name, []).append(float(np.log2(max(found.report.false_negatives or 0, 1e-4))))
            removed.setdefault(f"kept_share_{name}", []).append(found.report.kept_fraction)
            removed.setdefault(f"false_negatives_{name}", []).append(found.report.false_negatives or 0)
        candidates = np.concatenate([answers[:, None], mined[RELATIVE]], axis=1)
        keywords = np.stack([words.scores(texts[a])[row] for a, row in zip(asks, candidates, strict=True)])
        dense = np.einsum("qd,qcd->qc", known[asks], known[candidates])
        teacher = torch.from_numpy(standardised_sum(keywords, dense))
        for arm in arms:
            options: dict[str, Any] = {"hard": "own"}
            if arm in (SOFT, ONLY):
                options |= {"labels": "scores", "soft_weight": 1.0, "hard_weight": float(arm == SOFT)}
            columns = [asks, answers, *([] if arm == NONE else mined.get(arm, mined[RELATIVE]).T)]
            top = Head(seed=seed)
            rows = size * 9 // 2 if arm == NONE else size
            loss = _batch_loss(states[2], columns, teacher, InfoNCE(None, **options), top, seed, rows)
            descend([top], loss, steps, seed=seed, tick=tick)
            with torch.no_grad():
                values[NDCG].setdefault(arm, []).append(_ndcg(unit(top(judged[2]))))
    measured = {name.replace(" ", "_").replace("%", "percent"): float(np.mean(row)) for name, row in removed.items()}
    measured["untrained_student_ndcg"] = _ndcg(unit(F.normalize(judged[2])))
    measured["teacher_ndcg"] = _ndcg(unit(judged[6]))
    if not tiny:
        measured["absolute_margin_ndcg"] = float(np.mean(values[NDCG][ABSOLUTE]))
    what = (
        f"Flickr8k descriptions: {pictures} pictures to train, {held} to test; frozen 2-layer student with a trained head, "
        f"{steps} steps of {size} queries with 7 negatives; teacher: the whole encoder and BM25"
    )
    return Measurement(what, values, measured)


def _batch_loss(
    states: Any, columns: list[np.ndarray], teacher: Any, loss: Any, top: Any, seed: int, size: int
) -> Callable[[int], Any]:
    draw = np.random.default_rng(seed)

    def of_step(step: int) -> Any:
        rows = draw.choice(len(columns[0]), size, replace=False)
        found = top(states[np.concatenate([column[rows] for column in columns])]).split(size)
        return loss.compute_loss_from_embeddings(list(found), teacher[rows] if loss.labels else None)

    return of_step


def _ndcg(vectors: np.ndarray) -> float:
    """Every picture's first description asks; its other four are what should be found among all others' four."""
    asked = vectors[0::5]
    known = np.delete(vectors, np.arange(0, len(vectors), 5), axis=0)
    best = np.argsort(-(asked @ known.T), axis=1, kind="stable")[:, :10]
    gains = (best // 4 == np.arange(len(asked))[:, None]) / np.log2(np.arange(2, 12))
    return float((gains.sum(axis=1) / (1 / np.log2(np.arange(2, 6))).sum()).mean())


RECIPE = Recipe(
    name="lg-anna",
    paper=42,
    title="LG-ANNA-Embedding technical report",
    claim="Negatives filtered by a margin that adapts to each positive, and a teacher's soft labels, train better encoders.",
    parts=(
        "isometry.training.negatives.mine_negatives",
        "isometry.training.MarginRule",
        "isometry.training.negatives.standardised_sum",
        "isometry.training.losses.InfoNCE",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

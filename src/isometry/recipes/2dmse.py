"""Paper 23: one encoder for every depth and width, against losses that train depth or width alone.

The model is the bundled encoder's first four layers; pairs are short descriptions of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, batches, exit_scores, fit, graded, short_pairs, student
from isometry.types import Progress

AREA, STS = "MRR, mean over the grid", "Spearman on STS-B, mean over the grid"
NARROW, SHALLOW = "MRR, all layers at 24 and 48 dimensions", "MRR, layers 1 to 3 at all dimensions"
FULL = "MRR at full size"
PLAIN, WIDTHS, DEPTHS = "InfoNCE", "Matryoshka (sentence-transformers)", "adaptive layers (sentence-transformers)"
BOTH, ESE = "2DMSE", "ESE"
DIMENSIONS = (24, 48, 96, 192, 384)

CLAIMS = {
    "tiny": (Claim("Training sampled sizes lifts the whole grid.", AREA, BOTH, PLAIN),),
    "laptop": (
        Claim("Training sampled sizes lifts the whole grid.", AREA, BOTH, PLAIN),
        Claim("It lifts the grid on graded similarity too.", STS, BOTH, PLAIN),
        Claim("Over the grid it beats training the widths alone.", AREA, BOTH, WIDTHS),
        Claim("Over the grid it beats training the depths alone.", AREA, BOTH, DEPTHS),
        Claim("Training widths lifts the narrow columns.", NARROW, WIDTHS, PLAIN),
        Claim("Training depths lifts the shallow rows.", SHALLOW, DEPTHS, PLAIN),
        Claim("The later variant (ESE) lifts the whole grid.", AREA, ESE, PLAIN),
        Claim("The full size does not suffer (within one point).", FULL, BOTH, PLAIN, -0.01),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps, batches and rates in all arms; a seed draws the pairs, their order and the sizes."""
    from sentence_transformers.sentence_transformer.losses import (
        AdaptiveLayerLoss,
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    from isometry.training.losses import EspressoLoss, SampledSizeLoss

    tiny = scale == "tiny"
    layers, size, steps, pictures, held, graded_rows = (2, 8, 6, 60, 80, 40) if tiny else (4, 24, 40, 800, 400, 300)
    widths = list(DIMENSIONS)
    arms: dict[str, Any] = {
        PLAIN: lambda model, base, seed: base,
        BOTH: lambda model, base, seed: SampledSizeLoss(model, base, widths=DIMENSIONS[:-1], seed=seed),
        WIDTHS: lambda model, base, seed: MatryoshkaLoss(model, base, widths[::-1]),
        DEPTHS: lambda model, base, seed: AdaptiveLayerLoss(model, base),
        ESE: lambda model, base, seed: EspressoLoss(model, base, width=96),
    }
    if tiny:
        arms = {name: arms[name] for name in (PLAIN, BOTH)}
    grid = [(layer, width) for layer in range(1, layers + 1) for width in DIMENSIONS]
    test, sts = short_pairs(data, "test", held, 0), graded(data, "test", graded_rows)
    tick = Ticker(progress, len(arms) * len(seeds) * steps)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in (AREA, STS, NARROW, SHALLOW, FULL)}
    for seed in seeds:
        pairs = short_pairs(data, "train", pictures, seed)
        for arm, build in arms.items():
            model = student(layers)
            loss = build(model, MultipleNegativesRankingLoss(model), seed)
            fit(model, loss, batches(pairs, size, seed), steps, seed, 2e-4, tick=tick)
            scores = exit_scores(model, test, sts, grid)
            mrr = {cell: score[0] for cell, score in scores.items()}
            of = {
                AREA: list(mrr.values()),
                STS: [score[1] for score in scores.values()],
                NARROW: [mrr[layers, 24], mrr[layers, 48]],
                SHALLOW: [value for (layer, _), value in mrr.items() if layer < layers],
                FULL: [mrr[layers, 384]],
            }
            for metric, cells in of.items():
                values[metric].setdefault(arm, []).append(float(np.mean(cells)))
    untrained = exit_scores(student(layers), test, sts, grid)
    measured = {
        "untrained_mrr_mean_over_grid": float(np.mean([mrr for mrr, _ in untrained.values()])),
        "untrained_spearman_mean_over_grid": float(np.mean([rho for _, rho in untrained.values()])),
        "untrained_mrr_full_size": untrained[layers, 384][0],
    }
    what = (
        f"Flickr8k descriptions of at most 9 words: {pictures} pairs to train, {len(test[0])} to test, "
        f"{len(sts[2])} pairs of STS-B; {layers}-layer encoder, {steps} steps of {size} pairs, {len(grid)} sizes"
    )
    return Measurement(what, values, measured)


RECIPE = Recipe(
    name="2dmse",
    paper=23,
    title="2D Matryoshka Sentence Embeddings",
    claim="One training run makes every layer and every prefix of the sentence vector usable; the full size stays.",
    parts=(
        "isometry.training.losses.SampledSizeLoss",
        "isometry.training.losses.EspressoLoss",
        "isometry.encoders.text.encode_exits",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 5},
    measure=measure,
)

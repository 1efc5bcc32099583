"""Paper 03: a fixed ladder of sizes trained at once, with and without masked pre-training, and the small model it gives.

The model is the bundled encoder (6 layers, 384 dimensions) with the ladder (2, 96), (4, 192), (6, 384).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, batches, exit_scores, fit, full_model, graded, short_pairs, student
from isometry.types import Progress

SMALL, MIDDLE, FULL = (2, 96), (4, 192), (6, 384)
MRR, STS = "MRR at 2 layers x 96", "Spearman on STS-B at 2 layers x 96"
MRR_FULL, SECONDS = "MRR at full size", "log2 of the CPU seconds to encode"
LADDER, MASKED, SAMPLED = "ladder (SRL)", "masked pre-training, then ladder", "2DMSE"
LONGER = "ladder, as many more steps"
SEPARATE, UNTRAINED, CUT, WHOLE = "trained alone", "cut, untrained", "cut of the trained model", "whole model"

CLAIMS = {
    "tiny": (
        Claim("A small cut of the ladder beats the same cut of the untrained model.", MRR, LADDER, UNTRAINED),
        Claim("The cut is faster than the whole model.", SECONDS, CUT, WHOLE, 0.0, False),
    ),
    "laptop": (
        Claim("A small cut of the ladder beats the same cut of the untrained model.", MRR, LADDER, UNTRAINED),
        Claim("So it does on graded similarity.", STS, LADDER, UNTRAINED),
        Claim("It beats the same cut after training sampled sizes (2DMSE).", MRR, LADDER, SAMPLED),
        Claim("So it does on graded similarity.", STS, LADDER, SAMPLED),
        Claim("It is as good as a small model trained alone (within one point).", MRR, LADDER, SEPARATE, -0.01),
        Claim("Masked pre-training lifts the small cut further.", MRR, MASKED, LADDER),
        Claim("It lifts it more than as many more steps of the ladder.", MRR, MASKED, LONGER),
        Claim("The full size pays at most one point.", MRR_FULL, LADDER, SEPARATE, -0.01),
        Claim("The cut encodes at least twice as fast as the whole model.", SECONDS, CUT, WHOLE, 1.0, False),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps, batches and rates in all arms but `LONGER`, whose further steps see as many texts as masked
    pre-training does; a seed draws the pairs, their order, the masks and the sampled sizes."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from isometry.encoders.text import Ladder, truncate
    from isometry.training.losses import LadderLoss, MaskedAutoencoderLoss, SampledSizeLoss

    tiny = scale == "tiny"
    size, steps, masked_steps, pictures, held, graded_rows = (
        (8, 4, 0, 60, 80, 40) if tiny else (24, 40, 40, 800, 400, 300)
    )
    ladder = Ladder.of(SMALL, MIDDLE, FULL)
    test, sts = short_pairs(data, "test", held, 0), graded(data, "test", graded_rows)
    arms = (LADDER,) if tiny else (LADDER, SAMPLED, SEPARATE, MASKED, LONGER)
    tick = Ticker(progress, len(seeds) * (steps * (len(arms) + (SEPARATE in arms)) + 2 * masked_steps))
    untrained = exit_scores(student(6), test, sts, [SMALL, MIDDLE, FULL])
    values: dict[str, dict[str, list[float]]] = {
        MRR: {UNTRAINED: [untrained[SMALL][0]]},
        STS: {UNTRAINED: [untrained[SMALL][1]]},
        MRR_FULL: {UNTRAINED: [untrained[FULL][0]]},
    }
    measured = {f"untrained_mrr_{n}x{d}": untrained[n, d][0] for n, d in untrained}

    def trained(model: Any, loss: Any, seed: int, more: int = 0) -> Any:
        pairs = short_pairs(data, "train", pictures, seed)
        return fit(model, loss, batches(pairs, size, seed), steps + more, seed, 2e-4, tick=tick)

    def pretrained(seed: int) -> Any:
        model, texts = student(6), [text for column in short_pairs(data, "train", 3000, seed) for text in column]
        loss = MaskedAutoencoderLoss(model, ladder, seed=seed)
        return fit(model, loss, batches([texts], 2 * size, seed), masked_steps, seed, texts=1, tick=tick)

    def keep(arm: str, scores: dict[tuple[int, int], tuple[float, float]]) -> None:
        for cell, metrics in ((SMALL, (MRR, STS)), (FULL, (MRR_FULL,))):
            for metric, score in zip(metrics, scores.get(cell, ()), strict=False):
                values[metric].setdefault(arm, []).append(score)

    middle: dict[str, list[float]] = {}
    for seed in seeds:
        for arm in arms:
            if arm == SEPARATE:
                for cell in (SMALL, FULL):
                    model = truncate(student(6), cell)
                    model = trained(model, MultipleNegativesRankingLoss(model), seed)
                    keep(arm, exit_scores(model, test, sts, [cell]))
                continue
            model = student(6, like=pretrained(seed) if arm == MASKED else None)
            base = MultipleNegativesRankingLoss(model)
            if arm == SAMPLED:
                loss: Any = SampledSizeLoss(model, base, widths=(24, 48, 96, 192), seed=seed)
            else:
                loss = LadderLoss(model, base, ladder)
            more = masked_steps if arm == LONGER else 0
            scores = exit_scores(trained(model, loss, seed, more), test, sts, [SMALL, MIDDLE, FULL])
            keep(arm, scores)
            middle.setdefault(arm, []).append(scores[MIDDLE][0])
    values[SECONDS] = _seconds(full_model(), truncate(full_model(), SMALL), test[0] + test[1], len(seeds))
    measured |= {f"mrr_4x192_{name}": float(np.mean(found)) for name, found in middle.items()}
    if not tiny:
        measured |= {f"mrr_full_{name}": float(np.mean(values[MRR_FULL][name])) for name in (SAMPLED, MASKED, LONGER)}
    speedups = [w - c for c, w in zip(values[SECONDS][CUT], values[SECONDS][WHOLE], strict=True)]
    measured["cut_is_faster_times"] = float(2 ** statistics.median(speedups))
    what = (
        f"Flickr8k descriptions of at most 9 words: {pictures} pairs to train, {len(test[0])} to test, "
        f"{len(sts[2])} pairs of STS-B; {steps} steps of {size} pairs, {masked_steps} of masked pre-training"
    )
    return Measurement(what, values, measured)


def _seconds(whole: Any, cut: Any, texts: list[str], repeats: int) -> dict[str, list[float]]:
    """log2 of CPU seconds per encoding of all texts, the two models in turn; one value per repeat."""
    found: dict[str, list[float]] = {WHOLE: [], CUT: []}
    cut.encode(texts[:32], show_progress_bar=False)
    for _ in range(repeats):
        for name, model in ((WHOLE, whole), (CUT, cut)):
            began = time.process_time()
            model.encode(texts, batch_size=64, show_progress_bar=False)
            found[name].append(float(np.log2(time.process_time() - began)))
    return found


RECIPE = Recipe(
    name="starbucks",
    paper=3,
    title="Starbucks: Improved Training for 2D Matryoshka Embeddings",
    claim="A fixed ladder of sizes, pre-trained and trained at once, matches small models trained alone and beats 2DMSE.",
    parts=(
        "isometry.training.losses.LadderLoss",
        "isometry.training.losses.MaskedAutoencoderLoss",
        "isometry.encoders.text.Ladder",
        "isometry.encoders.text.truncate",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 5},
    measure=measure,
)

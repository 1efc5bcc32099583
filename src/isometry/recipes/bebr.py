"""Binary embedding-based retrieval: learnt residual bits on frozen embeddings of picture descriptions.

Two descriptions of one picture are a pair. One asks, the other's code answers, by the cosine of two codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isometry.compression import RecurrentBinary, SignBinarizer
from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, captions, encode, full_model
from isometry.types import Progress

METRIC = "recall@10 of the other description"
BEBR, HASH, SIGNS, FLOAT = "BEBR, 64 x 2 bits", "learnt hash, 128 bits", "random signs, 128 bits", "float embedding"
CLAIM = (
    Claim("At equal bits residual bits beat one learnt sign layer.", METRIC, BEBR, HASH),
    Claim("At equal bits learnt bits beat signs along random directions.", METRIC, BEBR, SIGNS),
    Claim("Binary codes lose at most two points against the float embedding.", METRIC, BEBR, FLOAT, -0.02),
)
SIZES = {"tiny": (600, 200, 3), "laptop": (3000, 800, 12)}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    train, test, epochs = SIZES[scale]
    model, tick = full_model(), Ticker(progress, len(seeds) + 2)
    sides = []
    for split, count in (("train", train), ("test", test)):
        groups = captions(data, split, count, 0)
        sides.append([encode(model, [group[i] for group in groups]) for i in (0, 1)])
        tick()
    (x, y), (asked, held) = sides
    values: dict[str, list[float]] = {BEBR: [], HASH: [], SIGNS: [], FLOAT: []}
    for seed in seeds:
        for name, width, loops in ((BEBR, 64, 1), (HASH, 128, 0)):
            code = RecurrentBinary(
                width, loops=loops, hidden=512, epochs=epochs, batch_size=256, random_state=seed
            ).fit(x, y)
            values[name].append(_recall(code.symmetric_scorer(asked)(code.transform(held))))
        signs = SignBinarizer(128, random_state=seed).fit(y)
        bits = [np.unpackbits(signs.transform(side), axis=1).astype(np.float32) * 2 - 1 for side in (asked, held)]
        values[SIGNS].append(_recall(bits[0] @ bits[1].T))
        values[FLOAT].append(_recall(asked @ held.T))
        tick()
    what = (
        f"Flickr8k descriptions: {len(x)} pairs to train, {len(held)} to test, frozen embeddings of the bundled encoder"
    )
    return Measurement(what, {METRIC: values}, {"bytes_per_vector": 18.0, "float_bytes_per_vector": 4.0 * x.shape[1]})


def _recall(scores: np.ndarray, n: int = 10) -> float:
    """Share of queries whose own row is among the first n; ties count against it by half."""
    own = np.diag(scores)[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return float((rank < n).mean())


RECIPE = Recipe(
    name="bebr",
    paper=18,
    title="Binary Embedding-based Retrieval at Tencent",
    claim="Recurrent binary embeddings learnt from embeddings alone beat hashing at equal bits and come near floats.",
    parts=("isometry.compression.RecurrentBinary", "isometry.compression.SignBinarizer"),
    claims={"tiny": CLAIM, "laptop": CLAIM},
    seeds={"tiny": 3, "laptop": 5},
    measure=measure,
)

"""Paper 10: one model per task, merged at a place found by gradient on a small probe set, against joint training.

Two tasks of unequal size, finding the other description of a picture (8) and graded similarity (1), train a head over
the bundled encoder's first two layers, which stay frozen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, captions, graded
from isometry.types import Progress

BOTH = "mean of MRR and Spearman on STS-B"
POSITIONED, AVERAGE, SLERP, TIES = "self positioning", "average", "slerp, t = .5", "TIES"
TUNED, SINGLE = "slerp, best of a grid on the probe set", "best single model"
JOINT, EVEN = "joint training, 8 : 1", "joint training, resampled 1 : 1"

CLAIMS = {
    "tiny": (Claim("Merging at the found place beats the best single model.", BOTH, POSITIONED, SINGLE),),
    "laptop": (
        Claim("Merging at the found place beats the best single model.", BOTH, POSITIONED, SINGLE),
        Claim("It beats joint training on the data as they are.", BOTH, POSITIONED, JOINT),
        Claim(
            "It is as good as joint training on resampled data (within half a point).", BOTH, POSITIONED, EVEN, -0.005
        ),
        Claim("It beats the average.", BOTH, POSITIONED, AVERAGE),
        Claim("It beats slerp at one half.", BOTH, POSITIONED, SLERP),
        Claim("It beats TIES.", BOTH, POSITIONED, TIES),
        Claim("It saves the grid: as good as tuned slerp (within half a point).", BOTH, POSITIONED, TUNED, -0.005),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Joint training takes as many steps as the two tasks together. A seed draws rows, batches, probes and the head."""
    import torch

    from isometry.recipes._frozen import Head
    from isometry.training.merging import TaskVector, average, fold_slerp, self_position, slerp, task_matrix, ties

    tiny = scale == "tiny"
    steps, search = (30, 15) if tiny else (100, 60)
    tick = Ticker(progress, len(seeds) * (6 * steps + search))
    world = _World(data, tiny)
    values: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    for seed in seeds:
        tasks = _Tasks(world, seed, steps, tick)
        base = {name: value.clone() for name, value in Head(seed=seed).state_dict().items()}
        singles = [tasks.train(lambda step: False, steps), tasks.train(lambda step: True, steps)]
        vectors = [TaskVector.between(base, top.state_dict()) for top in singles]
        matrix = task_matrix(vectors)

        def placed(flat: Any, like: Any = vectors[0], start: Any = base, number: int = seed) -> Any:
            top = Head(seed=number)
            top.load_state_dict(like.unflatten(flat).apply(start))
            return top

        merged = Head(seed=seed)
        stacked = {name: torch.stack([vector.parts[name] for vector in vectors]) for name in base}
        probes = [functools.partial(tasks.probe, merged, step) for step in range(search)]
        position = self_position(merged, base, stacked, probes, learning_rate=1e-2)
        grid = [placed(slerp(matrix[0], matrix[1], t / 6)) for t in range(1, 6)]
        with torch.no_grad():
            losses = [sum(float(tasks.probe(top, step)) for step in range(search)) for top in grid]
        arms = {
            POSITIONED: merged,
            AVERAGE: placed(average(matrix)),
            SLERP: placed(fold_slerp(matrix)),
            TIES: placed(ties(matrix, keep=0.2)),
            TUNED: grid[int(np.argmin(losses))],
            JOINT: tasks.train(lambda step: step % 9 == 8, 2 * steps),
            EVEN: tasks.train(lambda step: step % 2 == 1, 2 * steps),
        }
        for name, top in arms.items():
            values.setdefault(name, []).append(world.judge(top))
        values.setdefault(SINGLE, []).append(max(world.judge(top) for top in singles))
        for name, figure in (
            ("task_vector_length_descriptions", vectors[0].norm()),
            ("task_vector_length_graded", vectors[1].norm()),
            ("task_vectors_cosine", vectors[0].cosine(vectors[1])),
            ("share_of_descriptions_found", position.shares[0] / sum(position.shares)),
            ("scale_found", position.scale),
        ):
            found.setdefault(name, []).append(figure)
    measured = {name: float(np.mean(figures)) for name, figures in found.items()}
    measured["untrained_mean_of_mrr_and_spearman"] = world.judge(torch.nn.Identity())
    what = (
        f"{world.count} pairs of Flickr8k descriptions and {world.count // 8} graded pairs of STS-B to train, "
        f"{len(world.asked)} pictures and {len(world.scores)} pairs to test; frozen 2-layer encoder with a trained head, "
        f"{steps} steps of 64 a task"
    )
    return Measurement(what, {BOTH: values}, measured)


class _World:
    """The texts as frozen states, and what a head over them is worth."""

    def __init__(self, data: Path | None, tiny: bool) -> None:
        import torch

        from isometry.recipes._frozen import layer_means

        self.pictures, held, self.rows, judged = (80, 60, 60, 60) if tiny else (900, 600, 450, 600)
        self.count = 256 if tiny else 2400
        groups, test = captions(data, "train", self.pictures, 0), captions(data, "test", held, 0)
        self.told = layer_means([text for group in groups for text in group], [2])[2]
        self.asked, self.known = (layer_means([group[i] for group in test], [2])[2] for i in (0, 1))
        left, right, scores = graded(data, "train", self.rows)
        self.graded = [layer_means(texts, [2])[2] for texts in (left, right)]
        self.target = torch.from_numpy(scores).float() / 5
        left, right, self.scores = graded(data, "test", judged)
        self.sts = [layer_means(texts, [2])[2] for texts in (left, right)]

    def judge(self, top: Any) -> float:
        """Mean of the retrieval's reciprocal rank and the graded pairs' rank correlation."""
        import torch
        from scipy.stats import spearmanr

        from isometry.recipes._frozen import head_mrr, unit

        with torch.no_grad():
            cosines = np.einsum("nd,nd->n", *(unit(top(states)) for states in self.sts))
        return float(head_mrr(top, self.asked, self.known) + spearmanr(cosines, self.scores).statistic) / 2


class _Tasks:
    """A seed's rows: 8 pairs of descriptions for each graded pair, and a balanced probe set apart from both."""

    def __init__(self, world: _World, seed: int, steps: int, tick: Ticker) -> None:
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        from isometry.training.losses import InfoNCE

        self.world, self.seed, self.tick = world, seed, tick
        self.info_nce, self.cosent = InfoNCE(), CoSENTLoss(None)
        rng = np.random.default_rng(seed)
        # The last sixth of the pictures and the last third of the graded pairs are for the probe set.
        self.trained = 5 * world.pictures // 6, 2 * world.rows // 3
        picture = rng.permutation(self.trained[0]).repeat(5)[: world.count]
        first = rng.integers(5, size=len(picture))
        second = (first + rng.integers(1, 5, size=len(picture))) % 5
        self.pairs = np.stack([5 * picture + first, 5 * picture + second])
        self.graded = rng.permutation(self.trained[1])[: world.count // 8]

    def describe(self, top: Any, rows: np.ndarray) -> Any:
        return self.info_nce.compute_loss_from_embeddings(
            [top(self.world.told[rows[0]]), top(self.world.told[rows[1]])]
        )

    def grade(self, top: Any, rows: np.ndarray) -> Any:
        from torch.nn import functional as F

        both = [F.normalize(top(states[rows]), dim=-1) for states in self.world.graded]
        return self.cosent.compute_loss_from_embeddings(both, self.world.target[rows])

    def train(self, is_graded: Callable[[int], bool], steps: int) -> Any:
        """A head trained on one task a step."""
        from isometry.recipes._frozen import Head, descend

        top, rng = Head(seed=self.seed), np.random.default_rng(self.seed + 1000)

        def loss(step: int) -> Any:
            if is_graded(step):
                return self.grade(top, rng.choice(self.graded, min(64, len(self.graded)), replace=False))
            return self.describe(top, self.pairs[:, rng.choice(self.pairs.shape[1], 64, replace=False)])

        descend([top], loss, steps, seed=self.seed, tick=self.tick)
        return top

    def probe(self, top: Any, step: int) -> Any:
        """Both tasks' losses on a batch of the probe set; always the same batch for a step."""
        rng = np.random.default_rng((self.seed, step))
        pictures = rng.choice(
            np.arange(self.trained[0], self.world.pictures), 12 if self.world.pictures < 100 else 32, False
        )
        places = rng.permuted(np.tile(np.arange(5), (len(pictures), 1)), axis=1)[:, :2].T
        rows = rng.choice(np.arange(self.trained[1], self.world.rows), min(32, self.world.rows // 3), replace=False)
        return self.describe(top, 5 * pictures + places) + self.grade(top, rows)


RECIPE = Recipe(
    name="self-positioning",
    paper=10,
    title="Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through Model Merging",
    claim="Training one model per task and merging them at a place learned on a small probe set beats joint training.",
    parts=(
        "isometry.training.merging.self_position",
        "isometry.training.merging.TaskVector",
        "isometry.training.merging.slerp",
        "isometry.training.merging.ties",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

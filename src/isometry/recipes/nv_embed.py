"""Paper 05: in-batch negatives off for class data, examples as positives, two stages, and latent attention.

All on the frozen first two layers of the bundled encoder under trained heads: questions in 6 classes (TREC), questions to
a bank in 77, and two descriptions of one picture; the whole encoder mines the negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker, captions
from isometry.types import Progress

PROBE, CLUSTERS = "accuracy of an 8-shot probe, TREC", "V-measure, 77 intents"
MRR, POOLED = "MRR of descriptions", "MRR of descriptions, pooling alone"
OFF, ON = "in-batch negatives off", "in-batch negatives on"
EXAMPLES, LABELS = "another example as positive", "the label's text as positive"
TWO, REVERSED, SINGLE = "retrieval, then all blended", "the stages reversed", "one stage, all blended"
LATENT, MEAN = "latent attention", "mean and head"
LENGTH = 20
"""Tokens of a description that latent attention reads."""

CLAIMS = {
    "tiny": (Claim("Class data are better trained without in-batch negatives.", PROBE, OFF, ON),),
    "laptop": (
        Claim("Class data are better trained without in-batch negatives.", PROBE, OFF, ON),
        Claim("Retrieval data are better trained with them.", MRR, ON, OFF),
        Claim("Another example of the class is a better positive than the label's text.", CLUSTERS, EXAMPLES, LABELS),
        Claim("Retrieval first, then all tasks: better retrieval than the reverse.", MRR, TWO, REVERSED),
        Claim("It costs the classes nothing (within one point).", PROBE, TWO, REVERSED, -0.01),
        Claim("Latent attention pools better than the mean.", POOLED, LATENT, MEAN),
    ),
}


@dataclass(frozen=True)
class _Sizes:
    """Rows of class data to train and to test on, pictures likewise, steps of so many rows."""

    rows: int
    held: int
    pictures: int
    found: int
    steps: int
    size: int


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps in all arms of a claim; a seed draws rows, negatives, batches, probes and weights."""
    import torch

    from isometry.recipes._frozen import head_mrr, unit

    tiny = scale == "tiny"
    sizes = _Sizes(200, 120, 0, 0, 30, 32) if tiny else _Sizes(1500, 500, 1500, 1000, 120, 48)
    world = _World.of(data, sizes, tiny)
    tick = Ticker(progress, len(seeds) * sizes.steps * (2 if tiny else 14))
    values: dict[str, dict[str, list[float]]] = {name: {} for name in (PROBE, CLUSTERS, MRR, POOLED)}
    for seed in seeds:
        arms = _Arms(world, sizes, seed, tick)
        for metric, arm, value in arms.of_classes() if tiny else arms.all():
            values[metric].setdefault(arm, []).append(value)
    identity = torch.nn.Identity()
    measured = {"untrained_probe_accuracy": float(np.mean([world.probe(identity, seed) for seed in seeds]))}
    if not tiny:
        intents = world.classes["banking77"]
        measured["untrained_mrr"] = head_mrr(identity, world.asked, world.known)
        measured["untrained_v_measure"] = _v_measure(unit(world.states_of(intents[2])), intents[3], 0)
        measured |= {
            "one_stage_mrr": float(np.mean(values[MRR][SINGLE])),
            "one_stage_probe": float(np.mean(values[PROBE][SINGLE])),
        }
    what = (
        f"TREC questions and banking77 ({sizes.rows} texts to train, {sizes.held} to test each) and {sizes.pictures} "
        f"pictures' Flickr8k descriptions ({sizes.found} to test); frozen 2-layer encoder, {sizes.steps} steps of "
        f"{sizes.size} rows with 3 negatives a stage"
    )
    return Measurement(what, {metric: arms for metric, arms in values.items() if arms}, measured)


@dataclass(frozen=True)
class _World:
    """The data, and what the frozen encoder says of them.

    Attributes:
        classes: data set to texts and labels to train and to test on.
        state: text of these to its state.
        described, guide: training descriptions by layer 2 and by the whole encoder, five a picture.
        asked, known: two descriptions of each test picture.
        texts: those descriptions, to be read token by token.
    """

    classes: dict[str, tuple[list[str], list[str], list[str], list[str]]]
    state: dict[str, Any]
    described: Any
    guide: np.ndarray
    asked: Any
    known: Any
    texts: tuple[list[str], list[str], list[str]]

    @classmethod
    def of(cls, data: Path | None, sizes: _Sizes, tiny: bool) -> _World:
        from isometry.recipes._frozen import layer_means, unit

        names = ("trec-questions",) if tiny else ("trec-questions", "banking77")
        classes = {name: _classes(data, name, sizes.rows, sizes.held) for name in names}
        state: dict[str, Any] = {}
        for texts, labels, judged, _ in classes.values():
            every = list(dict.fromkeys([*texts, *judged, *map(_words, labels)]))
            state |= dict(zip(every, layer_means(every, [2])[2], strict=True))
        groups = captions(data, "train", max(sizes.pictures, 2), 0)
        test = captions(data, "test", max(sizes.found, 2), 0)
        described = [text for group in groups for text in group]
        layers = layer_means(described)
        sides = [[group[i] for group in test] for i in (0, 1)]
        asked, known = (layer_means(side, [2])[2] for side in sides)
        return cls(classes, state, layers[2], unit(layers[6]), asked, known, (described, sides[0], sides[1]))

    @cached_property
    def tokens(self) -> list[tuple[Any, Any]]:
        """Token states and mask of the training descriptions and of both test sides."""
        from isometry.recipes._frozen import token_states

        return [token_states(texts, 2, LENGTH) for texts in self.texts]

    def states_of(self, texts: Sequence[str]) -> Any:
        import torch

        return torch.stack([self.state[text] for text in texts])

    def probe(self, head: Any, seed: int) -> float:
        import torch

        from isometry.recipes._frozen import unit

        texts, labels, judged, truth = self.classes["trec-questions"]
        with torch.no_grad():
            shots, asked = (unit(head(self.states_of(side))) for side in (texts, judged))
        return _probe(shots, labels, asked, truth, seed)


class _Arms:
    """All that one seed trains; the methods `of_…` give (metric, arm, value)."""

    def __init__(self, world: _World, sizes: _Sizes, seed: int, tick: Ticker) -> None:
        from isometry.training.losses import InfoNCE
        from isometry.training.stages import class_triplets

        self.world, self.sizes, self.seed, self.tick = world, sizes, seed, tick
        self.shared, self.own = InfoNCE(), InfoNCE(in_batch=False, hard="own")
        self.draws: dict[str, Callable[[], list[Any]]] = {}
        for name, (texts, labels, _, _) in world.classes.items():
            for positives in ("example", "label"):
                columns = class_triplets(texts, [_words(label) for label in labels], 3, positives, seed)
                states = [world.states_of(column) for column in columns.values()]
                self.draws[f"{name} {positives}"] = _drawn(states, sizes.size, seed)

    def all(self) -> Iterator[tuple[str, str, float]]:
        yield from self.of_classes()
        yield from self.of_positives()
        asks, answers = self._draw_pairs()
        yield from self.of_pairs()
        yield from self.of_pooling(asks, answers)

    def train(self, plan: Sequence[tuple[str, Any, int]]) -> Any:
        """A head through stages: (data, loss, steps); several data names joined by + take turns."""
        from isometry.recipes._frozen import Head, descend

        head = Head(seed=self.seed)
        for names, loss, many in plan:
            turns = names.split("+")

            def of_step(step: int, turns: list[str] = turns, loss: Any = loss) -> Any:
                return loss.compute_loss_from_embeddings([head(x) for x in self.draws[turns[step % len(turns)]]()])

            descend([head], of_step, many, seed=self.seed, tick=self.tick)
        return head

    def of_classes(self) -> Iterator[tuple[str, str, float]]:
        for arm, loss in ((OFF, self.own), (ON, self.shared)):
            head = self.train([("trec-questions example", loss, self.sizes.steps)])
            yield PROBE, arm, self.world.probe(head, self.seed)

    def of_positives(self) -> Iterator[tuple[str, str, float]]:
        import torch

        from isometry.recipes._frozen import unit

        _, _, judged, truth = self.world.classes["banking77"]
        for arm, name in ((EXAMPLES, "banking77 example"), (LABELS, "banking77 label")):
            head = self.train([(name, self.own, self.sizes.steps)])
            with torch.no_grad():
                vectors = unit(head(self.world.states_of(judged)))
            yield CLUSTERS, arm, _v_measure(vectors, truth, self.seed)

    def of_pairs(self) -> Iterator[tuple[str, str, float]]:
        from isometry.recipes._frozen import head_mrr

        steps, world = self.sizes.steps, self.world
        for arm, loss in ((ON, self.shared), (OFF, self.own)):
            yield MRR, arm, head_mrr(self.train([("pairs", loss, steps)]), world.asked, world.known)
        blend = "pairs+trec-questions example"
        for arm, plan in (
            (TWO, [("pairs", self.shared, steps), (blend, self.own, steps)]),
            (REVERSED, [(blend, self.own, steps), ("pairs", self.shared, steps)]),
            (SINGLE, [(blend, self.own, 2 * steps)]),
        ):
            head = self.train(plan)
            yield MRR, arm, head_mrr(head, world.asked, world.known)
            yield PROBE, arm, world.probe(head, self.seed)
        yield POOLED, MEAN, head_mrr(self.train([("pairs alone", self.shared, steps)]), world.asked, world.known)

    def of_pooling(self, asks: np.ndarray, answers: np.ndarray) -> Iterator[tuple[str, str, float]]:
        import torch

        from isometry.encoders.text import AttentionPooling
        from isometry.recipes._frozen import brain_floats, descend, head_mrr

        torch.manual_seed(self.seed)
        pooler = AttentionPooling(384, "tokens", latents=32, heads=6, feed_forward=1, zero_init=True)
        draw = np.random.default_rng(self.seed)
        (tokens, mask), *judged = self.world.tokens

        def pool(states: Any, real: Any) -> Any:
            with brain_floats():
                return pooler({"token_embeddings": states, "attention_mask": real})["sentence_embedding"].float()

        def of_step(step: int) -> Any:
            chosen = draw.choice(self.sizes.pictures, self.sizes.size, replace=False)
            found = [pool(tokens[column[chosen]], mask[column[chosen]]) for column in (asks, answers)]
            return self.shared.compute_loss_from_embeddings(found)

        descend([pooler], of_step, self.sizes.steps, 3e-4, self.seed, self.tick)
        with torch.no_grad():
            sides = [pool(*side) for side in judged]
        yield POOLED, LATENT, head_mrr(torch.nn.Identity(), *sides)

    def _draw_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Two descriptions of every picture, with mined negatives and without, to be drawn from."""
        from isometry.training import MarginRule
        from isometry.training.negatives import mine_negatives

        pictures, world, rng = self.sizes.pictures, self.world, np.random.default_rng(self.seed)
        places = rng.permuted(np.tile(np.arange(5), (pictures, 1)), axis=1)[:, :2] + 5 * np.arange(pictures)[:, None]
        asks, answers = places.T
        mined = mine_negatives(
            world.guide[asks],
            world.guide[answers],
            np.arange(pictures)[:, None].tolist(),
            3,
            rule=MarginRule("relative", 0.05),
            seed=self.seed,
        )
        columns = [world.described[column] for column in (asks, answers, *answers[mined.rows].T)]
        self.draws["pairs"] = _drawn(columns, self.sizes.size, self.seed)
        self.draws["pairs alone"] = _drawn(columns[:2], self.sizes.size, self.seed)
        return asks, answers


def _words(label: str) -> str:
    return label.replace("_", " ")


def _classes(
    data: Path | None, dataset: str, rows: int, held: int
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Texts and labels to train and to test on, drawn once."""
    import pyarrow.parquet as pq

    found: list[list[str]] = []
    for split, count in (("train", rows), ("test", held)):
        where = [("dataset", "=", dataset), ("split", "=", split)]
        table = pq.read_table(find_data("text/classification.parquet", data), filters=where)
        order = np.random.default_rng(0).permutation(len(table))[:count]
        found += [[table[name][int(i)].as_py() for i in order] for name in ("text", "label")]
    return found[0], found[1], found[2], found[3]


def _drawn(columns: list[Any], size: int, seed: int) -> Callable[[], list[Any]]:
    """A function that gives the next batch of every column."""
    draw = np.random.default_rng(seed)

    def take() -> list[Any]:
        rows = draw.choice(len(columns[0]), min(size, len(columns[0])), replace=False)
        return [column[rows] for column in columns]

    return take


def _probe(
    vectors: np.ndarray, labels: list[str], judged: np.ndarray, truth: list[str], seed: int, draws: int = 5
) -> float:
    """Accuracy of logistic regression on 8 texts a class, mean of `draws` draws."""
    from sklearn.linear_model import LogisticRegression

    rng, names, scores = np.random.default_rng(seed), np.array(labels), []
    for _ in range(draws):
        shots = np.concatenate([rng.permutation(np.flatnonzero(names == name))[:8] for name in np.unique(names)])
        model = LogisticRegression(C=10.0, max_iter=300).fit(vectors[shots], names[shots])
        scores.append(float((model.predict(judged) == np.array(truth)).mean()))
    return float(np.mean(scores))


def _v_measure(vectors: np.ndarray, truth: list[str], seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    guess = KMeans(len(set(truth)), n_init=1, random_state=seed).fit_predict(vectors)
    return float(v_measure_score(truth, guess))


RECIPE = Recipe(
    name="nv-embed",
    paper=5,
    title="NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models",
    claim="Latent attention, two stages, no in-batch negatives for class data and mined negatives make a generalist encoder.",
    parts=(
        "isometry.training.losses.InfoNCE",
        "isometry.training.stages.class_triplets",
        "isometry.training.negatives.mine_negatives",
        "isometry.encoders.text.AttentionPooling",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

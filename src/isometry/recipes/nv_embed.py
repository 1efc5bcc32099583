"""Paper 05: in-batch negatives off for class data, examples as positives, two stages, and latent attention.

All on the frozen first two layers of the bundled encoder under trained heads: questions in 6 classes (TREC), questions to
a bank in 77, and two descriptions of one picture; the whole encoder mines the negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps in all arms of a claim; a seed draws rows, negatives, batches, probes and weights."""
    import torch

    from isometry.encoders.text import AttentionPooling
    from isometry.recipes._frozen import Head, brain_floats, descend, head_mrr, layer_means, token_states, unit
    from isometry.training import MarginRule
    from isometry.training.losses import InfoNCE
    from isometry.training.negatives import mine_negatives
    from isometry.training.stages import class_triplets

    tiny = scale == "tiny"
    rows, held, pictures, found, steps, size, length = (
        (200, 120, 0, 0, 30, 32, 16) if tiny else (1500, 500, 1500, 1000, 120, 48, 20)
    )
    world: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
        "trec-questions": _classes(data, "trec-questions", rows, held)
    }
    if not tiny:
        world["banking77"] = _classes(data, "banking77", rows, held)
    state: dict[str, Any] = {}
    for texts, labels, judged, _ in world.values():
        every = list(dict.fromkeys([*texts, *judged, *map(_words, labels)]))
        state |= dict(zip(every, layer_means(every, [2])[2], strict=True))
    groups, test = captions(data, "train", max(pictures, 2), 0), captions(data, "test", max(found, 2), 0)
    layers = layer_means([text for group in groups for text in group])
    described, guide = layers[2], unit(layers[6])
    asked, known = (layer_means([group[i] for group in test], [2])[2] for i in (0, 1))
    tick = Ticker(progress, len(seeds) * steps * (2 if tiny else 14))
    values: dict[str, dict[str, list[float]]] = {name: {} for name in (PROBE, CLUSTERS, MRR, POOLED)}

    def states_of(texts: Sequence[str]) -> Any:
        return torch.stack([state[text] for text in texts])

    def keep(metric: str, arm: str, value: float) -> None:
        values[metric].setdefault(arm, []).append(value)

    def probe(head: Any, seed: int) -> float:
        texts, labels, judged, truth = world["trec-questions"]
        with torch.no_grad():
            return _probe(unit(head(states_of(texts))), labels, unit(head(states_of(judged))), truth, seed)

    if not tiny:
        tokens, mask = token_states([text for group in groups for text in group], 2, length)
        judged_tokens = [token_states([group[i] for group in test], 2, length) for i in (0, 1)]
    for seed in seeds:
        rng = np.random.default_rng(seed)
        own = InfoNCE(in_batch=False, hard="own")
        draws: dict[str, Callable[[], list[Any]]] = {}
        for name, (texts, labels, _, _) in world.items():
            for positives in ("example", "label"):
                columns = class_triplets(texts, [_words(label) for label in labels], 3, positives, seed)
                draws[f"{name} {positives}"] = _drawn([states_of(column) for column in columns.values()], size, seed)

        def train(plan: Sequence[tuple[str, Any, int]], number: int = seed, from_: dict[str, Any] = draws) -> Any:
            """A head through stages: (data, loss, steps); several data names joined by + take turns."""
            head = Head(seed=number)
            for names, loss, many in plan:
                turns = names.split("+")

                def of_step(step: int, turns: list[str] = turns, loss: Any = loss) -> Any:
                    return loss.compute_loss_from_embeddings([head(x) for x in from_[turns[step % len(turns)]]()])

                descend([head], of_step, many, seed=number, tick=tick)
            return head

        for arm, loss in ((OFF, own), (ON, InfoNCE())):
            keep(PROBE, arm, probe(train([("trec-questions example", loss, steps)]), seed))
        if tiny:
            continue
        texts, _, judged, truth = world["banking77"]
        for arm, name in ((EXAMPLES, "banking77 example"), (LABELS, "banking77 label")):
            head = train([(name, own, steps)])
            with torch.no_grad():
                keep(CLUSTERS, arm, _v_measure(unit(head(states_of(judged))), truth, seed))
        places = rng.permuted(np.tile(np.arange(5), (pictures, 1)), axis=1)[:, :2] + 5 * np.arange(pictures)[:, None]
        asks, answers = places.T
        mined = mine_negatives(
            guide[asks],
            guide[answers],
            np.arange(pictures)[:, None].tolist(),
            3,
            rule=MarginRule("relative", 0.05),
            seed=seed,
        )
        columns_of = [asks, answers, *answers[mined.rows].T]
        draws["pairs"] = _drawn([described[column] for column in columns_of], size, seed)
        draws["pairs alone"] = _drawn([described[column] for column in columns_of[:2]], size, seed)
        for arm, loss in ((ON, InfoNCE()), (OFF, own)):
            keep(MRR, arm, head_mrr(train([("pairs", loss, steps)]), asked, known))
        blend = "pairs+trec-questions example"
        for arm, plan in (
            (TWO, [("pairs", InfoNCE(), steps), (blend, own, steps)]),
            (REVERSED, [(blend, own, steps), ("pairs", InfoNCE(), steps)]),
            (SINGLE, [(blend, own, 2 * steps)]),
        ):
            head = train(plan)
            keep(MRR, arm, head_mrr(head, asked, known))
            keep(PROBE, arm, probe(head, seed))
        keep(POOLED, MEAN, head_mrr(train([("pairs alone", InfoNCE(), steps)]), asked, known))
        torch.manual_seed(seed)
        pooler = AttentionPooling(384, "tokens", latents=32, heads=6, feed_forward=1, zero_init=True)
        draw, loss = np.random.default_rng(seed), InfoNCE()

        def pool(states: Any, real: Any, top: Any = pooler) -> Any:
            with brain_floats():
                return top({"token_embeddings": states, "attention_mask": real})["sentence_embedding"].float()

        def of_pairs(step: int, draw: Any = draw, columns: Any = columns_of, loss: Any = loss, pool: Any = pool) -> Any:
            chosen = draw.choice(pictures, size, replace=False)
            return loss.compute_loss_from_embeddings([pool(tokens[c[chosen]], mask[c[chosen]]) for c in columns[:2]])

        descend([pooler], of_pairs, steps, 3e-4, seed, tick)
        with torch.no_grad():
            sides = [pool(*side) for side in judged_tokens]
        keep(POOLED, LATENT, head_mrr(torch.nn.Identity(), *sides))
    identity = torch.nn.Identity()
    measured = {"untrained_probe_accuracy": float(np.mean([probe(identity, seed) for seed in seeds]))}
    if not tiny:
        measured["untrained_mrr"] = head_mrr(identity, asked, known)
        measured["untrained_v_measure"] = _v_measure(unit(states_of(world["banking77"][2])), world["banking77"][3], 0)
        measured |= {
            "one_stage_mrr": float(np.mean(values[MRR][SINGLE])),
            "one_stage_probe": float(np.mean(values[PROBE][SINGLE])),
        }
    what = (
        f"TREC questions and banking77 ({rows} texts to train, {held} to test each) and {pictures} pictures' Flickr8k "
        f"descriptions ({found} to test); frozen 2-layer encoder, {steps} steps of {size} rows with 3 negatives a stage"
    )
    return Measurement(what, {metric: arms for metric, arms in values.items() if arms}, measured)


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

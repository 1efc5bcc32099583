"""Paper 02: which pooling, and which attention mask, all else equal.

Part one trains poolers on the states of the frozen bundled encoder. Part two trains small decoders from nothing, causal
or bidirectional. Pairs are two descriptions of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._text import Ticker, captions, graded
from isometry.types import Progress

MRR, STS, SCRATCH = "MRR, frozen encoder", "Spearman on STS-B, frozen encoder", "MRR, small decoder from nothing"
MEAN, LAST, SCALARS = "mean and head", "last token and head", "weighted layers and head"
LATENT, MULTI = "attention over the last layer", "attention over all layers"
M1, M3, M5 = "last token, causal", "all layers, causal", "all layers, bidirectional"

CLAIMS = {
    "tiny": (Claim("Trained pooling over all layers beats the last token.", MRR, MULTI, LAST),),
    "laptop": (
        Claim("Trained pooling over all layers beats trained pooling over the last.", MRR, MULTI, LATENT),
        Claim("Trained pooling over the last layer beats the mean.", MRR, LATENT, MEAN),
        Claim("Trained pooling over all layers beats the mean.", MRR, MULTI, MEAN),
        Claim("So it does on graded similarity.", STS, MULTI, MEAN),
        Claim("Trained pooling over all layers beats one weight a layer.", MRR, MULTI, SCALARS),
        Claim("Bidirectional attention beats causal in retrieval.", SCRATCH, M5, M3),
        Claim("In a causal model, pooling over all layers beats the last token.", SCRATCH, M3, M1),
    ),
}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and batches in all arms of a part; a seed draws the batches and every weight that is trained."""
    from isometry.recipes._frozen import unit
    from isometry.recipes._text import reciprocal_ranks

    tiny = scale == "tiny"
    pictures, held, judged, steps, size = (60, 60, 40, 30, 24) if tiny else (1500, 1000, 600, 150, 48)
    arms = (MULTI, LAST) if tiny else (MEAN, LAST, SCALARS, LATENT, MULTI)
    groups, test, sts = (
        captions(data, "train", pictures, 0),
        captions(data, "test", held, 0),
        graded(data, "test", judged),
    )
    texts = {
        "train": [text for group in groups for text in group],
        "test": [group[i] for i in (0, 1) for group in test],
        "sts": [*sts[0], *sts[1]],
    }
    states = _States.of(texts, tokens=("train", "test") if tiny else ("train", "test", "sts"))
    decoders = 0 if tiny else 100
    tick = Ticker(progress, len(seeds) * (len(arms) * steps + 3 * decoders))
    values: dict[str, dict[str, list[float]]] = {MRR: {}, STS: {}, SCRATCH: {}}
    for seed in seeds:
        for arm in arms:
            top = _trained(arm, states, pictures, steps, size, seed, tick)
            values[MRR].setdefault(arm, []).append(float(reciprocal_ranks(*states.sides(arm, top, "test")).mean()))
            if not tiny:
                first, second = states.sides(arm, top, "sts")
                values[STS].setdefault(arm, []).append(_spearman(first, second, sts[2]))
        for arm in () if tiny else (M1, M3, M5):
            values[SCRATCH].setdefault(arm, []).append(_decoder(arm, texts, seed, decoders, tick))
    plain = unit(states.layers["test"][:, 5])
    measured = {"untrained_mean_mrr": float(reciprocal_ranks(*np.split(plain, 2)).mean())}
    if not tiny:
        measured["last_token_mrr"] = float(np.mean(values[MRR][LAST]))
        first, second = np.split(unit(states.layers["sts"][:, 5]), 2)
        measured["untrained_mean_spearman"] = _spearman(first, second, sts[2])
    what = (
        f"Flickr8k descriptions: {pictures} pictures to train, {held} to test, {judged} pairs of STS-B; poolers on the "
        f"frozen 6-layer encoder, {steps} steps of {size} pairs; decoders of 3 layers x 96 from nothing, {decoders} steps"
    )
    return Measurement(what, {metric: found for metric, found in values.items() if found}, measured)


@dataclass(frozen=True)
class _States:
    """What the frozen encoder says of each set of texts.

    Attributes:
        layers: mean of every layer `(n, 6, 384)`.
        tokens, masks: of the last layer, `(n, t, 384)` and `(n, t)`.
    """

    layers: dict[str, Any]
    tokens: dict[str, Any]
    masks: dict[str, Any]

    @classmethod
    def of(cls, texts: dict[str, list[str]], tokens: Sequence[str]) -> _States:
        import torch

        from isometry.recipes._frozen import layer_means, token_states

        states = cls({}, {}, {})
        for name, rows in texts.items():
            found = layer_means(rows, range(1, 7))
            states.layers[name] = torch.stack([found[n] for n in range(1, 7)], dim=1)
            if name in tokens:
                length = 24 if name != "sts" else 40
                states.tokens[name], states.masks[name] = token_states(rows, length=length)
        return states

    def vectors(self, arm: str, top: Any, name: str, rows: Any) -> Any:
        """Rows of a set through an arm's pooler."""
        from isometry.encoders.text import last_token_pool

        if arm == LATENT:
            features = {"token_embeddings": self.tokens[name][rows], "attention_mask": self.masks[name][rows]}
            return top(features)["sentence_embedding"]
        if arm == LAST:
            return top(last_token_pool(self.tokens[name][rows], self.masks[name][rows]))
        if arm == MULTI:
            return top.pool(self.layers[name][rows])
        return top(self.layers[name][rows] if arm == SCALARS else self.layers[name][rows, 5])

    def sides(self, arm: str, top: Any, name: str) -> list[np.ndarray]:
        """Unit vectors of the first half of a set and of the second."""
        import torch

        from isometry.recipes._frozen import unit

        with torch.no_grad():
            parts = torch.arange(len(self.layers[name])).split(200)
            return np.split(unit(torch.cat([self.vectors(arm, top, name, part) for part in parts])), 2)


def _pooler(arm: str, seed: int) -> Any:
    import torch
    from torch import nn

    from isometry.encoders.text import AttentionPooling, MultiLayerPooling
    from isometry.recipes._frozen import Head

    class Scalars(nn.Module):
        """One weight a layer, and the head."""

        def __init__(self) -> None:
            super().__init__()
            self.weights, self.head = nn.Parameter(torch.zeros(6)), Head(seed=seed)

        def forward(self, means: Any) -> Any:
            return self.head(torch.einsum("l,bld->bd", torch.softmax(self.weights, 0), means))

    torch.manual_seed(seed)
    if arm == SCALARS:
        return Scalars()
    if arm == LATENT:
        return AttentionPooling(384, "latents", latents=4, heads=6, feed_forward=1)
    if arm == MULTI:
        return MultiLayerPooling(384, 6, latents=4, heads=6, feed_forward=1)
    return Head(seed=seed)


def _trained(arm: str, states: _States, pictures: int, steps: int, size: int, seed: int, tick: Ticker) -> Any:
    """An arm's pooler after `steps` batches of two of a picture's five descriptions."""
    import torch

    from isometry.recipes._frozen import brain_floats, descend
    from isometry.training.losses import InfoNCE

    top, rng, loss = _pooler(arm, seed), np.random.default_rng(seed), InfoNCE()

    def of_batch(step: int) -> Any:
        rows = 5 * rng.permutation(pictures)[:size] + rng.permuted(np.tile(np.arange(5), (size, 1)), axis=1)[:, :2].T
        with brain_floats():
            found = [states.vectors(arm, top, "train", torch.from_numpy(row)).float() for row in rows]
        return loss.compute_loss_from_embeddings(found)

    descend([top], of_batch, steps, seed=seed, tick=tick)
    return top


def _spearman(left: np.ndarray, right: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(np.einsum("nd,nd->n", left, right), scores).statistic)


def _decoder(arm: str, texts: dict[str, list[str]], seed: int, steps: int, tick: Ticker) -> float:
    """MRR of a small Qwen2 decoder over the words of the training texts, trained from nothing."""
    import torch
    from transformers import Qwen2Config, Qwen2Model

    from isometry.encoders.text import MultiLayerPooling, last_token_pool, set_attention_mode
    from isometry.recipes._frozen import brain_floats, descend, unit
    from isometry.recipes._text import reciprocal_ranks
    from isometry.training.losses import InfoNCE

    words = sorted({word for text in texts["train"] for word in text.lower().split()})
    number = {word: i + 3 for i, word in enumerate(words)}  # 0 padding, 1 unknown, 2 end
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(words) + 3,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = Qwen2Model(config)
    set_attention_mode(model, "bidirectional" if arm == M5 else "causal")
    summary: Any = "mean" if arm == M5 else "last_token"
    pooler = MultiLayerPooling(96, 3, summary, latents=4, heads=4, feed_forward=1)

    def embed(rows: Sequence[str]) -> Any:
        ids = torch.zeros(len(rows), 20, dtype=torch.long)
        for i, text in enumerate(rows):
            found = [*(number.get(word, 1) for word in text.lower().split()[:19]), 2]
            ids[i, : len(found)] = torch.tensor(found)
        mask = (ids > 0).long()
        with brain_floats():
            states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            if arm == M1:
                return last_token_pool(states[-1], mask).float()
            return pooler.pool(pooler.summarise(states[1:], mask)).float()

    rng, loss = np.random.default_rng(seed), InfoNCE()
    pictures = len(texts["train"]) // 5

    def of_batch(step: int) -> Any:
        rows = 5 * rng.permutation(pictures)[:48] + rng.permuted(np.tile(np.arange(5), (48, 1)), axis=1)[:, :2].T
        return loss.compute_loss_from_embeddings([embed([texts["train"][i] for i in row]) for row in rows])

    descend([model, pooler], of_batch, steps, 2e-3, seed, tick)
    with torch.no_grad():
        rows = texts["test"]
        found = unit(torch.cat([embed(rows[i : i + 200]) for i in range(0, len(rows), 200)]))
    return float(reciprocal_ranks(*np.split(found, 2)).mean())


RECIPE = Recipe(
    name="pooling",
    paper=2,
    title="Pooling And Attention: What Are Effective Designs For LLM-Based Embedding Models?",
    claim="Trained pooling over all layers with bidirectional attention is the best design for retrieval and similarity.",
    parts=(
        "isometry.encoders.text.MultiLayerPooling",
        "isometry.encoders.text.AttentionPooling",
        "isometry.encoders.text.set_attention_mode",
        "isometry.training.losses.InfoNCE",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

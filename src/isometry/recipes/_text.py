"""What the text recipes share: real short texts, small students cut from the bundled encoder, a plain training loop."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.recipes._data import find_data
from isometry.types import Progress

CAPTIONS, STSB = "images/flickr8k-captions.parquet", "text/stsb.parquet"


class Ticker:
    """Counts a recipe's steps for its progress callable; a False from it stops the recipe."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None and self.progress(self.done, self.total) is False:
            raise KeyboardInterrupt


@functools.lru_cache(maxsize=1)
def full_model() -> Any:
    """The bundled encoder, loaded once; callers copy it before they change it."""
    from isometry.training import load_model

    return load_model("default").to("cpu")


def student(layers: int, dimensions: int = 384, like: Any = None) -> Any:
    """The first layers of a model (default the bundled encoder), as one of its own; token embeddings stay fixed, they
    are half of it."""
    from isometry.encoders.text import truncate

    model = like or full_model()
    model = copy.deepcopy(model) if layers == 6 and dimensions == 384 else truncate(model, (layers, dimensions))
    model.max_seq_length = 32
    model[0].auto_model.embeddings.requires_grad_(False)
    return model


def captions(data: Path | None, split: str, images: int, seed: int) -> list[list[str]]:
    """Five descriptions each of `images` pictures, drawn by seed; Flickr8k, people's sentences of about ten words."""
    import pyarrow.parquet as pq

    table = pq.read_table(find_data(CAPTIONS, data), filters=[("split", "=", split)])
    groups: dict[str, list[str]] = {}
    for image, text in zip(table["image"].to_pylist(), table["caption"].to_pylist(), strict=True):
        groups.setdefault(image, []).append(text.strip())
    whole = [texts for texts in groups.values() if len(set(texts)) == 5]
    order = np.random.default_rng(seed).permutation(len(whole))[:images]
    return [whole[i] for i in order]


def graded(
    data: Path | None, split: str, rows: int | None = None, seed: int = 0
) -> tuple[list[str], list[str], np.ndarray]:
    """STS-B sentence pairs with scores of 0 to 5."""
    import pyarrow.parquet as pq

    table = pq.read_table(find_data(STSB, data), filters=[("split", "=", split)])
    order = np.random.default_rng(seed).permutation(len(table))[:rows]
    left, right = (table[name].to_pylist() for name in ("sentence1", "sentence2"))
    scores = np.array(table["score"].to_pylist())[order]
    return [left[i] for i in order], [right[i] for i in order], scores


def batches(columns: Sequence[Sequence[Any]], size: int, seed: int) -> Iterator[list[list[Any]]]:
    """Batches of columns without end, reshuffled every pass."""
    rng = np.random.default_rng(seed)
    rows = len(columns[0])
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows - size + 1, size):
            yield [[column[i] for i in order[start : start + size]] for column in columns]


def fit(
    model: Any,
    loss: Any,
    stream: Iterator[list[list[Any]]],
    steps: int,
    seed: int,
    rate: float = 1e-4,
    texts: int = 2,
    tick: Callable[[], None] | None = None,
) -> Any:
    """Train in place: AdamW, linear warm-up over a tenth and linear decay; every batch's columns after the first
    `texts` become the label tensor. Returns the model in evaluation mode."""
    import torch

    from isometry.recipes._frozen import brain_floats, descend

    def loss_of(step: int) -> Any:
        columns = next(stream)
        features = [model.preprocess(column) for column in columns[:texts]]
        labels = torch.as_tensor(np.asarray(columns[texts])) if len(columns) > texts else None
        with brain_floats():
            return loss(features, labels)

    descend((model, loss), loss_of, steps, rate, seed, tick)
    return model.eval()


def encode(model: Any, texts: Sequence[str]) -> np.ndarray:
    """Texts to vectors of length one `(n, d)` float32."""
    found = model.encode(list(texts), batch_size=128, show_progress_bar=False)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


@functools.lru_cache(maxsize=1)
def caption_vectors(data: Path | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two descriptions each of `count` pictures by the bundled encoder, unit vectors (n, 384), pair by pair."""
    from isometry.encoders import load_encoder

    groups: list[list[str]] = []
    for split in ("train", "dev", "test"):
        groups += captions(data, split, count - len(groups), 0)
    encoder = load_encoder("default")
    first, second = (encoder.encode([group[i] for group in groups]) for i in (0, 1))
    return first, second


def reciprocal_ranks(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """1 / rank of document i for query i among all documents, ties counted against it: `(n,)`."""
    scores = queries @ documents.T
    return 1.0 / (scores >= scores.diagonal()[:, None] - 1e-7).sum(axis=1)


def caption_mrr(model: Any, groups: Sequence[Sequence[str]]) -> float:
    """Find a picture's second description by its first, among the second descriptions of all pictures."""
    queries, documents = (encode(model, [group[i] for group in groups]) for i in (0, 1))
    return float(reciprocal_ranks(queries, documents).mean())


def graded_spearman(model: Any, pairs: tuple[Sequence[str], Sequence[str], np.ndarray]) -> float:
    """Spearman correlation of cosine with the score."""
    from scipy.stats import spearmanr

    left, right, scores = pairs
    cosines = np.einsum("nd,nd->n", encode(model, left), encode(model, right))
    return float(spearmanr(cosines, scores).statistic)


def short_pairs(data: Path | None, split: str, images: int, seed: int, words: int = 9) -> tuple[list[str], list[str]]:
    """Two descriptions of at most `words` words of each of `images` pictures: short rows make cheap steps."""
    first: list[str] = []
    second: list[str] = []
    for group in captions(data, split, 10**6, seed):
        short = [text for text in group if len(text.split()) <= words]
        if len(short) > 1 and len(first) < images:
            first.append(short[0])
            second.append(short[1])
    return first, second


def exit_scores(
    model: Any,
    pairs: tuple[Sequence[str], Sequence[str]],
    sts: tuple[Sequence[str], Sequence[str], np.ndarray],
    sizes: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], tuple[float, float]]:
    """(MRR of the second description by the first, Spearman on graded pairs) of every (layers, dimensions)."""
    from scipy.stats import spearmanr

    from isometry.encoders.text import encode_exits
    from isometry.recipes._frozen import brain_floats

    columns = [*pairs, *sts[:2]]
    with brain_floats():
        exits = encode_exits(model, [text for column in columns for text in column], sorted({n for n, _ in sizes}))
    ends = np.cumsum([len(column) for column in columns])[:-1]
    found = {}
    for layers, dimensions in sizes:
        cut = exits[layers][:, :dimensions]
        a, b, left, right = np.split(cut / np.linalg.norm(cut, axis=1, keepdims=True), ends)
        cosines = np.einsum("nd,nd->n", left, right)
        found[layers, dimensions] = (
            float(reciprocal_ranks(a, b).mean()),
            float(spearmanr(cosines, sts[2]).statistic),
        )
    return found

"""Paper 48: sentences embedded in the light of their paragraph, on questions of XQuAD.

A chunk is a sentence, its context the paragraph around it, a query the question that the sentence answers. Heads are
trained over the frozen bundled encoder; articles for training and for testing are different ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker
from isometry.types import Progress

RECALL = "recall@10 of the answering sentence"
RAW, NAIVE, LATE = "sentence, untrained", "sentence and paragraph, untrained", "late chunking, untrained"
CHUNK, SITUATED = "sentence, trained", "situated, trained"
PAIR, TWICE = "residual pair", "residual pair of two sentence encoders"

CLAIMS = {
    "tiny": (Claim("A trained situated encoder beats one trained on sentences alone.", RECALL, SITUATED, CHUNK),),
    "laptop": (
        Claim("A trained situated encoder beats one trained on sentences alone.", RECALL, SITUATED, CHUNK),
        Claim("A residual pair beats the situated encoder alone.", RECALL, PAIR, SITUATED),
        Claim("Context is what the pair gains by: it beats two sentence encoders.", RECALL, PAIR, TWICE),
        Claim("An encoder not trained for it gets worse by appending context.", RECALL, RAW, NAIVE),
        Claim("Late chunking helps an untrained encoder.", RECALL, LATE, RAW),
    ),
}


@dataclass(frozen=True)
class _Corpus:
    """Sentences with their paragraph and article, and questions with the sentence that answers."""

    sentences: list[str]
    paragraph: np.ndarray
    spans: list[tuple[int, int]]
    contexts: list[str]
    questions: list[str]
    answers: np.ndarray

    @property
    def article(self) -> np.ndarray:
        return self.paragraph // 5


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and batches in all trained arms; a seed draws the articles to test, the batches and the heads."""
    import torch
    from torch import nn

    from isometry.encoders.text import ResidualPair, late_chunks, situate
    from isometry.recipes._frozen import Head, descend, layer_means, token_states, unit
    from isometry.recipes._text import full_model
    from isometry.training.losses import MarginRankingLoss

    tiny = scale == "tiny"
    articles, steps, size, length = (6, 20, 8, 64) if tiny else (48, 150, 32, 96)
    corpus = _read(data, articles)
    model = full_model()
    tokens_of = model.tokenizer

    def count(text: str) -> int:
        return len(tokens_of(text, verbose=False)["input_ids"])

    joined = [
        situate(text, corpus.contexts[p], budget=length, count=count)
        for text, p in zip(corpus.sentences, corpus.paragraph, strict=True)
    ]
    states, mask = token_states(joined, length=length)
    place = torch.arange(length)
    ends = torch.tensor([min(count(text) - 1, length) for text in corpus.sentences])
    inside = ((place > 0) & (place < ends[:, None])).float()
    around = mask.float() * (place >= ends[:, None])
    span = torch.einsum("nt,ntd->nd", inside / inside.sum(1, keepdim=True), states)
    rest = torch.einsum("nt,ntd->nd", around / around.sum(1, keepdim=True).clamp(min=1), states)
    naive = torch.einsum("nt,ntd->nd", mask.float() / mask.sum(1, keepdim=True), states)
    del states
    asked, alone = layer_means(corpus.questions, [6])[6], layer_means(corpus.sentences, [6])[6]
    late = np.zeros((len(corpus.sentences), 384), dtype=np.float32)
    for p, context in enumerate(corpus.contexts):
        rows = np.flatnonzero(corpus.paragraph == p)
        late[rows] = late_chunks(model, context, [corpus.spans[row] for row in rows])

    class Situated(nn.Module):
        """The sentence's tokens, which have seen the paragraph, and a trained share of the paragraph's own."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.share, self.head = nn.Parameter(torch.tensor(0.3)), Head(seed=seed)

        def forward(self, x: Any) -> Any:
            return self.head(x[:, :384] + self.share * x[:, 384:])

    both, queries = torch.cat([span, rest], dim=1), torch.cat([asked, torch.zeros_like(asked)], dim=1)
    loss = MarginRankingLoss()
    arms = (CHUNK, SITUATED) if tiny else (CHUNK, SITUATED, PAIR, TWICE)
    tick = Ticker(progress, len(seeds) * len(arms) * steps)
    values: dict[str, list[float]] = {}
    shares = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        held = rng.permutation(articles)[: articles // 3]
        test = np.flatnonzero(np.isin(corpus.article[corpus.answers], held))
        train = np.flatnonzero(~np.isin(corpus.article[corpus.answers], held))

        def judge(q: np.ndarray, c: np.ndarray, arm: str, rows: Any = test) -> None:
            values.setdefault(arm, []).append(_recall(q[rows] @ c.T, corpus.answers[rows]))

        heads: dict[str, Any] = {}
        for arm in arms:
            situated = arm in (SITUATED, PAIR)
            top = Situated(seed) if situated else Head(seed=seed + (1000 if arm == TWICE else 0))
            q, c = (queries, both) if situated else (asked, alone)
            fixed = None
            if arm in (PAIR, TWICE):  # the sentence encoder, trained first, stays as it is
                with torch.no_grad():
                    fixed = heads[CHUNK](asked), heads[CHUNK](alone)
            descend([top], _batch_loss(corpus, train, top, q, c, fixed, loss, seed, size), steps, seed=seed, tick=tick)
            heads[arm] = top
            with torch.no_grad():
                found = unit(top(q)), unit(top(c))
            if fixed is None:
                judge(*found, arm)
            else:
                first = _Known(corpus, unit(fixed[0]), unit(fixed[1]))
                pair = ResidualPair(first, _Known(corpus, *found))
                judge(
                    pair.encode_queries(corpus.questions), pair.encode_chunks(corpus.sentences, corpus.sentences), arm
                )
        shares.append(float(heads[SITUATED].share.detach()))
        for arm, vectors in ((RAW, unit(alone)), (NAIVE, unit(naive)), (LATE, late)):
            judge(unit(asked), vectors, arm)
    what = (
        f"XQuAD, English: {len(corpus.questions)} questions, {len(corpus.sentences)} sentences of {len(corpus.contexts)} "
        f"paragraphs, a third of {articles} articles to test; heads on the frozen 6-layer encoder, {length} tokens, "
        f"{steps} steps of {size} questions with 8 sentences of the same article"
    )
    return Measurement(what, {RECALL: values}, {"trained_share_of_the_paragraph": float(np.mean(shares))})


class _Known:
    """Vectors made before, as an encoder."""

    def __init__(self, corpus: _Corpus, questions: np.ndarray, sentences: np.ndarray) -> None:
        self.vectors = dict(zip(corpus.questions, questions, strict=True))
        self.vectors |= dict(zip(corpus.sentences, sentences, strict=True))

    def encode(self, inputs: Sequence[str], batch_size: int = 64) -> np.ndarray:
        return np.stack([self.vectors[text] for text in inputs])


def _read(data: Path | None, articles: int) -> _Corpus:
    """Paragraphs of XQuAD, five an article, cut into sentences; questions whose answer lies within one sentence."""
    import pyarrow.parquet as pq

    table = pq.read_table(find_data("text/xquad.parquet", data), filters=[("lang", "=", "en")]).to_pylist()
    contexts: list[str] = []
    sentences: list[str] = []
    paragraph: list[int] = []
    spans: list[tuple[int, int]] = []
    for p, text in sorted({row["context_id"]: row["context"] for row in table}.items()):
        if p >= 5 * articles:
            break
        contexts.append(text)
        for part in re.finditer(r"\S.*?(?:[.!?][\"')]*(?=\s+[A-Z\"(]|\s*$)|$)", text, re.DOTALL):
            sentences.append(part.group())
            paragraph.append(p)
            spans.append(part.span())
    questions, answers = [], []
    for row in table:
        start = row["answer_start"]
        for i in np.flatnonzero(np.array(paragraph) == row["context_id"]):
            if spans[i][0] <= start < spans[i][1]:
                questions.append(row["question"])
                answers.append(int(i))
    return _Corpus(sentences, np.array(paragraph), spans, contexts, questions, np.array(answers))


def _batch_loss(
    corpus: _Corpus, train: np.ndarray, top: Any, q: Any, c: Any, fixed: Any, loss: Any, seed: int, size: int
) -> Callable[[int], Any]:
    """Questions, their sentence, and 8 sentences of the same article's other paragraphs."""
    from torch.nn import functional as F

    draw = np.random.default_rng(seed)
    others = {}
    for answer in np.unique(corpus.answers[train]):
        same = corpus.article == corpus.article[answer]
        others[int(answer)] = np.flatnonzero(same & (corpus.paragraph != corpus.paragraph[answer]))

    def of_step(step: int) -> Any:
        rows = draw.choice(train, size, replace=False)
        negatives = [draw.choice(others[int(a)], 8, replace=len(others[int(a)]) < 8) for a in corpus.answers[rows]]
        chunks = np.concatenate([corpus.answers[rows][:, None], negatives], axis=1).T
        asked, told = top(q[rows]), top(c[chunks.ravel()])
        if fixed is not None:
            asked = F.normalize(asked, dim=-1) + F.normalize(fixed[0][rows], dim=-1)
            told = F.normalize(told, dim=-1) + F.normalize(fixed[1][chunks.ravel()], dim=-1)
        return loss.compute_loss_from_embeddings([asked, *told.split(size)])

    return of_step


def _recall(scores: np.ndarray, answers: np.ndarray) -> float:
    own = scores[np.arange(len(answers)), answers][:, None]
    return float(((scores >= own).sum(axis=1) <= 10).mean())


RECIPE = Recipe(
    name="sitemb",
    paper=48,
    title="SitEmb-v1.5: Improved Context-Aware Dense Retrieval for Semantic Association and Long Story Comprehension",
    claim="Short chunks embedded in the light of their context beat chunks alone, once the encoder is trained for it.",
    parts=(
        "isometry.encoders.text.situate",
        "isometry.encoders.text.late_chunks",
        "isometry.encoders.text.ResidualPair",
        "isometry.training.losses.MarginRankingLoss",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 6},
    measure=measure,
)

"""Paper 48: passages embedded in the light of what surrounds them, on books and on encyclopaedia articles.

Books: a chunk is some 60 tokens of a novel or memoir, its context the chunks before and behind it, a query a sentence that
was taken out of the chunk; it is looked for in its whole book. Articles (XQuAD): a chunk is a sentence, its context the
paragraph around it, a query the question that the sentence answers. Heads are trained over the frozen bundled encoder;
books and articles for training and for testing are different ones.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation import Claim
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker
from isometry.types import Progress

BOOKS, ARTICLES = "recall@10 within the book", "recall@10 of the answering sentence"
RAW, NAIVE, LATE = "chunk, untrained", "chunk and context, untrained", "late chunking, untrained"
CHUNK, SITUATED = "chunk, trained", "situated, trained"
PAIR, TWICE = "residual pair", "residual pair of two chunk encoders"
AROUND = "chunk, trained, and its context's chunks averaged in"

CLAIMS = {
    "tiny": (Claim("A trained situated encoder beats one trained on chunks alone.", ARTICLES, SITUATED, CHUNK),),
    "laptop": (
        Claim("In books, a trained situated encoder beats one trained on chunks alone.", BOOKS, SITUATED, CHUNK),
        Claim("So it does for questions on articles.", ARTICLES, SITUATED, CHUNK),
        Claim("In books, reading the context beats averaging its chunks in.", BOOKS, SITUATED, AROUND),
        Claim("So it does for questions on articles.", ARTICLES, SITUATED, AROUND),
        Claim("In books, a residual pair beats the situated encoder alone.", BOOKS, PAIR, SITUATED),
        Claim("So it does for questions on articles.", ARTICLES, PAIR, SITUATED),
        Claim("In books, context is what the pair gains by: it beats two chunk encoders.", BOOKS, PAIR, TWICE),
        Claim("An encoder not trained for it gets worse by appending context, in books.", BOOKS, RAW, NAIVE),
        Claim("So it does for questions on articles.", ARTICLES, RAW, NAIVE),
        Claim("Late chunking helps an untrained encoder, in books.", BOOKS, LATE, RAW),
    ),
}


@dataclass(frozen=True)
class _Corpus:
    """Chunks with their context, and queries with the chunk that answers.

    Attributes:
        chunks, contexts: as many.
        around: rows of the chunks that a context consists of.
        whole: book or article of a chunk; block: chunks of one are no negatives of each other.
        passages: (text, spans of chunks in it, their rows), for late chunking.
        queries, answers: texts, and their chunk's row.
        within: a query is looked for in its own book only.
    """

    chunks: list[str]
    contexts: list[str]
    around: list[list[int]]
    whole: np.ndarray
    block: np.ndarray
    passages: list[tuple[str, list[tuple[int, int]], list[int]]]
    queries: list[str]
    answers: np.ndarray
    within: bool


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    """Equal steps and batches in all trained arms; a seed draws what is tested, the batches and the heads."""
    tiny = scale == "tiny"
    steps, size = (20, 8) if tiny else (150, 32)
    arms = (CHUNK, SITUATED) if tiny else (CHUNK, SITUATED, PAIR, TWICE)
    worlds = {ARTICLES: (_articles(data, 6 if tiny else 48), 64 if tiny else 96)}
    if not tiny:
        worlds[BOOKS] = (_books(data, 18, 128), 192)
    tick = Ticker(progress, len(worlds) * len(seeds) * len(arms) * steps)
    values: dict[str, dict[str, list[float]]] = {}
    measured: dict[str, float] = {}
    said = []
    for metric, (corpus, length) in worlds.items():
        values[metric], share = _measured(corpus, length, seeds, arms, steps, size, tick)
        name = "books" if corpus.within else "articles"
        measured[f"trained_share_of_the_context_{name}"] = share
        said.append(
            f"{len(corpus.queries)} {'sentences' if corpus.within else 'questions'}, {len(corpus.chunks)} chunks of "
            f"{len(np.unique(corpus.whole))} {name}, at most {length} tokens with context"
        )
    what = (
        f"{'' if tiny else 'public-domain books and '}XQuAD, English: {'; '.join(said)}; a third of them to test; heads on "
        f"the frozen 6-layer encoder, {steps} steps of {size} queries with 8 chunks of the same whole"
    )
    return Measurement(what, values, measured)


def _measured(
    corpus: _Corpus, length: int, seeds: Sequence[int], arms: Sequence[str], steps: int, size: int, tick: Ticker
) -> tuple[dict[str, list[float]], float]:
    """Recall of every arm for every seed, and the share of the context that the situated heads learned to take in."""
    import torch
    from torch import nn

    from isometry.encoders.text import ResidualPair
    from isometry.recipes._frozen import Head, descend, layer_means, unit
    from isometry.training.losses import MarginRankingLoss

    span, rest, naive = _situated_states(corpus, length)
    asked, alone = layer_means(corpus.queries, [6])[6], layer_means(corpus.chunks, [6])[6]
    late = _late(corpus)

    class Situated(nn.Module):
        """The chunk's tokens, which have seen the context, and a trained share of the context's own."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.share, self.head = nn.Parameter(torch.tensor(0.3)), Head(seed=seed)

        def forward(self, x: Any) -> Any:
            return self.head(x[:, :384] + self.share * x[:, 384:])

    both, queries = torch.cat([span, rest], dim=1), torch.cat([asked, torch.zeros_like(asked)], dim=1)
    loss = MarginRankingLoss()
    wholes = np.unique(corpus.whole)
    values: dict[str, list[float]] = {}
    shares = []
    for seed in seeds:
        held = np.random.default_rng(seed).permutation(wholes)[: len(wholes) // 3]
        tested = np.isin(corpus.whole[corpus.answers], held)
        test, train = np.flatnonzero(tested), np.flatnonzero(~tested)

        def judge(q: np.ndarray, c: np.ndarray, arm: str, rows: Any = test) -> None:
            values.setdefault(arm, []).append(_recall(corpus, q, c, rows))

        heads: dict[str, Any] = {}
        for arm in arms:
            situated = arm in (SITUATED, PAIR)
            top = Situated(seed) if situated else Head(seed=seed + (1000 if arm == TWICE else 0))
            q, c = (queries, both) if situated else (asked, alone)
            fixed = None
            if arm in (PAIR, TWICE):  # the chunk encoder, trained first, stays as it is
                with torch.no_grad():
                    fixed = heads[CHUNK](asked), heads[CHUNK](alone)
            descend([top], _batch_loss(corpus, train, top, q, c, fixed, loss, seed, size), steps, seed=seed, tick=tick)
            heads[arm] = top
            with torch.no_grad():
                found = unit(top(q)), unit(top(c))
            if fixed is None:
                judge(*found, arm)
                if arm == CHUNK:
                    judge(found[0], _averaged_in(found[1], corpus.around), AROUND)
            else:
                pair = ResidualPair(_Known(corpus, unit(fixed[0]), unit(fixed[1])), _Known(corpus, *found))
                judge(pair.encode_queries(corpus.queries), pair.encode_chunks(corpus.chunks, corpus.chunks), arm)
        shares.append(float(heads[SITUATED].share.detach()))
        for arm, vectors in ((RAW, unit(alone)), (NAIVE, unit(naive)), (LATE, late)):
            judge(unit(asked), vectors, arm)
    return values, float(np.mean(shares))


def _averaged_in(vectors: np.ndarray, around: list[list[int]], share: float = 0.3) -> np.ndarray:
    """Each vector with the mean of those around it, at the share that the situated heads start from; needs no training."""
    means = np.stack([vectors[rows].mean(axis=0) if rows else np.zeros_like(vectors[0]) for rows in around])
    mixed = vectors + share * means
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))


def _situated_states(corpus: _Corpus, length: int) -> tuple[Any, Any, Any]:
    """Of every chunk read with its context behind it: the means over its own tokens, the context's, and all, `(n, 384)`."""
    import torch

    from isometry.encoders.text import situate
    from isometry.recipes._frozen import token_states
    from isometry.recipes._text import full_model

    tokens_of = full_model().tokenizer

    def count(text: str) -> int:
        return len(tokens_of(text, verbose=False)["input_ids"])

    place = torch.arange(length)
    means: list[tuple[Any, Any, Any]] = []
    for start in range(0, len(corpus.chunks), 512):
        chunks, contexts = corpus.chunks[start : start + 512], corpus.contexts[start : start + 512]
        joined = [situate(one, other, budget=length, count=count) for one, other in zip(chunks, contexts, strict=True)]
        states, mask = token_states(joined, length=length)
        ends = torch.tensor([min(count(text) - 1, length) for text in chunks])
        inside = ((place > 0) & (place < ends[:, None])).float()
        around = mask.float() * (place >= ends[:, None])
        shares = (inside, around, mask.float())
        means.append(tuple(torch.einsum("nt,ntd->nd", w / w.sum(1, keepdim=True).clamp(min=1), states) for w in shares))
    span, rest, naive = (torch.cat(parts) for parts in zip(*means, strict=True))
    return span, rest, naive


def _late(corpus: _Corpus) -> np.ndarray:
    from isometry.encoders.text import late_chunks
    from isometry.recipes._text import full_model

    model = full_model()
    limit = model.max_seq_length or 256
    vectors = np.zeros((len(corpus.chunks), 384), dtype=np.float32)
    for text, spans, rows in corpus.passages:
        first = 0
        while first < len(rows):  # as many chunks at once as the model reads
            last = first + 1
            while last < len(rows) and _tokens(model, text[spans[first][0] : spans[last][1]]) <= limit:
                last += 1
            start, end = spans[first][0], spans[last - 1][1]
            inside = [(a - start, b - start) for a, b in spans[first:last]]
            vectors[rows[first:last]] = late_chunks(model, text[start:end], inside)
            first = last
    return vectors


def _tokens(model: Any, text: str) -> int:
    return len(model.tokenizer(text, verbose=False)["input_ids"])


class _Known:
    """Vectors made before, as an encoder."""

    def __init__(self, corpus: _Corpus, queries: np.ndarray, chunks: np.ndarray) -> None:
        self.corpus, self.queries, self.chunks = corpus, queries, chunks

    def encode(self, inputs: Sequence[str], batch_size: int = 64) -> np.ndarray:
        return self.queries if list(inputs) == self.corpus.queries else self.chunks


def _sentences(text: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"\S.*?(?:[.!?][\"')]*(?=\s+[A-Z\"(]|\s*$)|$)", text, re.DOTALL)


def _articles(data: Path | None, articles: int) -> _Corpus:
    """Paragraphs of XQuAD, five an article, cut into sentences; questions whose answer lies within one sentence."""
    import pyarrow.parquet as pq

    table = pq.read_table(find_data("text/xquad.parquet", data), filters=[("lang", "=", "en")]).to_pylist()
    sentences: list[str] = []
    contexts: list[str] = []
    paragraph: list[int] = []
    spans: list[tuple[int, int]] = []
    passages = []
    for p, text in sorted({row["context_id"]: row["context"] for row in table}.items()):
        if p >= 5 * articles:
            break
        found = list(_sentences(text))
        first = len(sentences)
        sentences += [part.group() for part in found]
        contexts += [text] * len(found)
        paragraph += [p] * len(found)
        spans += [part.span() for part in found]
        passages.append((text, [part.span() for part in found], list(range(first, len(sentences)))))
    questions, answers = [], []
    for row in table:
        for i in np.flatnonzero(np.array(paragraph) == row["context_id"]):
            if spans[i][0] <= row["answer_start"] < spans[i][1]:
                questions.append(row["question"])
                answers.append(int(i))
    block = np.array(paragraph)
    around = [[int(j) for j in np.flatnonzero(block == block[i]) if j != i] for i in range(len(sentences))]
    return _Corpus(sentences, contexts, around, block // 5, block, passages, questions, np.array(answers), within=False)


def _books(data: Path | None, books: int, chunks: int, budget: int = 60) -> _Corpus:
    """The first chunks behind the opening of the longest books, each without one sentence, which is the query."""
    from isometry.encoders.text import chunk_sentences
    from isometry.recipes._text import full_model

    tokens_of = full_model().tokenizer

    def count(text: str) -> int:
        return len(tokens_of(text, verbose=False)["input_ids"])

    rng = np.random.default_rng(0)
    kept: list[str] = []
    contexts: list[str] = []
    queries: list[str] = []
    answers: list[int] = []
    whole: list[int] = []
    passages = []
    for number, lines in enumerate(_longest(data, books)):
        sentences = [part.group() for line in lines for part in _sentences(line)]
        found = [one for one in chunk_sentences(sentences, budget, count)[40:] if 20 <= count(one) <= budget][:chunks]
        first = len(kept)
        without: list[str] = []
        for one in found:
            parts = [part.group() for part in _sentences(one)]
            told = [i for i, part in enumerate(parts) if len(part.split()) >= 6]
            if len(parts) > 1 and told:
                taken = told[int(rng.integers(len(told)))]
                queries.append(parts.pop(taken))
                answers.append(first + len(without))
            without.append(" ".join(parts))
        for i in range(len(without)):
            contexts.append(" ".join(without[max(i - 1, 0) : i] + without[i + 1 : i + 2]))
        for i in range(0, len(without), 3):
            three = without[i : i + 3]
            starts = np.cumsum([0, *(len(text) + 1 for text in three[:-1])])
            spans = [(int(at), int(at) + len(text)) for at, text in zip(starts, three, strict=True)]
            passages.append((" ".join(three), spans, list(range(first + i, first + i + len(three)))))
        kept += without
        whole += [number] * len(without)
    block = np.array([1000 * book + i // 16 for book, i in zip(whole, _places(whole), strict=True)])
    around = [[j for j in (i - 1, i + 1) if 0 <= j < len(whole) and whole[j] == whole[i]] for i in range(len(whole))]
    return _Corpus(kept, contexts, around, np.array(whole), block, passages, queries, np.array(answers), within=True)


def _places(whole: Sequence[int]) -> list[int]:
    """Position of every chunk within its book."""
    return [i - whole.index(book) for i, book in enumerate(whole)]


def _longest(data: Path | None, books: int) -> list[list[str]]:
    """Lines of the books with most words; the list of books says how many words each has."""
    import zstandard

    listed = find_data("words/classic-books.tsv", data).read_text(encoding="utf-8").splitlines()[1:]
    sizes = [int(line.rsplit("\t", 1)[1]) for line in listed]
    with find_data("words/classic-books.txt.zst", data).open("rb") as packed:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8")
        found: list[list[str]] = []
        for size in sizes:
            book, words = [], 0
            while words < size:
                line = lines.readline()
                words += len(line.split())
                book.append(line.strip())
            found.append(book)
    order = np.argsort(sizes, kind="stable")[::-1][:books]
    return [found[i] for i in sorted(order.tolist())]


def _batch_loss(
    corpus: _Corpus, train: np.ndarray, top: Any, q: Any, c: Any, fixed: Any, loss: Any, seed: int, size: int
) -> Callable[[int], Any]:
    """Queries, their chunk, and 8 chunks of other blocks of the same book or article."""
    from torch.nn import functional as F

    draw = np.random.default_rng(seed)
    others = {}
    for answer in np.unique(corpus.answers[train]):
        same = corpus.whole == corpus.whole[answer]
        others[int(answer)] = np.flatnonzero(same & (corpus.block != corpus.block[answer]))

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


def _recall(corpus: _Corpus, queries: np.ndarray, chunks: np.ndarray, rows: np.ndarray) -> float:
    """Share of the queries `rows` whose chunk is among the ten nearest, ties counted against it."""
    scores = queries[rows] @ chunks.T
    answers = corpus.answers[rows]
    own = scores[np.arange(len(rows)), answers][:, None]
    beaten = scores >= own
    if corpus.within:
        beaten &= corpus.whole[None, :] == corpus.whole[answers][:, None]
    return float((beaten.sum(axis=1) <= 10).mean())


RECIPE = Recipe(
    name="sitemb",
    paper=48,
    title="SitEmb-v1.5: Improved Context-Aware Dense Retrieval for Semantic Association and Long Story Comprehension",
    claim="Short chunks embedded in the light of their context beat chunks alone, once the encoder is trained for it.",
    parts=(
        "isometry.encoders.text.chunk_sentences",
        "isometry.encoders.text.situate",
        "isometry.encoders.text.late_chunks",
        "isometry.encoders.text.ResidualPair",
        "isometry.training.losses.MarginRankingLoss",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 10},
    measure=measure,
)

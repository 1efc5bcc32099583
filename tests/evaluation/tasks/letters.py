"""Small synthetic data and an encoder without weights, shared by the tests of tasks."""

from __future__ import annotations

import numpy as np

from isometry.evaluation.tasks import (
    STS,
    BitextMining,
    Classification,
    Clustering,
    GradedPairs,
    Judged,
    LabelledPairs,
    LabelledTexts,
    PairClassification,
    ParallelTexts,
    Reranking,
    Retrieval,
    TrainTest,
)
from isometry.types import EncoderDescription

WORDS = "amber basalt cedar dune ember fjord glade heath islet jetty kelp lagoon marsh nunatak oasis".split()  # noqa: SIM905


class Letters:
    """Counts letters and adds a little fixed noise per text, so that no two texts tie by chance."""

    def __init__(self, noise: float = 0.3):
        self.noise = noise
        self.seen = 0

    def describe(self) -> EncoderDescription:
        return EncoderDescription("letters", f"{self.noise}", 26, normalized=False)

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        self.seen += len(inputs)
        counts = np.array([[text.count(chr(97 + c)) for c in range(26)] for text in inputs], dtype=np.float32)
        noise = [np.random.default_rng(list(text.encode())).standard_normal(26) for text in inputs]
        return (counts + self.noise * np.array(noise)).astype(np.float32)


def phrases(count: int, seed: int, topics: int = 3) -> tuple[list[str], list[int]]:
    """Phrases of four words, most of them of their topic's own words."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        topic = int(rng.integers(topics))
        own = WORDS[5 * topic : 5 * topic + 5]
        texts.append(" ".join(str(w) for w in rng.choice(own if rng.random() < 0.6 else WORDS, 4)))
        labels.append(topic)
    return texts, labels


def pairs(count: int, seed: int) -> tuple[list[str], list[str], list[float]]:
    """Pairs that share 0 to 4 words, in grades with ties."""
    rng = np.random.default_rng(seed)
    first, second, grades = [], [], []
    for _ in range(count):
        words, shared = list(rng.choice(WORDS, 4)), int(rng.integers(5))
        first.append(" ".join(words))
        second.append(" ".join([*words[:shared], *rng.choice(WORDS, 4 - shared)]))
        grades.append(float(shared))
    return first, second, grades


def all_tasks():
    """One small task of every kind."""
    first, second, grades = pairs(60, 1)
    train, train_labels = phrases(60, 2)
    test, test_labels = phrases(50, 3)
    documents, _ = phrases(40, 4)
    names = [f"d{i}" for i in range(40)]
    corpus = {name: f"{text} {i}" for i, (name, text) in enumerate(zip(names, documents, strict=True))}
    queries = {f"q{i}": f"{documents[i]} {WORDS[i]}" for i in range(12)}
    judged = {f"q{i}": {f"d{i}": 2, f"d{i + 1}": 1, f"d{i + 20}": 1} for i in range(12)}
    candidates = {f"q{i}": tuple(f"d{j}" for j in range(i, i + 25)) for i in range(12)}
    words = lambda labels: tuple(f"topic {label}" for label in labels)  # noqa: E731
    return {
        "STS": STS("s", {"en": GradedPairs(tuple(first), tuple(second), tuple(grades))}),
        "PairClassification": PairClassification(
            "p", {"en": LabelledPairs(tuple(first), tuple(second), tuple(int(g > 2) for g in grades))}
        ),
        "Retrieval": Retrieval("r", {"en": Judged(corpus, queries, judged, {})}),
        "Reranking": Reranking("k", {"en": Judged(corpus, queries, judged, candidates)}),
        "Clustering": Clustering(
            "c",
            {"en": LabelledTexts(tuple(test), tuple((f"{int(one > 0)}", f"{one}") for one in test_labels))},
            draws=3,
            draw_size=80,
        ),
        "Classification": Classification(
            "f", {"en": TrainTest(tuple(train), words(train_labels), tuple(test), words(test_labels))}, draws=3
        ),
        "BitextMining": BitextMining("b", {"en": ParallelTexts(tuple(documents), tuple(corpus.values()))}),
    }

"""Paper 32: one inner product search over fixed dimensional encodings in place of one search per query vector.

Titles of papers ask, beginnings of abstracts answer, as token vectors of the bundled encoder, which was not trained for
late interaction; the full scale takes a model that was. The truth is exact MaxSim. Buckets lie around the mean token
(centred), since such vectors lie in a cone; how far one gets without that is measured beside. A seed draws documents,
queries and matrices.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.compression import FixedDimensionalEncoding, ProductQuantizer
from isometry.evaluation import Claim, read_beir
from isometry.recipes._base import Measurement, Recipe
from isometry.recipes._data import find_data
from isometry.recipes._text import Ticker
from isometry.types import Progress, VectorSets

NEEDED = "log2 of the candidates that hold 90 % of the exact ten best"
HELD = "share of the exact ten best among the first candidates (2.5 % of the documents)"
FDE, UNFILLED, FINAL = (
    "FDE (20, 5, 16)",
    "FDE (20, 5, 16), empty blocks left empty",
    "FDE (40, 6, d) projected to 10,240",
)
PQ, MEAN = "FDE (20, 5, 16), PQ-256-8", "mean vectors"
HEURISTIC, REPEATED = "one search per query vector", "one search per query vector, repetitions counted"

_FEWER = Claim(
    "An encoding needs at most half of the candidates of one search per query vector.",
    NEEDED,
    FDE,
    HEURISTIC,
    1.0,
    False,
)
_FILLED = Claim("Filled blocks find more than empty ones.", HELD, FDE, UNFILLED)
_FINAL = Claim("Projected down, an encoding finds more than one drawn that short.", HELD, FINAL, FDE)
_PQ = Claim("PQ-256-8 costs at most a point.", HELD, PQ, FDE, -0.01)
_MEAN = Claim("An encoding finds more than the mean vector.", HELD, FDE, MEAN)
CLAIMS = {
    "tiny": (_FEWER, _FILLED),
    "laptop": (_FEWER, _FILLED, _FINAL, _PQ, _MEAN),
    "full": (_FEWER, _FILLED, _FINAL, _PQ, _MEAN),
}
# documents that are encoded, documents a seed draws, queries a seed draws
SIZES = {"tiny": (200, 160, 30), "laptop": (2600, 2000, 100), "full": (None, None, 300)}
FULL_ENCODER, FULL_DATA = "lightonai/GTE-ModernColBERT-v1", "beir/scidocs"
GRID = {"20_3_8": (3, 8, 20), "20_4_8": (4, 8, 20), "20_5_8": (5, 8, 20), "80_3_16": (3, 16, 80)}


def measure(scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None) -> Measurement:
    tick = Ticker(progress, len(seeds) + 1)
    everything, asked, what = _tokens(scale, data)
    tick()
    _, drawn, count = SIZES[scale]
    drawn = everything.items if drawn is None else drawn
    values: dict[str, dict[str, list[float]]] = {NEEDED: {}, HELD: {}}
    measured: dict[str, list[float]] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        documents = everything.take(np.sort(rng.permutation(everything.items)[:drawn]))
        queries = asked.take(rng.permutation(asked.items)[:count])
        places = _places(documents, queries, scale, seed)
        for name, ranks in places.items():
            needed = float(np.log2(np.quantile(ranks, 0.9, method="higher") + 1))
            held = float((ranks < drawn // 40).mean())
            if name in (FDE, UNFILLED, FINAL, PQ, MEAN, HEURISTIC, REPEATED):
                values[NEEDED].setdefault(name, []).append(needed)
                values[HELD].setdefault(name, []).append(held)
            measured.setdefault(f"held_{name}", []).append(held)
            measured.setdefault(f"candidates_{name}", []).append(2.0**needed)
        for name, figure in _scoring(documents, queries).items():
            measured.setdefault(name, []).append(figure)
        tick()
    figures = {name: float(np.mean(row)) for name, row in measured.items()}
    figures["held_standard_deviation_over_seeds"] = float(np.std(values[HELD][FDE]))
    figures |= {"bytes_FDE_float32": 4 * 10240.0, "bytes_FDE_PQ-256-8": 1280.0}
    said = f"{what}: {drawn} documents ({len(everything.values) / everything.items:.0f} vectors each), {count} queries a seed"
    return Measurement(said, values, figures)


# ---- where each system puts the exact ten best ------------------------------------------------------------------------


def _places(documents: VectorSets, queries: VectorSets, scale: str, seed: int) -> dict[str, np.ndarray]:
    """For each system the place (from 0) that it gives each of the exact ten best of each query: `(10 q,)`."""
    exact, single, repeated = [], [], []
    for start, stop in zip(queries.offsets[:-1], queries.offsets[1:], strict=True):
        products = documents.values @ queries.values[start:stop].T
        best = np.maximum.reduceat(products, documents.offsets[:-1], axis=0)
        exact.append(np.argsort(-best.sum(axis=1), kind="stable")[:10])
        met = first_met(products, documents.offsets)
        single.append(np.argsort(np.argsort(met, kind="stable"), kind="stable")[exact[-1]])
        repeated.append(met[exact[-1]])
    truth = np.array(exact)
    found = {HEURISTIC: np.concatenate(single), REPEATED: np.concatenate(repeated)}
    found[MEAN] = _ranks(_means(queries), _means(documents), truth)
    arms: dict[str, dict[str, Any]] = {FDE: {}, UNFILLED: {"fill_empty": False}}
    if scale != "tiny":
        arms |= {"not_centred": {"center": False}}
        arms |= {
            name: dict(zip(("k_sim", "projected", "repetitions"), point, strict=True)) for name, point in GRID.items()
        }
        arms |= {FINAL: {"k_sim": 6, "projected": None, "repetitions": 40, "final": 10240}}
    for name, changed in arms.items():
        parameters = {"k_sim": 5, "projected": 16, "repetitions": 20, "center": True, "random_state": seed} | changed
        encoding = FixedDimensionalEncoding(**parameters).fit(documents.values)
        held, asked = encoding.encode_documents(*documents), encoding.encode_queries(*queries)
        found[name] = _ranks(asked, held, truth)
        if name == FDE and scale != "tiny":
            sample = held[np.random.default_rng(seed).permutation(len(held))[: max(512, min(100_000, len(held) // 3))]]
            code = ProductQuantizer(held.shape[1] // 8, random_state=seed).fit(sample)
            found[PQ] = _ranks(asked, code.inverse_transform(code.transform(held)), truth)
    return found


def first_met(products: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """At which step `(n,)` the searches of all query vectors, taking turns, first meet a vector of each document.

    A step is one document vector, so that the order of steps is that of the documents, and the step itself counts
    repetitions. products: of document vectors with the query's `(t, q)`. offsets: of the documents `(n + 1)`.
    """
    vectors, asked = products.shape
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.argsort(-products, axis=0, kind="stable")
    turn = np.empty_like(order)
    np.put_along_axis(turn, order, np.arange(vectors)[:, None], axis=0)
    first = np.full(len(offsets) - 1, np.iinfo(np.int64).max)
    np.minimum.at(first, owner, (turn * asked + np.arange(asked)).min(axis=1))
    return first


def _ranks(asked: np.ndarray, held: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Places of `truth` (q, 10) in the order of inner products, ties counted against it."""
    scores = asked @ held.T
    own = np.take_along_axis(scores, truth, 1)
    return np.concatenate(
        [(row[None, :] >= mine[:, None]).sum(axis=1) - 1 for row, mine in zip(scores, own, strict=True)]
    )


def _means(sets: VectorSets) -> np.ndarray:
    means = np.add.reduceat(sets.values, sets.offsets[:-1], axis=0)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _scoring(documents: VectorSets, queries: VectorSets) -> dict[str, float]:
    """CPU milliseconds to score 100 documents exactly, with all query vectors and with groups within .7 merged."""
    from isometry.search.kernels.maxsim import carve
    from isometry.search.kernels.sets import exact_maxsim, turned

    part = documents.take(np.arange(min(100, documents.items)))
    out = np.empty(part.items, np.float32)
    spent, sizes = {"all": 0.0, "carved": 0.0}, []
    asked = [queries.values[a:b] for a, b in zip(queries.offsets[:-1], queries.offsets[1:], strict=True)]
    exact_maxsim(*part, turned(asked[0]), len(asked[0]), out)
    for query in asked:
        for name, used in (("all", query), ("carved", carve(query, 0.7))):
            began = time.process_time()
            exact_maxsim(*part, turned(used), len(used), out)
            spent[name] += time.process_time() - began
        sizes.append(len(used) / len(query))
    return {
        "rescoring_100_documents_ms": 1000 * spent["all"] / len(asked),
        "rescoring_100_documents_carved_ms": 1000 * spent["carved"] / len(asked),
        "query_vectors_left_by_carving": float(np.mean(sizes)),
    }


# ---- token vectors ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _tokens(scale: str, data: Path | None) -> tuple[VectorSets, VectorSets, str]:
    from isometry.encoders import load_encoder

    if scale == "full":
        beir = read_beir(find_data(FULL_DATA, data))
        model = load_encoder(FULL_ENCODER)
        texts = (f"{one.title} {one.text}".strip() for one in beir.documents())
        parts = [model.encode(block) for block in _blocks(texts)]
        documents = VectorSets.joined(parts, model.describe().dimension)
        return documents, model.encode_queries(list(beir.queries.values())), f"BEIR SciDocs, {FULL_ENCODER}"
    import pyarrow.parquet as pq

    table = pq.read_table(find_data("arxiv/arxiv-small.parquet", data), columns=["title", "abstract"])
    order = np.random.default_rng(32).permutation(len(table))
    size = SIZES[scale][0]
    assert size is not None
    asking = order[size : size + 3 * SIZES[scale][2]]
    texts_held = [" ".join(text.split())[:400] for text in table["abstract"].take(order[:size]).to_pylist()]
    encoder = load_encoder("default#tokens=80")
    documents = encoder.encode(texts_held)
    queries = encoder.encode_queries(table["title"].take(asking).to_pylist())
    return documents, queries, "arXiv titles and beginnings of abstracts, token vectors of the bundled encoder"


def _blocks(texts: Iterator[str], size: int = 512) -> Iterator[list[str]]:
    held: list[str] = []
    for text in texts:
        held.append(text)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


RECIPE = Recipe(
    name="muvera",
    paper=32,
    title="MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings",
    claim="One inner product search over fixed dimensional encodings finds what many searches of single vectors find.",
    parts=(
        "isometry.compression.FixedDimensionalEncoding",
        "isometry.compression.ProductQuantizer",
        "isometry.search.indexes.MultiVectorIndex",
    ),
    claims=CLAIMS,
    seeds={"tiny": 3, "laptop": 3, "full": 5},
    measure=measure,
)

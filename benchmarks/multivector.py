"""Late interaction: making fixed dimensional encodings against fastembed, and MUVERA end to end against exact MaxSim.

    python benchmarks/multivector.py arxiv.parquet --tokens FOLDER [--documents 20000] [--encode-only]

Documents are the first 300 characters of arXiv abstracts, queries the titles of 200 other papers and, harder, the last
150 characters of 100 abstracts whose beginning is a document; both as token vectors of the bundled MiniLM (at most 64 a
document). They are encoded once, 2,000 documents a file in FOLDER, so that a run that was cut off goes on. CPU seconds of
one process with one thread. fastembed pins an older huggingface_hub than transformers 5 takes; it is used where it is
importable (pip install --no-deps --target PEERS fastembed loguru mmh3 py-rust-stemmers onnxruntime, PYTHONPATH=PEERS).
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from isometry.compression import FixedDimensionalEncoding, ProductQuantizer, SignBinarizer
from isometry.search.encoded import ENCODING, SHORTLIST
from isometry.search.indexes import EncodingScan, FlatIndex, MultiVectorIndex
from isometry.types import VectorSets

SHARD, K = 2000, 10
SHORTLISTS = (200, SHORTLIST, 1000)


def texts(source: Path, documents: int) -> tuple[list[str], dict[str, list[str]]]:
    """Documents and two kinds of queries, drawn by seed."""
    table = pq.read_table(source, columns=["title", "abstract"])
    order = np.random.default_rng(0).permutation(len(table))[: documents + 200]
    titles, abstracts = (table[name].take(order).to_pylist() for name in ("title", "abstract"))
    long = [number for number in range(documents) if len(abstracts[number]) > 700][:100]
    queries = {"titles": titles[documents:], "ends of abstracts": [abstracts[number][-150:] for number in long]}
    return [" ".join(text.split())[:300] for text in abstracts[:documents]], queries


def encoded(source: Path, folder: Path, documents: int) -> tuple[VectorSets, dict[str, VectorSets]]:
    """Token vectors, from the files that are there and encoded where they are not."""
    from isometry.encoders import load_encoder

    folder.mkdir(parents=True, exist_ok=True)
    held, queries = texts(source, documents)
    encoder = None
    parts = []
    for name, some in [(f"documents-{at:06d}", held[at : at + SHARD]) for at in range(0, documents, SHARD)] + [
        (f"queries-{number}", some) for number, some in enumerate(queries.values())
    ]:
        file = folder / f"{name}.npz"
        if not file.is_file():
            encoder = encoder or load_encoder("default#tokens=64")
            sets = encoder.encode(some) if name.startswith("d") else encoder.encode_queries(some)
            temporary = file.with_suffix(".tmp.npz")
            np.savez(temporary, values=sets.values, offsets=sets.offsets)
            temporary.rename(file)
            print(f"{name}: {len(some)} texts, {len(sets.values)} vectors", flush=True)
        with np.load(file, allow_pickle=False) as arrays:
            parts.append(VectorSets(arrays["values"], arrays["offsets"]))
    whole = VectorSets.joined(parts[: -len(queries)], parts[0].values.shape[1])
    return whole, dict(zip(queries, parts[-len(queries) :], strict=True))


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Best CPU seconds of a run, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def making(documents: VectorSets, queries: VectorSets) -> list[str]:
    """Documents a CPU second, ours and fastembed's, with the same matrices."""
    try:
        from fastembed.postprocess import Muvera
    except ImportError:
        return ["fastembed was not importable in this run.", ""]
    lines = [
        "| d | side | Isometry, items/s | fastembed, items/s | ratio | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((documents.values.shape[1], 128)))[0].astype(
        np.float32
    )
    for dimension in (128, documents.values.shape[1]):
        cut = [side.values @ turn if dimension == 128 else side.values for side in (documents, queries)]
        peer = Muvera(dimension, k_sim=5, dim_proj=16, r_reps=20)
        ours = FixedDimensionalEncoding(5, 16, 20).fit(cut[0][:100])
        ours.directions_ = np.stack([one.simhash_vectors for one in peer.simhash_projections]).astype(np.float32)
        for one, mine in zip(peer.simhash_projections, ours.directions_, strict=True):
            one.simhash_vectors = mine.astype(np.float64)
        ours.projections_ = (peer.dim_reduction_projections / np.sqrt(16)).astype(np.float32)
        for name, side, values, mine, theirs in (
            ("document", documents, cut[0], ours.encode_documents, peer.process_document),
            ("query", queries, cut[1], ours.encode_queries, peer.process_query),
        ):
            many, few = min(side.items, 400), 40
            part = VectorSets(values, side.offsets).take(np.arange(many))
            each = [part.values[a:b] for a, b in zip(part.offsets[:few], part.offsets[1 : few + 1], strict=True)]
            fast = many / seconds(lambda p=part, f=mine: f(*p))
            slow = few / seconds(lambda e=each, f=theirs: [f(one) for one in e])
            reference = np.stack([theirs(one) for one in each])
            apart = np.abs(mine(*part)[:few] - reference).max(axis=1)
            lines.append(
                f"| {dimension} | {name} | {fast:,.0f} | {slow:,.0f} | {fast / slow:.1f} | {apart.max():.1e} |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def pooled(sets: VectorSets) -> np.ndarray:
    means = np.add.reduceat(sets.values, sets.offsets[:-1], axis=0)
    return np.ascontiguousarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def answers(index: MultiVectorIndex, queries: VectorSets) -> tuple[np.ndarray, float]:
    """Rows found for each query and the CPU milliseconds of one, asked one at a time."""
    asked = [
        VectorSets(queries.values[a:b], np.array([0, b - a]))
        for a, b in zip(queries.offsets[:-1], queries.offsets[1:], strict=True)
    ]
    for one in asked[:3]:
        index.search(*one, K)
    began = time.process_time()
    rows = np.concatenate([index.search(*one, K)[1] for one in asked])
    return rows, 1000 * (time.process_time() - began) / len(asked)


def interval(shared: np.ndarray) -> str:
    draw = np.random.default_rng(0).integers(len(shared), size=(2000, len(shared)))
    low, high = np.quantile(shared[draw].mean(axis=1), (0.025, 0.975))
    return f"{shared.mean():.3f} [{low:.3f}, {high:.3f}]"


def end_to_end(documents: VectorSets, queries: dict[str, VectorSets]) -> list[str]:
    exact = MultiVectorIndex(first_stage="int8").build(*documents)
    truth = {name: answers(exact, asked) for name, asked in queries.items()}
    head = "| search | bytes of candidates a document | " + " | ".join(
        f"{name}: recall@10 | ms | of exact" for name in queries
    )
    lines = [head + " |", "|---|---|" + "---|---|---|" * len(queries)]

    def add(name: str, size: float, found: dict[str, tuple[np.ndarray, float]]) -> None:
        cells = []
        for kind, (rows, spent) in found.items():
            shared = np.array([len(np.intersect1d(a, b)) / K for a, b in zip(rows, truth[kind][0], strict=True)])
            cells.append(f"{interval(shared)} | {spent:.1f} | {spent / truth[kind][1]:.3f}")
        lines.append(f"| {name} | {size:,.0f} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)

    add("exact MaxSim: int8 bounds, float32 scores", 0, truth)
    plain = MultiVectorIndex(first_stage="float32").build(*documents)
    few = {kind: VectorSets(asked.values, asked.offsets).take(np.arange(20)) for kind, asked in queries.items()}
    spent = {kind: answers(plain, asked)[1] for kind, asked in few.items()}
    lines.append("| exact MaxSim: float32 products in BLAS (20 queries) | 0 | " + " | ".join(
        f"1.000 | {spent[kind]:.1f} | {spent[kind] / truth[kind][1]:.3f}" for kind in queries) + " |")  # fmt: skip
    print(lines[-1], flush=True)
    sample = documents.take(np.arange(0, documents.items, max(1, documents.items // 1000)))
    grid = {
        "MUVERA (20, 5, 16), centred": {"k_sim": 5, "projected": 16, "repetitions": 20, "center": True},
        "MUVERA (80, 3, 16), centred: what a collection uses": ENCODING,
    }
    for name, parameters in grid.items():
        encoding = FixedDimensionalEncoding(**parameters).fit(sample.values)
        fitted = encoding.encode_documents(*sample)
        codes = {"1 bit a coordinate": SignBinarizer(rotate=False).fit(fitted)}
        if parameters is not ENCODING:
            codes |= {"int8": None, "PQ-256-8": ProductQuantizer(encoding.dimension // 8).fit(fitted)}
        for what, code in codes.items():
            scan = EncodingScan(code)
            spans = documents.spans(1 << 15)
            scan.restore(
                [scan.coded(encoding.encode_documents(*documents.take(np.arange(a, b)))) for a, b in spans],
                encoding.dimension,
            )
            for shortlist in SHORTLISTS if parameters is ENCODING else (SHORTLIST,):
                index = MultiVectorIndex(encoding, shortlist=shortlist, candidates=scan, first_stage="int8")
                index.attach(exact._parts, documents.values.shape[1])
                index._codes = exact._codes
                add(
                    f"{name}, {what}, {shortlist}",
                    scan.bytes_in_memory / documents.items,
                    {k: answers(index, q) for k, q in queries.items()},
                )
    means, size = pooled(documents), documents.values.shape[1] + 12
    for shortlist in SHORTLISTS:
        index = MultiVectorIndex(_Mean(), shortlist=shortlist, candidates=FlatIndex().build(means), first_stage="int8")  # type: ignore[arg-type]
        index.attach(exact._parts, documents.values.shape[1])
        index._codes = exact._codes
        add(f"mean vectors, {shortlist}", size, {k: answers(index, q) for k, q in queries.items()})
    return [*lines, ""]


class _Mean:
    """A query's mean vector in place of its encoding."""

    @staticmethod
    def encode_queries(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return pooled(VectorSets(values, offsets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--encode-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    documents, queries = encoded(given.source, given.tokens, given.documents)
    if given.encode_only:
        return
    sizes = {name: len(asked.values) / asked.items for name, asked in queries.items()}
    text = [
        "# Late interaction", "",
        f"{documents.items:,} beginnings of arXiv abstracts as token vectors of the bundled MiniLM"
        f" ({len(documents.values) / documents.items:.0f} of dimension {documents.values.shape[1]} each), "
        + " and ".join(f"{queries[name].items} {name} ({size:.0f} vectors each)" for name, size in sizes.items())
        + " as queries, one at a time, one thread. Written by `benchmarks/multivector.py`.", "",
        "## Search", "",
        "Recall is of the ten documents of largest exact MaxSim, with a 95 % interval over queries; milliseconds are CPU"
        " time of one query, its encoding by the model left out; the last number is the shortlist that is scored exactly.", "",
        *end_to_end(documents, queries),
        "## Making encodings", "",
        "(20, 5, 16) with the directions and projections of fastembed's `Muvera`, 10,240 coordinates; items a CPU second.", "",
        *making(documents, queries["titles"]),
    ]  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "multivector.md").write_text("\n".join(text))
    print(json.dumps({"documents": documents.items, "out": str(given.out / "multivector.md")}))


if __name__ == "__main__":
    main()

"""Exact top-10 in Isometry and in faiss at its best setting: one thread, queries per core-second, beside the read limit.

    python benchmarks/exact_search.py VECTORS.npy [--rows 200000] [--out docs/benchmarks]

VECTORS.npy: float32 (n, d) of length one. The last 200 are the queries. Fewer rows than asked for are grown by mixing near
neighbours and noise, and said so. Time is process CPU time, the best of several runs taken in turn. Writes exact_search.md.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from isometry.search.indexes import FlatIndex

K = 10


def grown(vectors: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """The vectors, then mixtures of each with one of its nearest and noise, up to `rows`."""
    if rows <= len(vectors):
        return vectors[:rows]
    draw = np.random.default_rng(seed)
    base = draw.integers(len(vectors), size=rows - len(vectors))
    partners = FlatIndex().build(vectors).search(vectors, 8)[1]
    other = partners[base, draw.integers(1, 8, size=len(base))]
    share = draw.uniform(0.3, 0.7, (len(base), 1)).astype(np.float32)
    noise = draw.standard_normal((len(base), vectors.shape[1]), dtype=np.float32) * np.float32(
        0.3 / vectors.shape[1] ** 0.5
    )
    mixed = vectors[base] * share + vectors[other] * (1 - share) + noise
    return np.concatenate([vectors, mixed / np.linalg.norm(mixed, axis=1, keepdims=True)])


def fastest(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Best CPU seconds of each, all of them in turn in every round."""
    best = dict.fromkeys(contenders, float("inf"))
    for run in contenders.values():
        run()
    for _ in range(repeats):
        for name, run in contenders.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - began)
    return best


def at_threshold(threshold: int, index: faiss.Index, queries: np.ndarray) -> object:
    """A faiss search with batches of at least `threshold` queries going through BLAS."""
    faiss.cvar.distance_compute_blas_threshold = threshold
    return index.search(queries, K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    shipped = faiss.cvar.distance_compute_blas_threshold
    real = np.load(given.vectors)
    queries, held = real[-200:].copy(), grown(real[:-200], given.rows)
    flat, peer = FlatIndex(threads=1).build(held), faiss.IndexFlatIP(held.shape[1])
    peer.add(held)
    codes = flat._parts[0].codes
    assert codes is not None
    left, right = torch.from_numpy(codes[:4096]), torch.from_numpy(codes[:100].copy()).t()
    lines = []
    for batch in (1, 100):
        asked = queries[:batch]
        found, truth = flat.search(asked, K)[1], peer.search(asked, K)[1]
        same = float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, truth, strict=True)]))
        seconds = fastest(
            {
                "isometry": lambda asked=asked: flat.search(asked, K),
                "faiss, shipped": lambda asked=asked: at_threshold(shipped, peer, asked),
                "faiss, 20": lambda asked=asked: at_threshold(20, peer, asked),
                "faiss, no query blocks": lambda asked=asked: [
                    peer.search(asked[i : i + 1], K) for i in range(len(asked))
                ],
                "read": lambda: codes.view(np.int64).sum(),
                "product": lambda: torch._int_mm(left, right),
            },
            given.repeats,
        )
        setting = min((name for name in seconds if name.startswith("faiss")), key=seconds.__getitem__)
        ours, theirs = batch / seconds["isometry"], batch / seconds[setting]
        if batch == 1:
            limit = 1 / seconds["read"]
            name = "reading the int8 copy once"
        else:
            limit = 100 / (seconds["product"] * len(held) / len(left))
            name = "the int8 matrix product alone"
        ratios = f"{ours / theirs:.1f} | {ours / limit:.2f} of {name}"
        again = flat.search_with_plan(asked, K)[2]["candidates"] / batch
        lines.append(f"| {batch} | {ours:.0f} | {theirs:.0f} ({setting[7:]}) | {ratios} | {same:.4f} | {again:.0f} |")
    made = f"{len(real) - 200} real" + (f", grown to {len(held)}" if len(held) >= len(real) else "")
    text = [
        "# Exact search", "",
        f"{made} vectors of dimension {held.shape[1]}, top {K}, one thread, queries per core-second (process CPU time, best of"
        f" {given.repeats}, in turn).",
        f"faiss {faiss.__version__} IndexFlatIP at the best of its settings here (BLAS threshold named). Written by"
        " `benchmarks/exact_search.py`; absolute figures are the machine's, compare ratios.", "",
        "| batch | Isometry | faiss (threshold) | ratio | of the limit | same rows as faiss | rows scored again, each query |",
        "|---|---|---|---|---|---|---|", *lines, "",
    ]  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "exact_search.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()

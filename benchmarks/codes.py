"""Codes: recall after exact re-scoring at equal bytes, and scan speed against faiss, one thread.

    python benchmarks/codes.py VECTORS.npy [--rows 1000000] [--grow 200000] [--out docs/benchmarks]

VECTORS.npy: float32 (n, d) of length one; the last 500 are queries held out, the others are grown to --grow rows by
mixing near neighbours and noise (as in exact_search.py). Quality: recall@10 of the float32 top 10 with no, 20, 40 and
100 exact scores, with a 95 % bootstrap interval over queries, and the paired difference to the best rival of equal
bytes. Codes are fitted on at most 20000 rows, all alike. Speed: random codes of 384 bits, top 10, giga-bytes of codes
per core-second, beside the read limit of the same run. Writes codes.md.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exact_search import grown

from isometry.compression import CodeEstimator, ProductQuantizer, RaBitQ, RecurrentBinary, SignBinarizer
from isometry.search.indexes import FlatIndex
from isometry.search.kernels.bits import block_layout, hamming_top, query_words
from isometry.search.kernels.nibbles import nibble_layout, nibble_tables, nibble_top, row_factors

K = 10
SHORTLISTS = (K, 20, 40, 100)
FITTED, BLOCK = 20_000, 8192

# Dimensions such that factors, norms and bits together fill the bytes; ours first, then the rivals.
CONTENDERS: dict[int, tuple[CodeEstimator, ...]] = {
    48: (
        RecurrentBinary(368, loops=0), RecurrentBinary(184, loops=1),
        SignBinarizer(384), RaBitQ(dimension=320), RaBitQ(2, dimension=144), ProductQuantizer(48),
        ProductQuantizer(48, rotate=True), ProductQuantizer(96, bits=4, rotate=True),
    ),
    96: (
        RecurrentBinary(752, loops=0), RecurrentBinary(376, loops=1),
        SignBinarizer(768), RaBitQ(2, dimension=304), RaBitQ(4, dimension=152), ProductQuantizer(96),
        ProductQuantizer(96, rotate=True), ProductQuantizer(192, bits=4, rotate=True),
    ),
}  # fmt: skip


def recalls(code: CodeEstimator, held: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Recall of each query with each shortlist, (shortlists, q)."""
    score = code.scorer(queries)
    best, rows = np.full((len(queries), SHORTLISTS[-1]), -np.inf), np.zeros((len(queries), SHORTLISTS[-1]), np.int64)
    for at in range(0, len(held), BLOCK):
        scores = score(code.transform(held[at : at + BLOCK]))
        ids = np.broadcast_to(np.arange(at, at + scores.shape[1]), scores.shape)
        best, rows = np.concatenate([best, scores], axis=1), np.concatenate([rows, ids], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, : SHORTLISTS[-1]]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    return np.array([
        [len(np.intersect1d(a[:size], b)) / K for a, b in zip(rows, truth, strict=True)] for size in SHORTLISTS
    ])  # fmt: skip


def interval(each: np.ndarray) -> tuple[float, float]:
    draw = np.random.default_rng(0).integers(len(each), size=(2000, len(each)))
    low, high = np.quantile(each[draw].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def quality(held: np.ndarray, queries: np.ndarray) -> list[str]:
    truth = FlatIndex().build(held).search(queries, K)[1]
    some = held[np.random.default_rng(1).permutation(len(held))[:FITTED]]
    lines, against = [], []
    for size, codes in CONTENDERS.items():
        measured: dict[str, np.ndarray] = {}
        for code in codes:
            began = time.process_time()
            fitted = code.fit(some)
            spent = time.process_time() - began
            name = "`" + " ".join(repr(code).split()) + "`"
            measured[name] = recalls(fitted, held, queries, truth)
            cells = [
                f"{each.mean():.3f} [{low:.3f}, {high:.3f}]"
                for each in measured[name]
                for low, high in [interval(each)]
            ]
            lines.append(
                f"| {fitted.bytes_per_vector} | {name} | {' | '.join(cells)} | {spent:.0f} | {fitted.shared_bytes // 1024} |"
            )
            print(lines[-1], flush=True)
        ours = [name for name in measured if "RecurrentBinary" in name]
        rivals = [name for name in measured if name not in ours]
        for name in ours:
            cells = []
            for i in range(len(SHORTLISTS)):
                rival = max(rivals, key=lambda r: measured[r][i].mean())
                gain = measured[name][i] - measured[rival][i]
                low, high = interval(gain)
                cells.append(f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
            against.append(f"| {size} | {name} | {' | '.join(cells)} |")
    heads = " | ".join("no exact scores" if size == K else str(size) for size in SHORTLISTS)
    rule = "|---" * len(SHORTLISTS)
    return [
        f"| bytes | code | {heads} | seconds to fit | shared KiB |", f"|---|---{rule}|---|---|", *lines, "",
        "Gain over the best rival of equal bytes in the same column, paired over queries:", "",
        f"| bytes | code | {heads} |", f"|---|---{rule}|", *against,
    ]  # fmt: skip


def best_seconds(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each, all of them in turn in every round."""
    best = dict.fromkeys(contenders, float("inf"))
    for run in contenders.values():
        run()
    for _ in range(repeats):
        for name, run in contenders.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - began)
    return best


def speed(rows: int) -> list[str]:
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 256, (rows, 48), dtype=np.uint8)
    allowed = draw.random(rows) < 0.5
    peer = faiss.IndexBinaryFlat(384)
    peer.add(codes)
    few = rows // 2
    fast = faiss.IndexPQFastScan(384, 96, 4, faiss.METRIC_INNER_PRODUCT)
    sample = draw.standard_normal((5000, 384)).astype(np.float32)
    fast.train(sample)
    for at in range(0, few, 50_000):
        fast.add(draw.standard_normal((min(50_000, few - at), 384)).astype(np.float32))
    blocks, digits = block_layout(codes), nibble_layout(codes[:few])
    factor = row_factors(draw.uniform(0.9, 1.1, few).astype(np.float16))
    lines = []
    for batch, repeats in ((1, 9), (100, 3)):
        asked = draw.integers(0, 256, (batch, 48), dtype=np.uint8)
        words, floats = query_words(asked), draw.standard_normal((batch, 384)).astype(np.float32)
        tables = nibble_tables(draw.standard_normal((batch, 96, 16)).astype(np.float32))

        def hamming(masked: bool, words: np.ndarray = words) -> None:
            found, distances = (np.empty((len(words), 2 * K), np.int64) for _ in range(2))
            counts = np.zeros((len(words), 386), np.int64)
            hamming_top(blocks, rows, words, allowed, masked, found, distances, counts)

        def look_up(masked: bool, tables: tuple[np.ndarray, ...] = tables, batch: int = batch) -> None:
            found, scores = np.empty((batch, K), np.int64), np.empty((batch, K), np.float32)
            nibble_top(digits, few, *tables, factor, allowed, masked, found, scores)

        spent = best_seconds({
            "limit": lambda: blocks.view(np.int64).sum(),
            "hamming": lambda: hamming(False), "hamming, bitmap": lambda: hamming(True),
            "binary flat": lambda asked=asked: peer.search(asked, K),
            "digits": lambda: look_up(False), "digits, bitmap": lambda: look_up(True),
            "fast scan": lambda floats=floats: fast.search(floats, K),
        }, repeats)  # fmt: skip
        limit = codes.nbytes / spent["limit"] / 1e9
        for what, ours, theirs, scanned in (
            ("1 bit x 384 (faiss: IndexBinaryFlat)", "hamming", "binary flat", rows),
            ("4-bit digits, 48 bytes and a factor (faiss: PQ4 fast scan, no factor)", "digits", "fast scan", few),
        ):
            done = batch * scanned * 48 / 1e9
            plain, filtered, other = (done / spent[name] for name in (ours, f"{ours}, bitmap", theirs))
            cells = f"{plain:.1f} | {filtered:.1f} | {other:.1f} | {plain / other:.2f} | {plain / limit:.2f}"
            lines.append(f"| {what}, batch {batch} | {cells} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--grow", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    speeds = speed(given.rows)
    real = np.load(given.vectors)
    queries = real[-500:].copy()
    held = grown(real[:-500].copy(), given.grow)
    text = [
        "# Codes", "",
        f"{len(real) - 500} real vectors of dimension {held.shape[1]}, grown to {len(held)}; {len(queries)} held-out"
        f" real queries; codes fitted on {min(FITTED, len(held))} rows. Written by `benchmarks/codes.py`.", "",
        "## Recall@10 of the float32 top 10 after scoring a shortlist exactly", "",
        *quality(held, queries), "",
        "## Scan speed, GB of codes per core-second, top 10 included", "",
        f"{given.rows} random codes (digits: half of them), least of several runs in turn. faiss has no filter here.", "",
        "| scan | Isometry | with a bitmap of 50 % | faiss | ratio | of the read limit |", "|---|---|---|---|---|---|",
        *speeds, "",
    ]  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "codes.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()

"""Codes: recall after exact re-scoring at equal bytes, and scan speed against faiss, one thread.

    python benchmarks/codes.py --data DATA --work FOLDER [--rows 1000000] [--out docs/benchmarks]

The titles of DATA/arxiv/arxiv.parquet by the bundled encoder, kept in FOLDER/titles.npy; 1000 drawn at random are
queries held out. Quality: recall@10 of the float32 top 10 with no, 20, 40 and 100 exact scores, with a 95 % bootstrap
interval over queries, and the paired difference to the best rival of equal bytes. Codes are fitted on the same 20000
rows, all alike. Speed: random codes of 384 bits, top 10, giga-bytes of codes per core-second, beside the read limit of
the same run. What is measured is kept in FOLDER, so that a run that was cut off goes on. Writes codes.md and codes.json.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from isometry.compression import CodeEstimator, ProductQuantizer, RaBitQ, RecurrentBinary, SignBinarizer
from isometry.search.indexes import FlatIndex
from isometry.search.kernels.bits import block_layout, hamming_top, query_words
from isometry.search.kernels.nibbles import nibble_layout, nibble_tables, nibble_top, row_factors

K = 10
SHORTLISTS = (K, 20, 40, 100)
QUERIES, FITTED, BLOCK = 1000, 20_000, 8192

# Dimensions such that factors, norms and bits together fill the bytes; ours first, then the rivals.
CONTENDERS: dict[int, tuple[CodeEstimator, ...]] = {
    48: (
        RecurrentBinary(368, loops=0), RecurrentBinary(184, loops=1),
        SignBinarizer(384), RaBitQ(dimension=320), RaBitQ(2, dimension=112), ProductQuantizer(48),
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
    # RaBitQ's score is the product with its decoded vector, which is quicker for many queries.
    decoded = isinstance(code, RaBitQ)
    score = (lambda codes: queries @ code.inverse_transform(codes).T) if decoded else code.scorer(queries)
    best, rows = np.full((len(queries), SHORTLISTS[-1]), -np.inf), np.zeros((len(queries), SHORTLISTS[-1]), np.int64)
    for at in range(0, len(held), BLOCK):
        scores = score(code.transform(held[at : at + BLOCK]))
        ids = np.argpartition(-scores, min(SHORTLISTS[-1], scores.shape[1]) - 1, axis=1)[:, : SHORTLISTS[-1]]
        scores, ids = np.take_along_axis(scores, ids, 1), ids + at
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


def titles(data: Path, work: Path) -> np.ndarray:
    """Vectors (n, 384) of all titles, encoded once."""
    path = work / "titles.npy"
    if not path.is_file():
        from isometry.encoders import load_encoder

        texts = pq.read_table(data / "arxiv" / "arxiv.parquet", columns=["title"])["title"].to_pylist()
        np.save(work / "part.npy", load_encoder("default").encode(texts))
        (work / "part.npy").rename(path)
    return np.load(path)


def measured_once(code: CodeEstimator, work: Path, measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `measure` gives, kept in `work` under everything that it follows from: the code, its source, the set-up."""
    source = Path(sys.modules[type(code).__module__].__file__ or "").read_bytes()
    what = [repr(code), source.hex(), QUERIES, FITTED, SHORTLISTS]
    path = work / f"codes-{hashlib.blake2b(repr(what).encode(), digest_size=8).hexdigest()}.json"
    if not path.is_file():
        path.write_text(json.dumps(measure()))
    return json.loads(path.read_text())


def quality(held: np.ndarray, queries: np.ndarray, work: Path) -> tuple[list[str], list[dict[str, object]]]:
    """Recall and bytes of every code on real vectors, with paired gains over the best rival of equal bytes."""
    truth = FlatIndex().build(held).search(queries, K)[1]
    some = held[np.random.default_rng(1).permutation(len(held))[:FITTED]]
    lines, against, figures = [], [], []
    for size, codes in CONTENDERS.items():
        measured: dict[str, np.ndarray] = {}
        for code in codes:

            def measure(code: CodeEstimator = code) -> dict[str, object]:
                began = time.process_time()
                fitted = code.fit(some)
                spent = time.process_time() - began
                found = recalls(fitted, held, queries, truth)
                sizes = {"bytes": fitted.bytes_per_vector, "shared_bytes": fitted.shared_bytes}
                return {**sizes, "seconds_to_fit": spent, "recall": found.round(3).tolist()}

            kept = measured_once(code, work, measure)
            if kept["bytes"] != size:
                raise SystemExit(f"{code!r} takes {kept['bytes']} bytes and stands among those of {size}")
            name = "`" + " ".join(repr(code).split()) + "`"
            measured[name] = np.array(kept["recall"])
            cells = [
                f"{each.mean():.3f} [{low:.3f}, {high:.3f}]"
                for each in measured[name]
                for low, high in [interval(each)]
            ]
            spent, shared = kept["seconds_to_fit"], kept["shared_bytes"] // 1024
            lines.append(f"| {kept['bytes']} | {name} | {' | '.join(cells)} | {spent:.0f} | {shared} |")
            print(lines[-1], flush=True)
            means = dict(zip(map(str, SHORTLISTS), measured[name].mean(axis=1).tolist(), strict=True))
            figures.append({**kept, "code": name.strip("`"), "recall": means})
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
    text = [
        f"| bytes | code | {heads} | seconds to fit | shared KiB |", f"|---|---{rule}|---|---|", *lines, "",
        "Gain over the best rival of equal bytes in the same column, paired over queries:", "",
        f"| bytes | code | {heads} |", f"|---|---{rule}|", *against,
    ]  # fmt: skip
    return text, figures


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


def speed(rows: int) -> tuple[list[str], dict[str, object]]:
    """GB of codes a core-second with top 10 inside, ours and faiss, in turn, beside the read limit."""
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
    lines: list[str] = []
    scans: list[dict[str, object]] = []
    limits: list[float] = []
    for batch, repeats in ((1, 60), (100, 5)):
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
        limits.append(limit)
        for what, ours, theirs, scanned in (
            ("1 bit x 384 (faiss: IndexBinaryFlat)", "hamming", "binary flat", rows),
            ("4-bit digits, 48 bytes and a factor (faiss: PQ4 fast scan, no factor)", "digits", "fast scan", few),
        ):
            done = batch * scanned * 48 / 1e9
            plain, filtered, other = (done / spent[name] for name in (ours, f"{ours}, bitmap", theirs))
            cells = f"{plain:.1f} | {filtered:.1f} | {other:.1f} | {plain / other:.2f} | {plain / limit:.2f}"
            lines.append(f"| {what}, batch {batch} | {cells} |")
            rates = {"isometry": plain, "with_bitmap": filtered, "faiss": other, "read_limit": limit}
            scans.append({"scan": what, "batch": batch, **rates})
            print(lines[-1], flush=True)
    return lines, {"read_limit_gb_per_second": max(limits), "gb_per_core_second": scans}


def main() -> None:
    """Measure, or read what was measured with these very settings, and write codes.md and codes.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    faiss.omp_set_num_threads(1)
    vectors = titles(given.data, given.work)
    order = np.random.default_rng(0).permutation(len(vectors))
    queries, held = (np.ascontiguousarray(vectors[rows]) for rows in (order[:QUERIES], np.sort(order[QUERIES:])))
    found, figures = quality(held, queries, given.work)
    speeds, rates = speed(given.rows)
    text = [
        "# Codes", "",
        f"{len(held):,} titles of arXiv papers as vectors of the bundled encoder, dimension {held.shape[1]}; {len(queries):,}"
        f" further titles are the queries; codes fitted on {FITTED:,} rows. Written by `benchmarks/codes.py`.", "",
        "## Recall@10 of the float32 top 10 after scoring a shortlist exactly", "",
        *found, "",
        "## Scan speed, GB of codes per core-second, top 10 included", "",
        f"{given.rows:,} random codes (digits: half of them), least of several runs in turn. faiss has no filter here. The"
        f" read limit of the same run, one thread: {rates['read_limit_gb_per_second']:.1f} GB a second.", "",
        "| scan | Isometry | with a bitmap of 50 % | faiss | ratio | of the read limit |", "|---|---|---|---|---|---|",
        *speeds, "",
    ]  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "codes.md").write_text("\n".join(text))
    (given.out / "codes.json").write_text(json.dumps({"quality": figures, "speed": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()

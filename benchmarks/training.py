"""Training against plain sentence-transformers, gradient caching in bounded memory, and what a cut model gains.

    python benchmarks/training.py [--data FOLDER] [--repeats 3] [--part throughput|lengths|memory|cut …] [--out docs/benchmarks]

Throughput: both train the bundled encoder with the same contrastive loss, batch, steps and rate on the same rows, in turn
in one process; CPU seconds from the rows in memory to the saved model, so that neighbours count for little. Lengths: whether
batches of like length cost quality. Memory: peak
resident memory of a process that takes a step of 4,096 pairs. Cut: CPU seconds to encode. Writes training.md and
training.json; a part that is not asked for keeps its figures.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from isometry.encoders.text import truncate
from isometry.evaluation import paired_bootstrap
from isometry.recipes._data import find_data
from isometry.recipes._text import encode, reciprocal_ranks
from isometry.training import TrainingData, load_model, preset, train
from isometry.training.stages import LikeLengthSampler

PLAIN, SAME, LENGTH, HALF = (
    "sentence-transformers",
    "isometry, rows as they come",
    "isometry",
    "isometry, bfloat16",
)
CUTS = ((2, 96), (3, 96))
PAIRS = 4096
SEEDS = 5
TRAIN, HELD = slice(0, 2000), slice(2000, 2500)


def cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def papers(folder: Path | None, rows: int) -> TrainingData:
    """Titles and abstracts: texts of very different lengths."""
    table = pq.read_table(find_data("arxiv/arxiv-small.parquet", folder), columns=["title", "abstract"])
    texts = table.slice(0, rows).to_pydict()
    return TrainingData("pairs", {"anchor": texts["title"], "positive": texts["abstract"]})


def descriptions(folder: Path | None, rows: int) -> TrainingData:
    """Two descriptions of a picture: short texts."""
    table = pq.read_table(find_data("images/flickr8k-captions.parquet", folder), columns=["image", "caption"])
    groups: dict[str, list[str]] = {}
    for image, text in zip(table["image"].to_pylist(), table["caption"].to_pylist(), strict=True):
        groups.setdefault(image, []).append(text)
    pairs = [(texts[i], texts[i + 1]) for texts in groups.values() for i in range(len(texts) - 1)][:rows]
    return TrainingData("pairs", {"anchor": [one for one, _ in pairs], "positive": [two for _, two in pairs]})


def plain(data: TrainingData, steps: int, batch: int, out: Path) -> None:
    """What their documentation shows, with the settings of ours."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = load_model("default")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=2e-5,
        warmup_steps=round(0.1 * steps),
        weight_decay=0.01,
        use_cpu=True,
        save_steps=steps,
        logging_steps=max(1, min(10, steps // 10)),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        # The same batches in the same order as ours, rows as they come: else their padding differs by some per cent.
        seed=0,
        data_seed=0,
        batch_sampler=functools.partial(LikeLengthSampler, window=1),
    )
    loss = MultipleNegativesRankingLoss(model, scale=20.0)
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(data.texts), loss=loss
    ).train()
    model.save(str(out / "model"))


def ours(data: TrainingData, steps: int, batch: int, out: Path, **changes: Any) -> None:
    run = preset("contrastive", steps=steps, batch_size=batch, save_every=steps, **changes)
    train(run, out / "model", data=data)


def throughput(folder: Path | None, repeats: int) -> list[dict[str, Any]]:
    """Pairs a CPU second of every contender on the same rows, in turn."""
    contenders: dict[str, Callable[..., None]] = {
        PLAIN: plain,
        SAME: lambda *given: ours(*given, length_window=1),
        LENGTH: ours,
        HALF: lambda *given: ours(*given, precision="bfloat16"),
    }
    rows = []
    for name, data, batch, steps in (
        ("titles and abstracts of papers", papers(folder, 64), 8, 8),
        ("two descriptions of a picture", descriptions(folder, 512), 64, 8),
    ):
        spent: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(repeats):
            for contender, work in contenders.items():
                with tempfile.TemporaryDirectory() as out:
                    given = (data, steps, batch, Path(out))
                    spent[contender].append(cpu_seconds(functools.partial(work, *given)))
        for contender, seconds in spent.items():
            ratios = [base / own for base, own in zip(spent[PLAIN], seconds, strict=True)]
            rows.append(
                {
                    "data": name,
                    "batch": batch,
                    "steps": steps,
                    "contender": contender,
                    "pairs_per_cpu_second": steps * batch / statistics.median(seconds),
                    "ratio": statistics.median(ratios),
                    "ratio_least": min(ratios),
                    "ratio_most": max(ratios),
                    "cpu_seconds": seconds,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def lengths(folder: Path | None, seeds: int) -> list[dict[str, Any]]:
    """MRR of held-out abstracts by their titles after equal steps on batches of like length, and as rows come."""
    whole = papers(folder, 2500)
    data, held = (TrainingData("pairs", {k: v[part] for k, v in whole.texts.items()}) for part in (TRAIN, HELD))
    found: dict[int, list[float]] = {window: [] for window in (1, 16)}
    for seed in range(seeds):
        for window, values in found.items():
            with tempfile.TemporaryDirectory() as out:
                changes = {"length_window": window, "seed": seed, "freeze": 4, "max_tokens": 64}
                ours(data, 40, 32, Path(out), **changes, precision="bfloat16")
                model = load_model(f"{out}/model").to("cpu")
            queries, documents = (encode(model, held.texts[name]) for name in ("anchor", "positive"))
            values.append(float(reciprocal_ranks(queries, documents).mean()))
            print(seed, window, values[-1], file=sys.stderr, flush=True)
    compared = paired_bootstrap(np.array(found[16]), np.array(found[1]))
    return [
        {"window": window, "mrr": statistics.mean(values), "values": values} for window, values in found.items()
    ] + [{"effect": compared.effect, "interval": [compared.low, compared.high], "p": compared.p}]


def memory(folder: Path | None) -> list[dict[str, Any]]:
    """Peak memory of a step with and without gradient caching, each in a process of its own."""
    rows = []
    for pairs, mini in ((256, 0), (256, 32), (PAIRS, 32)):
        asked = [sys.executable, __file__, "--step", str(pairs), str(mini)]
        asked += ["--data", str(folder)] if folder else []
        done = subprocess.run(asked, check=True, capture_output=True, text=True)
        rows.append({"pairs": pairs, "mini_batch": mini, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def one_step(folder: Path | None, pairs: int, mini: int) -> None:
    data = descriptions(folder, pairs)
    with tempfile.TemporaryDirectory() as out:
        began = time.process_time()
        ours(data, 1, pairs, Path(out), mini_batch_size=mini)
        spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": len(data), "peak_bytes": peak, "cpu_seconds": spent}))


def cut(folder: Path | None, repeats: int) -> list[dict[str, Any]]:
    """The whole encoder and its cuts, encoding the same abstracts in turn with sentence-transformers' own encode."""
    whole = load_model("default").to("cpu")
    models = {"6 layers, 384 dimensions": whole}
    models |= {f"{layers} layers, {width} dimensions": truncate(whole, (layers, width)) for layers, width in CUTS}
    texts = papers(folder, 400).texts["positive"]
    spent: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            work = functools.partial(model.encode, texts, batch_size=32, show_progress_bar=False)
            spent[name].append(cpu_seconds(work))
    first = next(iter(models))
    rows = []
    for name, seconds in spent.items():
        ratios = [base / own for base, own in zip(spent[first], seconds, strict=True)]
        rows.append(
            {
                "model": name,
                "parameters": sum(value.numel() for value in models[name].parameters()),
                "texts_per_cpu_second": len(texts) / statistics.median(seconds),
                "ratio": statistics.median(ratios),
                "ratio_least": min(ratios),
                "ratio_most": max(ratios),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure the parts asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", nargs="+", default=["throughput", "lengths", "memory", "cut"])
    parser.add_argument("--step", nargs=2, type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.step:
        one_step(given.data, *given.step)
        return
    file = given.out / "training.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    names = ("torch", "sentence-transformers", "transformers", "accelerate")
    about = {
        "repeats": given.repeats,
        "threads": given.threads,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}},
    }
    works: dict[str, Callable[[], Any]] = {
        "throughput": lambda: throughput(given.data, given.repeats),
        "lengths": lambda: lengths(given.data, SEEDS),
        "memory": lambda: memory(given.data),
        "cut": lambda: cut(given.data, given.repeats),
    }
    for part in given.part:
        result[part] = {"rows": works[part](), **about}
    given.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "training.md").write_text(page(result))
    print(page(result))


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def page(result: dict[str, Any]) -> str:
    """The tables as the documentation shows them."""
    lines = ["# Training", "", "all-MiniLM-L6-v2 throughout. Written by `python benchmarks/training.py`.", ""]
    if "throughput" in result:
        part = result["throughput"]
        lines += [
            "## Against plain sentence-transformers",
            "",
            "The same contrastive loss, batch, steps, rate and rows; CPU seconds from rows in memory to the saved model, in turn "
            f"in one process, {part['repeats']} repeats, {part['threads']} thread(s); medians. sentence-transformers and 'rows as "
            "they come' see the same batches in the same order.",
            "",
            "| data | batch | contender | pairs per CPU second | times plain (least to most) |",
            "|---|---:|---|---:|---:|",
        ]
        for row in part["rows"]:
            lines.append(
                f"| {row['data']} | {row['batch']} | {row['contender']} | {row['pairs_per_cpu_second']:.1f} | "
                f"{row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f}) |"
            )
        lines += ["", _about(part), ""]
    if "lengths" in result:
        part = result["lengths"]
        *arms, compared = part["rows"]
        low, high = compared["interval"]
        lines += [
            "## Do batches of like length cost quality?",
            "",
            f"MRR of 500 held-out abstracts by their titles, mean of {len(arms[0]['values'])} seeds; 40 steps of 32 pairs of at most 64 tokens "
            "in bfloat16, the first four layers fixed.",
            "",
            "| batches | MRR |",
            "|---|---:|",
            *(
                f"| {'rows as they come' if row['window'] == 1 else 'of like length'} | {row['mrr']:.4f} |"
                for row in arms
            ),
            "",
            f"Difference {compared['effect']:+.4f} [{low:+.4f}, {high:+.4f}], p = {compared['p']:.2g}. {_about(part)}",
            "",
        ]
    if "memory" in result:
        part = result["memory"]
        lines += [
            "## Large batches in little memory",
            "",
            "Peak resident memory of a process that takes one step, model and libraries included; short descriptions.",
            "",
            "| pairs in the batch | texts embedded at a time | peak memory | CPU seconds |",
            "|---:|---:|---:|---:|",
        ]
        for row in part["rows"]:
            at_a_time = f"{row['mini_batch']}" if row["mini_batch"] else "all (no caching)"
            lines.append(
                f"| {row['pairs']:,} | {at_a_time} | {row['peak_bytes'] / 2**30:.2f} GiB | {row['cpu_seconds']:.0f} |"
            )
        lines += ["", _about(part), ""]
    if "cut" in result:
        part = result["cut"]
        lines += [
            "## What a cut model gains",
            "",
            "Abstracts encoded with `SentenceTransformer.encode`; the cut is what `save_truncated` saves. Recipe `starbucks` says "
            "how good it is. Three of six layers are half of the work, so that they come to twice the speed at most.",
            "",
            "| model | million parameters | texts per CPU second | times the whole (least to most) |",
            "|---|---:|---:|---:|",
        ]
        for row in part["rows"]:
            lines.append(
                f"| {row['model']} | {row['parameters'] / 1e6:.1f} | {row['texts_per_cpu_second']:.1f} | "
                f"{row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f}) |"
            )
        lines += ["", _about(part), ""]
    return "\n".join(lines)


def _about(part: dict[str, Any]) -> str:
    return f"{part['machine']}; {', '.join(f'{name} {version}' for name, version in part['versions'].items())}."


if __name__ == "__main__":
    main()

"""Running a suite: every model on every task, each vector computed once, each finished result kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isometry.evaluation.baselines import FittedOnTexts
from isometry.evaluation.mteb_results import read_result, write_result
from isometry.evaluation.selection import cut_curve
from isometry.evaluation.suites import Find, SuiteTask
from isometry.evaluation.tasks import Result, Retrieval, Task, fingerprint
from isometry.evaluation.vector_cache import CachedEncoder
from isometry.types import DescribedEncoder, Encoder, EncoderDescription


@dataclass(frozen=True)
class ModelRun:
    """One model on the tasks of a suite.

    Attributes:
        name: as it was asked for.
        about: what the encoder says of itself.
        results: by task.
        texts_per_second: when the vectors were computed, on whatever machine and load that was; None where no vector
            was needed.
        reused: tasks whose result was there already.
    """

    name: str
    about: EncoderDescription
    results: dict[str, Result]
    texts_per_second: float | None
    reused: tuple[str, ...] = ()


def load_tasks(entries: Sequence[SuiteTask], find: Find) -> list[tuple[Task, str]]:
    """Tasks with their fingerprints; a missing data set is told before anything is encoded."""
    for entry in entries:
        find(entry.file)
    tasks = [entry.load(find) for entry in entries]
    return [(task, fingerprint(task)) for task in tasks]


def run_model(
    name: str,
    encoder: DescribedEncoder,
    tasks: Sequence[tuple[Task, str]],
    cache: Path | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], Any] | None = None,
    encoded: Callable[[int], Any] | None = None,
) -> ModelRun:
    """Judge an encoder on tasks.

    Args:
        name: for the results.
        encoder: says what it is; one that learns from texts (`FittedOnTexts`) is fitted on each task's own.
        cache: folder for vectors.
        out: folder for results, where finished ones are found again.
        progress: called with tasks done and all tasks.
        encoded: with texts newly encoded for the task at hand.
    """
    fits = isinstance(encoder, FittedOnTexts)
    about = encoder.describe()
    shared = None if fits else CachedEncoder(encoder, cache, encoded)
    results: dict[str, Result] = {}
    reused = []
    texts, seconds = 0, 0.0
    for done, (task, revision) in enumerate(tasks):
        if progress is not None:
            progress(done, len(tasks))
        found = read_result(out, about, task.name, revision) if out is not None else None
        if found is not None:
            reused.append(task.name)
        else:
            began = time.perf_counter()
            judged = shared or CachedEncoder(encoder.for_texts(task.texts()), cache, encoded)  # type: ignore[attr-defined]
            found = task.evaluate(judged)
            if out is not None:
                write_result(out, about, found, revision, time.perf_counter() - began)
            if shared is None:
                texts, seconds = texts + judged.texts, seconds + judged.seconds
        results[task.name] = found
    if progress is not None:
        progress(len(tasks), len(tasks))
    if shared is not None:
        texts, seconds = shared.texts, shared.seconds
    return ModelRun(name, about, results, texts / seconds if seconds else None, tuple(reused))


def cut_suite(
    tasks: Sequence[tuple[Task, str]],
    encoders: Mapping[str, DescribedEncoder],
    cache: Path | None = None,
    pool: int = 3,
) -> dict[str, list[float]] | None:
    """`cut_curve` of a suite's retrieval tasks, the pools built by the first `pool` encoders; None without such tasks."""
    retrieval = [task for task, _ in tasks if isinstance(task, Retrieval)]
    if not retrieval:
        return None

    def maker(encoder: DescribedEncoder) -> Callable[[Retrieval], Encoder]:
        if isinstance(encoder, FittedOnTexts):
            return lambda task: CachedEncoder(encoder.for_texts(task.texts()), cache)  # type: ignore[arg-type]
        shared = CachedEncoder(encoder, cache)
        return lambda task: shared

    return cut_curve(retrieval, {name: maker(one) for name, one in encoders.items()}, list(encoders)[:pool])

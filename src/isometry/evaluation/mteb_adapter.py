"""mteb's own tasks and benchmarks, run with our encoders. mteb loads its data from the hub: this needs a network.

`MtebEncoder` satisfies mteb's encoder protocol; `mteb.evaluate(MtebEncoder(encoder), tasks)` works as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError, NotFoundError, StorageError
from isometry.evaluation.ranking import ScoreTable
from isometry.evaluation.tasks._base import document_vectors, query_vectors
from isometry.types import DescribedEncoder


class MtebEncoder:
    """An encoder as mteb wants one: batches of a data loader in, vectors out, cosine similarities.

    Queries are encoded by the encoder's own way for queries where mteb says that they are such. mteb's prompts for
    single tasks are not put in front: what an encoder needs, it brings with it.

    Raises:
        MissingExtraError: mteb is not installed.
    """

    def __init__(self, encoder: DescribedEncoder) -> None:
        self._encoder = encoder
        about = encoder.describe()
        self.mteb_model_meta = _mteb().models.model_meta.ModelMeta.create_empty(
            overwrites={
                "name": f"isometry/{re.sub(r'[^A-Za-z0-9_.=-]+', '_', about.name).strip('_.') or 'model'}",
                "revision": about.fingerprint,
                "embed_dim": about.dimension,
                "max_tokens": about.max_tokens,
                "modalities": ["text"],
                "similarity_fn_name": _mteb().models.model_meta.ScoringFunction.COSINE,
                "framework": [],
            }
        )

    def encode(self, inputs: Iterable[Any], *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Texts of mteb's data loader to float32 `(n, d)`; what else mteb says (task, split, language) changes nothing."""
        texts = [text for batch in inputs for text in batch["text"]]
        as_query = prompt_type is not None and str(getattr(prompt_type, "value", prompt_type)) == "query"
        return (query_vectors if as_query else document_vectors)(self._encoder, texts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of every pair, as mteb computes them."""
        return _mteb().similarity_functions.cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of corresponding rows."""
        return _mteb().similarity_functions.pairwise_cos_sim(embeddings1, embeddings2)


def mteb_tasks(names: Sequence[str]) -> list[Any]:
    """mteb's tasks by name, of benchmarks ('MTEB(eng, v2)') or single ('STS12').

    Raises:
        NotFoundError: mteb knows no such name; the nearest is told.
    """
    mteb = _mteb()
    found: list[Any] = []
    for name in names:
        try:
            found += list(mteb.get_benchmark(name).tasks)
            continue
        except KeyError as error:
            benchmark_hint = str(error.args[0])
        try:
            found.append(mteb.get_task(name))
        except (KeyError, ValueError) as error:
            raise NotFoundError(
                f"mteb knows neither a benchmark nor a task '{name}' ({benchmark_hint.rstrip('.')})"
            ) from error
    return found


def run_mteb(
    encoder: DescribedEncoder, tasks: Sequence[Any], folder: str | Path, batch_size: int = 64
) -> dict[str, float]:
    """Evaluate on mteb's tasks and keep its result files under `folder/results`; what is there is not run again.

    Returns: task name to main score, mean over splits and languages as mteb takes it.
    Raises:
        StorageError: a data set could not be had: no network, or one that asks for a login.
        InputError: mteb failed otherwise; its own message is told.
    """
    mteb = _mteb()
    cache = mteb.cache.ResultCache(Path(folder))
    model = MtebEncoder(encoder)
    found: dict[str, float] = {}
    for task in tasks:
        try:
            result = mteb.evaluate(
                model,
                task,
                cache=cache,
                encode_kwargs={"batch_size": batch_size},
                show_progress_bar=False,
                co2_tracker=False,
            )
        except (OSError, ConnectionError) as error:
            first = " ".join(str(error).split())[:200]
            raise StorageError(
                f"the data of mteb's task '{task.metadata.name}' could not be loaded: {first}"
            ) from error
        except Exception as error:
            if _is_network(error):
                raise StorageError(
                    f"the data of mteb's task '{task.metadata.name}' could not be loaded: no network"
                ) from error
            raise InputError(f"mteb's task '{task.metadata.name}' failed: {error}") from error
        for one in result.task_results:
            found[one.task_name] = float(one.get_score())
    return found


def mteb_scores(models: Sequence[str], tasks: Sequence[Any], folder: str | Path | None = None) -> ScoreTable:
    """Published scores of mteb's results repository, as a table without gaps: tasks that a model lacks are left out.

    Args:
        models: names as mteb has them.
        tasks: of `mteb_tasks`.
        folder: mteb's cache, else its own place; where it does not hold results of these models yet, the repository is
            fetched.
    Raises:
        StorageError: it could not be fetched. InputError: no task has results of all models.
    """
    cache = _mteb().cache.ResultCache(Path(folder) if folder is not None else None)
    names = [task.metadata.name for task in tasks]
    scores = _published(cache, models, names)
    if any(not found for found in scores.values()):
        try:
            cache.download_from_remote()
        except Exception as error:  # git's and the network's own kinds
            first = " ".join(str(error).split())[:200]
            raise StorageError(f"mteb's results repository could not be fetched: {first}") from error
        scores = _published(cache, models, names)
    shared = [task for task in tasks if all(task.metadata.name in found for found in scores.values())]
    if not shared:
        raise InputError(f"no task of {len(tasks)} has results of all {len(models)} models")
    values = [[found[task.metadata.name] for task in shared] for found in scores.values()]
    kinds = tuple(str(task.metadata.type) for task in shared)
    return ScoreTable(tuple(models), tuple(task.metadata.name for task in shared), kinds, np.array(values))


def _published(cache: Any, models: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Model to task to main score; of several revisions the one with the most tasks."""
    found: dict[str, dict[str, float]] = {model: {} for model in models}
    results = cache.load_results(models=list(models), tasks=list(tasks), require_model_meta=False)
    for one in results.model_results:
        scores = {task.task_name: float(task.get_score()) for task in one.task_results}
        if one.model_name in found and len(scores) > len(found[one.model_name]):
            found[one.model_name] = scores
    return found


def _is_network(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, (ConnectionError, TimeoutError)) or "Connect" in type(error).__name__:
            return True
        error = error.__cause__ or error.__context__
    return False


def _mteb() -> Any:
    try:
        import mteb
        import mteb.cache
        import mteb.models.model_meta
        import mteb.similarity_functions
    except ImportError as error:
        raise MissingExtraError("mteb's tasks", "mteb") from error
    return mteb

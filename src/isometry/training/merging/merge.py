"""Merging saved models of one ancestor into one saved model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from isometry.encoders.text import find_backbone
from isometry.errors import ExistsError, InputError, MissingExtraError
from isometry.training.data import TrainingData, as_trained_on, read_training_data
from isometry.training.losses import InfoNCE
from isometry.training.merging.mergers import average, dare, fisher, fold_slerp, ties
from isometry.training.merging.regmean import input_grams, regmean_weight
from isometry.training.merging.self_positioning import Position, self_position
from isometry.training.merging.vectors import TaskVector, task_matrix
from isometry.training.model import load_model
from isometry.training.run import TrainingRun
from isometry.training.train import HUB_NAMES, RUN_FILE

Method = Literal["soup", "task", "slerp", "ties", "dare", "fisher", "regmean", "self-positioning"]
METHODS: tuple[Method, ...] = ("soup", "task", "slerp", "ties", "dare", "fisher", "regmean", "self-positioning")
MERGEKIT = {"soup": "linear", "task": "task_arithmetic", "ties": "ties", "dare": "dare_linear"}
"""Our names of what mergekit has too. Its slerp is of whole weights, ours of task vectors."""
MERGE_FILE = "isometry_merge.json"
NEEDS_DATA = ("fisher", "regmean", "self-positioning")


def merge_models(
    models: Sequence[str | Path],
    out: str | Path,
    method: Method = "soup",
    *,
    base: str | None = None,
    data: str | Path | TrainingData | None = None,
    weights: Sequence[float] | None = None,
    scale: float = 1.0,
    keep: float = 0.2,
    shrink: float = 0.1,
    mu: float = 0.0,
    steps: int = 100,
    batch_size: int = 32,
    learning_rate: float = 1e-2,
    temperature: float = 0.05,
    seed: int = 0,
    mergekit: bool = False,
    say: Callable[[str], None] | None = None,
) -> Position | None:
    """Merge models trained from the same start and save the result as an ordinary folder.

    Args:
        models: two folders or more.
        out: the new folder.
        method: "soup" = weighted mean; "task" = base + scale * sum of the task vectors; "slerp" = folded from the left;
            "ties", "dare" (then averaged); "fisher", "regmean" and "self-positioning" need data.
        base: the common start; default the model that all run files name.
        data: pairs the coefficients or statistics are taken from; keep them out of the evaluation data.
        weights: of the models.
        scale, keep: see `ties`.
        shrink: see `regmean_weight`.
        mu, steps, learning_rate: of the search (paper 10: 1 000 steps of 5e-3).
        temperature, batch_size: of the probe loss; take training's.
        mergekit: let mergekit do what it has (`MERGEKIT`); it trims and drops within every tensor, we over the whole
            vector as the papers do, so that "ties" and "dare" agree with ours only where keep is 1.

    Returns:
        What self positioning found; None for the other methods.

    Raises:
        InputError: fewer than two models, other architectures, other ancestors, or missing data.
    """
    out, say = Path(out), say or (lambda sentence: None)
    if out.exists():
        raise ExistsError(f"'{out}' is there already; choose another name or remove it")
    if method not in METHODS:
        raise InputError(f"no method '{method}'; there are {', '.join(METHODS)}")
    if len(models) < 2:
        raise InputError(f"merging takes two models or more; got {len(models)}")
    if method in NEEDS_DATA and data is None:
        raise InputError(f"{method} takes its numbers from data: give pairs with --data")
    if mergekit and method not in MERGEKIT:
        raise InputError(f"mergekit does {', '.join(MERGEKIT)}, not {method}; leave --mergekit out")
    loaded = [load_model(str(path)) for path in models]
    start_name = base or _common_start([Path(path) for path in models])
    origin = load_model(start_name)
    for path, model in zip(models, loaded, strict=True):
        if model.tokenizer.get_vocab() != origin.tokenizer.get_vocab():
            raise InputError(f"'{path}' has another vocabulary than the base; such models cannot be merged")
    start = origin.state_dict()
    vectors = [TaskVector.between(start, model.state_dict()) for model in loaded]
    for path, vector in zip(models, vectors, strict=True):
        say(f"{path}: task vector of length {vector.norm():.4g}, cosine with the first {vector.cosine(vectors[0]):.3f}")
    rows = read_training_data(data) if isinstance(data, str | Path) else data
    rows = as_trained_on(rows, "info-nce")[0] if rows is not None else None
    if rows is not None and rows.kind != "pairs":
        raise InputError("the data for merging are pairs: columns anchor and positive")
    batches = _batches(rows, batch_size, seed) if rows is not None else iter(())
    position = None
    if method == "self-positioning":
        stacked = {name: torch.stack([vector.parts[name] for vector in vectors]) for name in vectors[0].parts}
        loss = InfoNCE(origin, temperature)
        origin.eval()
        probes = [lambda: loss(_features(origin, next(batches)))] * steps
        position = self_position(origin, start, stacked, probes, learning_rate, mu)
        say(f"self positioning: coefficients {', '.join(f'{c:.3f}' for c in position.coefficients)}")
    elif mergekit:
        merged = _by_mergekit(loaded, origin, method, weights, keep, seed)
        origin.load_state_dict(TaskVector.between(start, merged).apply(start, scale))
    elif method == "regmean":
        merged = vectors[0].unflatten(average(task_matrix(vectors), weights)).apply(start)
        merged |= _regmean(loaded, [next(batches) for _ in range(min(steps, 16))], shrink)
        origin.load_state_dict(merged)
    elif method == "fisher":
        taken = [next(batches) for _ in range(min(steps, 64))]
        information = torch.stack([_information(model, taken, vectors[0], temperature) for model in loaded])
        joined = fisher(task_matrix(vectors), information, weights)
        origin.load_state_dict(vectors[0].unflatten(joined).apply(start, scale))
    else:
        joined = _by_rule(task_matrix(vectors), method, weights, keep, seed)
        origin.load_state_dict(vectors[0].unflatten(joined).apply(start, scale))
    note = {
        "models": [str(path) for path in models],
        "base": start_name,
        "method": method,
        "seed": seed,
        "scale": scale,
    }
    _save(origin, out, {**note, "mergekit": mergekit})
    return position


def _by_rule(matrix: Tensor, method: Method, weights: Sequence[float] | None, keep: float, seed: int) -> Tensor:
    """Task vectors `(n, p)` to one `(p,)` without data."""
    if method == "soup":
        return average(matrix, weights)
    if method == "task":
        return matrix.sum(dim=0)
    if method == "slerp":
        return fold_slerp(matrix, weights)
    if method == "ties":
        return ties(matrix, keep)
    return average(dare(matrix, 1 - keep, torch.Generator().manual_seed(seed)), weights)


def _by_mergekit(
    models: list[Any], origin: Any, method: Method, weights: Sequence[float] | None, keep: float, seed: int
) -> dict[str, Tensor]:
    """The merged state through sentence-transformers' `merge`, at scale 1."""
    from sentence_transformers import SentenceTransformer

    share = list(weights or [1.0] * len(models))
    if len(share) != len(models) or min(share) < 0 or sum(share) <= 0:
        raise InputError(f"{len(models)} models need {len(models)} weights of at least 0 with a sum above 0")
    parameters: dict[str, Any] = {"weight": share}
    if method == "task":
        parameters |= {"weight": [1.0] * len(models), "normalize": False}
    elif method == "ties":
        parameters |= {"weight": [1.0] * len(models), "density": keep, "normalize": True}
    elif method == "dare":
        parameters |= {"weight": [one / sum(share) for one in share], "density": keep, "normalize": False}
    base = {} if method == "soup" else {"base_model": origin}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            merged = SentenceTransformer.merge(models, MERGEKIT[method], parameters=parameters, **base)
    except ImportError as error:
        raise MissingExtraError("merging through mergekit", "merge") from error
    return dict(merged.state_dict())


def _common_start(models: Sequence[Path]) -> str:
    """The model that all run files, or notes of a merge, name."""
    starts = set()
    for path in models:
        if (path / RUN_FILE).is_file():
            starts.add(TrainingRun.from_json(path / RUN_FILE).model)
        elif (path / MERGE_FILE).is_file():
            starts.add(json.loads((path / MERGE_FILE).read_text(encoding="utf-8")).get("base", str(path)))
        else:
            raise InputError(f"'{path}' has no {RUN_FILE}, so its start is unknown; name it with --base")
    if len(starts) > 1:
        raise InputError(
            f"the models started from different ones ({', '.join(sorted(starts))}); merging needs one start"
        )
    return starts.pop()


def _batches(rows: TrainingData, size: int, seed: int) -> Iterator[list[list[str]]]:
    """Batches of text columns without end, reshuffled every pass."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(rows))
    if size < 2:
        raise InputError("the data for merging hold fewer than two rows")
    while True:
        order = torch.randperm(len(rows), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [[column[i] for i in order[start : start + size]] for column in rows.texts.values()]


def _features(model: Any, columns: list[list[str]]) -> list[dict[str, Any]]:
    found = []
    for column in columns:
        features = model.preprocess(column)
        found.append({k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()})
    return found


def _information(model: Any, batches: list[list[list[str]]], like: TaskVector, temperature: float) -> Tensor:
    """Diagonal Fisher information `(p,)`: mean over batches of the squared gradient of the contrastive loss."""
    model.eval()
    loss = InfoNCE(model, temperature)
    total = {name: torch.zeros_like(part) for name, part in like.parts.items()}
    for batch in batches:
        model.zero_grad()
        loss(_features(model, batch)).backward()
        for name, parameter in model.named_parameters():
            if name in total and parameter.grad is not None:
                total[name] += parameter.grad.detach().float() ** 2 / len(batches)
    model.zero_grad()
    return TaskVector(total).flat()


def _regmean(models: Sequence[Any], batches: list[list[list[str]]], shrink: float) -> dict[str, Tensor]:
    grams = []
    for model in models:
        model.eval()

        def run(model: Any = model) -> None:
            for batch in batches:
                for features in _features(model, batch):
                    model(features)

        grams.append(input_grams(model, run))
    states = [model.state_dict() for model in models]
    return {
        f"{name}.weight": regmean_weight(
            [state[f"{name}.weight"] for state in states], [g[name] for g in grams], shrink
        )
        for name in grams[0]
    }


def _save(model: Any, out: Path, note: dict[str, Any]) -> None:
    temporary = out.with_name(f".{out.name}.saving")
    if temporary.exists():
        shutil.rmtree(temporary)
    find_backbone(model).requires_grad_(True)
    model.model_card_data.base_model = HUB_NAMES.get(note["base"])
    model.save(str(temporary))
    (temporary / MERGE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    card = temporary / "README.md"
    merged = ", ".join(f"`{Path(one).name}`" for one in note["models"])
    said = f"{merged} by `{note['method']}`, all trained from `{note['base']}`; see `{MERGE_FILE}`."
    card.write_text(card.read_text(encoding="utf-8") + f"\n## Merged with Isometry\n\n{said}\n", encoding="utf-8")
    temporary.rename(out)

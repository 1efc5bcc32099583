"""Running a training run: data in, an ordinary sentence-transformers folder with a model card out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from isometry.encoders.text import NV_EMBED, Ladder, find_backbone, layer_count
from isometry.errors import DivergedError, ExistsError, InputError, MissingExtraError, NotFoundError
from isometry.evaluation.atomic import write_atomically
from isometry.training.columns import Helpers, consistent_data, for_held_out, training_columns
from isometry.training.data import (
    DataReport,
    TrainingData,
    as_trained_on,
    check_training_data,
    join_training_data,
    read_training_data,
    without_leaks,
)
from isometry.training.losses import (
    InfoNCE,
    LadderLoss,
    LayerDistillationLoss,
    MarginRankingLoss,
    MaskedAutoencoderLoss,
    SampledSizeLoss,
)
from isometry.training.margins import MarginRule
from isometry.training.model import add_adapters, load_model, prepare_model
from isometry.training.processes import wait_for_all, world
from isometry.training.run import TrainingRun

RUN_FILE = "isometry_run.json"
HUB_NAMES = {"default": "sentence-transformers/all-MiniLM-L6-v2"}
"""What a model is called on the hub, for its card."""


@dataclass(frozen=True)
class TrainingStep:
    """How far a run is: steps done and to do, the last logged loss and learning rate, rows per second so far, the last
    loss on held-out rows."""

    step: int
    total: int
    loss: float | None
    learning_rate: float | None
    rows_per_second: float
    held_out_loss: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: the model's folder, steps, seconds, (step, loss) pairs as logged, what the data check said."""

    model: Path
    steps: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    evaluation_losses: tuple[tuple[int, float], ...]
    report: DataReport
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": str(self.model)}


def train(
    run: TrainingRun,
    out: str | Path,
    *,
    data: TrainingData | None = None,
    test: TrainingData | None = None,
    resume: bool = False,
    progress: Callable[[TrainingStep], bool | None] | None = None,
    say: Callable[[str], None] | None = None,
    download: bool = False,
) -> TrainingResult:
    """Train a model and save it to `out`, with the run beside it as `isometry_run.json`.

    Checkpoints and TensorBoard logs lie in `out` + ".training" while it runs; the checkpoints go when it is done. The
    same run on the same machine gives the same weights.

    Args:
        data, test: rows in memory instead of the run's files.
        resume: go on from the last checkpoint.
        progress: called after every step; False stops cleanly with a checkpoint.
        say: told what was found, a sentence at a time.
        download: fetch models and data that only the hub has; nothing else uses the network.

    Started by several processes together (`torchrun`, `accelerate launch`, `isometry train --processes`), each embeds its
    share of every batch; the first one says, writes and saves.

    Raises:
        InputError: the data has a problem (`check_training_data`). ExistsError: `out` is there already, or checkpoints of
            a stopped run.
        DivergedError: a loss or weight is no number; the last good checkpoint stays.
    """
    out = Path(out)
    work = out.with_name(out.name + ".training")
    rank, processes = world()
    if processes > 1 and (rank or progress is None):
        progress = _silent
    say = say if say is not None and rank == 0 else _silent
    if out.exists():
        raise ExistsError(f"'{out}' is there already; choose another name or remove it")
    if not resume and (left := _checkpoints(work)):
        raise ExistsError(
            f"'{work}' holds {left[-1].name} of a run that was stopped; go on with --resume, or remove that folder"
        )
    checkpoint = _last_checkpoint(work, run) if resume else None
    wait_for_all()
    if work.exists() and not resume and rank == 0:
        shutil.rmtree(work)
    torch.manual_seed(run.seed)
    rows = _prepare_rows(run, data, test, say, download)
    model, notes = rows.model, rows.notes
    loss = build_loss(run, model, "label" in rows.columns, download)
    if rank == 0:
        work.mkdir(parents=True, exist_ok=True)
        write_atomically(work / RUN_FILE, run.to_json().encode())
    wait_for_all()
    began = time.perf_counter()
    trainer = _trainer(run, work, model, loss, rows.columns, rows.held, progress, rows.sources)
    adapters = add_adapters(run, model)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.stopped:
        raise KeyboardInterrupt
    if trainer.state.global_step < trainer.state.max_steps:
        notes.append(_why_early(run, trainer.state))
        say(notes[-1])
    if adapters is not None:
        adapters.merge_and_unload()
    _require_finite(model, trainer.state.global_step, work)
    result = _result(out, trainer, time.perf_counter() - began, rows.report, notes)
    if rank == 0:
        _save(model, run, result)
        for folder in work.glob("checkpoint-*"):
            shutil.rmtree(folder)
    wait_for_all()
    return result


@dataclass(frozen=True)
class _Rows:
    """A run's model and its rows as the trainer takes them: columns to train on and held out, the data set of each row,
    what the check of the data said, and what was left out or mined."""

    model: Any
    columns: dict[str, list[Any]]
    held: dict[str, list[Any]] | None
    sources: list[int]
    report: DataReport
    notes: list[str]


def _prepare_rows(
    run: TrainingRun,
    data: TrainingData | None,
    test: TrainingData | None,
    say: Callable[[str], None],
    download: bool,
) -> _Rows:
    data, test, notes = _read(run, data, test, download)
    model = prepare_model(run, download)
    if run.drop_leaks and test is not None:
        data, more = without_leaks(data, test)
        notes += more
    report = check_training_data(data, test, model.tokenizer, model.max_seq_length)
    for sentence in report.notes:
        say(sentence)
    if report.problems:
        raise InputError("; ".join(report.problems))
    held = data.rows([])
    if run.hold_out:
        data, held = _split(data, run)
    helpers = Helpers(run, model, download)
    data, left_out = consistent_data(run, data, helpers)
    columns, more = training_columns(run, model, data, helpers)
    notes += left_out + more
    for sentence in notes:
        say(sentence)
    if len(next(iter(columns.values()))) < 2:
        raise InputError("fewer than two rows are left to train on")
    held_columns = training_columns(for_held_out(run, columns), model, held, helpers)[0] if len(held) else None
    return _Rows(model, columns, held_columns, data.sources, report, notes)


def _read(
    run: TrainingRun, data: TrainingData | None, test: TrainingData | None, download: bool
) -> tuple[TrainingData, TrainingData | None, list[str]]:
    """The run's files, where no rows are given, as its loss takes them; and notes."""
    parts = [data] if data is not None else []
    for name in () if parts else (run.data, *run.more_data):
        parts.append(read_training_data(name, download=download, columns=run.columns))
    taken = [as_trained_on(part, run.loss) for part in parts]
    if test is None and run.test:
        test = read_training_data(run.test, download=download, columns=run.columns)
    return join_training_data([part for part, _ in taken]), test, [note for _, notes in taken for note in notes]


def _why_early(run: TrainingRun, state: Any) -> str:
    best = Path(state.best_model_checkpoint).name.rpartition("-")[2]
    return (
        f"stopped after step {state.global_step} of {state.max_steps}: the loss on held-out rows was not lower in "
        f"{run.patience} evaluations; the weights are those of step {best}, where it was {state.best_metric:.4f}"
    )


def _result(out: Path, trainer: Any, seconds: float, report: DataReport, notes: list[str]) -> TrainingResult:
    history = trainer.state.log_history
    return TrainingResult(
        out,
        int(trainer.state.global_step),
        seconds,
        tuple((int(row["step"]), float(row["loss"])) for row in history if "loss" in row),
        tuple((int(row["step"]), float(row["eval_loss"])) for row in history if "eval_loss" in row),
        report,
        tuple(notes),
    )


def _silent(told: Any) -> None:
    """What the other processes say."""


def train_stages(
    stages: Sequence[TrainingRun],
    out: str | Path,
    *,
    resume: bool = False,
    progress: Callable[[TrainingStep], bool | None] | None = None,
    say: Callable[[str], None] | None = None,
    download: bool = False,
) -> list[TrainingResult]:
    """Several runs in order, each starting from the model of the one before: pre-train, contrastive, instruction.

    Papers 05 and 06. The first stage starts from its own `model`; the models between are kept as OUT.stage-1, ….

    Args:
        resume: pass over the stages whose models are there, and go on in the one that was stopped.

    Returns:
        What the stages that ran gave.
    """
    if not stages:
        raise InputError("a schedule has at least one stage")
    out = Path(out)
    results: list[TrainingResult] = []
    before: Path | None = None
    for number, run in enumerate(stages, start=1):
        if before is not None:
            run = replace(run, model=str(before))
        before = out if number == len(stages) else out.with_name(f"{out.name}.stage-{number}")
        if resume and _finished(before, run):
            continue
        if say is not None and len(stages) > 1:
            say(f"stage {number} of {len(stages)}: {run.recipe}, from {run.model}")
        # A first stage without anything to go on from is a wrong call; a later one has just not begun.
        again = resume and (number == 1 or bool(_checkpoints(before.with_name(before.name + ".training"))))
        results.append(train(run, before, resume=again, progress=progress, say=say, download=download))
    return results


def _finished(model: Path, run: TrainingRun) -> bool:
    """Whether this run's model is there already."""
    return (model / RUN_FILE).is_file() and TrainingRun.from_json(model / RUN_FILE) == run


def build_loss(run: TrainingRun, model: Any, labelled: bool = False, download: bool = False) -> nn.Module:
    """The loss of a run around a model."""
    if run.loss == "masked":
        return MaskedAutoencoderLoss(model, Ladder.of(*(run.ladder or default_ladder(model))), seed=run.seed)
    if run.loss == "cosent":
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        base: nn.Module = CoSENTLoss(model, scale=1 / run.temperature)
    elif run.loss == "margin":
        base = MarginRankingLoss(model)
    elif run.loss == "layers":
        return LayerDistillationLoss(model, load_model(run.teacher, download).to(model.device))
    elif run.loss == "margin-mse":
        from sentence_transformers.sentence_transformer.losses import MarginMSELoss
        from sentence_transformers.util import pairwise_cos_sim

        return MarginMSELoss(model, pairwise_cos_sim)
    elif run.loss == "kl":
        return InfoNCE(
            model,
            run.temperature,
            labels="scores",
            hard_weight=0.0,
            soft_weight=1.0,
            teacher_temperature=run.soft_temperature,
        )
    else:
        base = InfoNCE(
            model,
            run.temperature,
            directions=run.directions,
            in_batch=run.in_batch,
            hard=run.hard,
            labels="scores" if run.soft_weight else "groups" if labelled else None,
            guide=load_model(run.guide, download) if run.guide else None,
            guide_margin=MarginRule("absolute", run.guide_margin),
            focal=run.focal,
            mixed_pairs=run.mixed_pairs,
            mixed_list=run.mixed_list,
            soft_weight=run.soft_weight,
            teacher_temperature=run.soft_temperature,
            learn_temperature=run.learn_temperature,
            mini_batch_size=run.mini_batch_size or None,
        )
    if run.sizes == "ladder":
        return LadderLoss(model, base, Ladder.of(*(run.ladder or default_ladder(model))))
    if run.sizes == "sampled":
        return SampledSizeLoss(model, base, seed=run.seed)
    return base


def default_ladder(model: Any) -> tuple[tuple[int, int], ...]:
    """A third, two thirds, all layers at an eighth, a quarter, all dimensions; 6 x 384: (2, 48), (4, 96), (6, 384)."""
    layers, dimension = layer_count(model), int(model.get_embedding_dimension())
    rungs = [(max(layers // 3, 1), max(dimension // 8, 1)), (max(2 * layers // 3, 1), max(dimension // 4, 1))]
    return tuple(dict.fromkeys([*rungs, (layers, dimension)]))


def _split(data: TrainingData, run: TrainingRun) -> tuple[TrainingData, TrainingData]:
    count = max(1, round(len(data) * run.hold_out))
    order = np.random.default_rng(run.seed).permutation(len(data))
    if len(data) - count < 2:
        raise InputError(f"{len(data)} rows are too few to hold {count} out")
    return data.rows(order[count:].tolist()), data.rows(order[:count].tolist())


def _trainer(
    run: TrainingRun,
    work: Path,
    model: Any,
    loss: nn.Module,
    columns: dict[str, list[Any]],
    held: dict[str, list[Any]] | None,
    progress: Callable[[TrainingStep], bool | None] | None,
    sources: Sequence[int] = (),
) -> Any:
    try:
        from isometry.training._trainer import make_trainer
    except ImportError as error:
        raise MissingExtraError("training", "train") from error
    return make_trainer(run, work, model, loss, columns, held, progress, sources)


def _last_checkpoint(work: Path, run: TrainingRun) -> Path:
    if not (work / RUN_FILE).is_file():
        raise NotFoundError(f"nothing to resume: '{work}' holds no run")
    if TrainingRun.from_json(work / RUN_FILE) != run:
        raise InputError(f"'{work}' belongs to a run with other settings; resume with the same ones")
    whole = _checkpoints(work)
    if not whole:
        raise NotFoundError(f"'{work}' holds no checkpoint yet; start the run without --resume")
    return whole[-1]


def _checkpoints(work: Path) -> list[Path]:
    """The whole ones, oldest first."""
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rsplit("-", 1)[-1]))
    return [folder for folder in found if _is_whole(folder / "trainer_state.json")]


def _is_whole(state: Path) -> bool:
    """The trainer writes this file last; a kill may leave it out or cut it short."""
    try:
        return bool(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _require_finite(model: nn.Module, step: int, work: Path) -> None:
    if bool(torch.isfinite(nn.utils.get_total_norm(list(model.parameters())))):
        return
    broken = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        raise DivergedError(f"after step {step} the weight {broken[0]} is no number; checkpoints are in '{work}'")


def _save(model: Any, run: TrainingRun, result: TrainingResult) -> None:
    if run.instruction:
        model.prompts["query"] = NV_EMBED.prompt(run.instruction)
    find_backbone(model).requires_grad_(True)
    temporary = result.model.with_name(f".{result.model.name}.saving")
    if temporary.exists():
        shutil.rmtree(temporary)
    model.model_card_data.base_model = HUB_NAMES.get(run.model)
    model.save(str(temporary))
    (temporary / RUN_FILE).write_text(run.to_json(), encoding="utf-8")
    card = temporary / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + _how_it_was_made(model, run, result), encoding="utf-8")
    temporary.rename(result.model)


def _how_it_was_made(model: Any, run: TrainingRun, result: TrainingResult) -> str:
    """The end of the model card: what sentence-transformers does not know of the run."""
    name = result.model.name
    lines = [
        "",
        "## Trained with Isometry",
        "",
        f"Recipe `{run.recipe}`, from `{run.model}`, on {result.report.rows:,} rows of "
        f"{', '.join(f'`{Path(one).name}`' for one in (run.data, *run.more_data) if one) or 'data in memory'}: "
        f"{result.steps:,} steps of {run.batch_size} rows. All settings are in `{RUN_FILE}`.",
        "",
        *(f"- {note}" for note in (*result.report.notes, *result.notes)),
        *(f"- loss {loss:.4f} at step {step}" for step, loss in result.losses[-1:]),
        *(f"- loss on held-out rows {loss:.4f} at step {step}" for step, loss in result.evaluation_losses[-1:]),
        "",
        "```bash",
        f"isometry train {name}/{RUN_FILE} --out again        # the same weights on the same machine",
        f"isometry index papers.csv --into papers --encoder {name}",
        f"isometry eval {name} {run.model} --suite local-en --out runs",
        "```",
        "",
    ]
    if any(type(module).__module__.startswith("isometry.") for module in model):
        lines += [
            "A module of this model is Isometry's own: load it with `isometry.encoders.load_encoder`, or in "
            "sentence-transformers with `trust_remote_code=True` where Isometry is installed.",
            "",
        ]
    return "\n".join(lines)

"""Running a training run: data in, an ordinary sentence-transformers folder with a model card out."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from isometry.encoders.text import (
    CONNECTOR,
    NV_EMBED,
    AttentionPooling,
    Example,
    InContextTemplate,
    Ladder,
    MultiLayerPooling,
    attention_mode,
    find_backbone,
    keep_hidden_states,
    layer_count,
    load_text_model,
    residual_pair,
    set_attention_mode,
    situate,
)
from isometry.encoders.text.exits import transformer_layers
from isometry.errors import DivergedError, ExistsError, InputError, MissingExtraError, NotFoundError
from isometry.evaluation.atomic import write_atomically
from isometry.training.data import (
    DataReport,
    TrainingData,
    check_training_data,
    join_training_data,
    read_training_data,
)
from isometry.training.losses import InfoNCE, LadderLoss, MarginRankingLoss, MaskedAutoencoderLoss, SampledSizeLoss
from isometry.training.margins import MarginRule
from isometry.training.negatives import mine_negatives
from isometry.training.processes import wait_for_all, world
from isometry.training.run import TrainingRun
from isometry.training.stages.conversion import class_triplets

RUN_FILE = "isometry_run.json"


@dataclass(frozen=True)
class TrainingStep:
    """How far a run is: steps done and to do, the last logged loss and learning rate, rows per second so far."""

    step: int
    total: int
    loss: float | None
    learning_rate: float | None
    rows_per_second: float


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
        data, test: rows in memory instead of the run's files. resume: go on from the last checkpoint.
        progress: called after every step; False stops cleanly with a checkpoint. say: told what was found, a sentence
            at a time. download: fetch models and data that only the hub has; nothing else uses the network.

    Started by several processes together (`torchrun`, `accelerate launch`, `isometry train --processes`), each embeds its
    share of every batch; the first one says, writes and saves.

    Raises:
        InputError: the data has a problem (`check_training_data`). ExistsError: `out` is there already.
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
    checkpoint = _last_checkpoint(work, run) if resume else None
    wait_for_all()
    if work.exists() and not resume and rank == 0:
        shutil.rmtree(work)
    if data is None:
        data = join_training_data([read_training_data(name, download=download) for name in (run.data, *run.more_data)])
    test = test if test is not None else (read_training_data(run.test, download=download) if run.test else None)
    torch.manual_seed(run.seed)
    model = prepare_model(run, download)
    report = check_training_data(data, test, model.tokenizer, model.max_seq_length)
    for sentence in report.notes:
        say(sentence)
    if report.problems:
        raise InputError("; ".join(report.problems))
    held = data.rows([])
    if run.hold_out:
        data, held = _split(data, run)
    columns, notes = training_columns(run, model, data, download)
    for sentence in notes:
        say(sentence)
    held_columns = training_columns(_for_held_out(run, columns), model, held, download)[0] if len(held) else None
    if len(next(iter(columns.values()))) < 2:
        raise InputError("fewer than two rows are left to train on")
    loss = build_loss(run, model, "label" in columns, download)
    if rank == 0:
        work.mkdir(parents=True, exist_ok=True)
        write_atomically(work / RUN_FILE, run.to_json().encode())
    wait_for_all()
    began = time.perf_counter()
    trainer = _trainer(run, work, model, loss, columns, held_columns, progress, data.sources)
    adapters = _add_adapters(run, model)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.stopped:
        raise KeyboardInterrupt
    if adapters is not None:
        adapters.merge_and_unload()
    _require_finite(model, trainer.state.global_step, work)
    if rank == 0:
        _save(model, run, out)
        for folder in work.glob("checkpoint-*"):
            shutil.rmtree(folder)
    wait_for_all()
    history = trainer.state.log_history
    return TrainingResult(
        out,
        int(trainer.state.global_step),
        time.perf_counter() - began,
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
    progress: Callable[[TrainingStep], bool | None] | None = None,
    say: Callable[[str], None] | None = None,
    download: bool = False,
) -> list[TrainingResult]:
    """Several runs in order, each starting from the model of the one before: pre-train, contrastive, instruction.

    Papers 05 and 06. The first stage starts from its own `model`; the models between are kept as OUT.stage-1, ….
    """
    if not stages:
        raise InputError("a schedule has at least one stage")
    out = Path(out)
    results: list[TrainingResult] = []
    for number, run in enumerate(stages, start=1):
        last = number == len(stages)
        if results:
            run = replace(run, model=str(results[-1].model))
        to = out if last else out.with_name(f"{out.name}.stage-{number}")
        results.append(train(run, to, progress=progress, say=say, download=download))
    return results


def prepare_model(run: TrainingRun, download: bool = False) -> Any:
    """The starting model of a run, with the run's pooling, attention mode, frozen layers and length limit."""
    model = load_model(run.model, download)
    if run.max_tokens:
        model.max_seq_length = run.max_tokens
    if run.attention != "keep":
        set_attention_mode(model, run.attention)
    if run.pooling != "keep":
        model = _with_pooling(model, run)
    if run.freeze:
        _freeze(model, run.freeze)
    if run.beside:
        model = residual_pair(model, load_model(run.beside, download))
    return model


def load_model(name: str, download: bool = False) -> Any:
    """A SentenceTransformer by "default", a folder (checked for foreign code), or a hub name on this machine."""
    from isometry.encoders.load import default_folder

    if name == "default":
        return load_text_model(default_folder())
    if Path(name).is_dir():
        return load_text_model(name)
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, local_files_only=not download)
    except (OSError, ValueError) as error:
        where = (
            "a model that the hub gives"
            if download
            else "a hub model on this machine ('isometry train --download' fetches one)"
        )
        raise NotFoundError(f"no model '{name}': neither a folder nor {where}") from error


def training_columns(
    run: TrainingRun, model: Any, data: TrainingData, download: bool = False
) -> tuple[dict[str, list[Any]], list[str]]:
    """Data as the trainer takes it: text columns in order, then a label column where the loss reads one; and notes."""
    notes: list[str] = []
    if data.kind == "plain" or run.loss == "masked":
        if data.kind != "plain" or run.loss != "masked":
            raise InputError("texts alone are for pre-training (recipe 'smae'), and pre-training takes texts alone")
        return dict(data.texts), notes
    if data.kind == "graded":
        if run.loss != "cosent":
            raise InputError("data with scores is trained with the loss 'cosent' (recipe 'graded')")
        low, high = min(data.targets), max(data.targets)
        scale = (high - low) or 1.0
        return {**data.texts, "label": [(value - low) / scale for value in data.targets]}, notes
    if run.loss == "cosent":
        raise InputError("the loss 'cosent' needs a score column")
    if data.kind == "labelled":
        texts = data.texts["text"]
        columns: dict[str, list[Any]] = dict(
            class_triplets(texts, list(map(str, data.targets)), max(run.mine, 1), seed=run.seed)
        )
        numbers = {label: i for i, label in enumerate(sorted(set(map(str, data.targets))))}
        label_of = {text: numbers[str(label)] for text, label in zip(texts, data.targets, strict=True)}
        if run.in_batch:
            columns["label"] = [label_of[text] for text in columns["anchor"]]
        return columns, notes
    columns = dict(data.texts)
    if data.contexts:
        notes.append(
            f"{sum(map(bool, data.contexts))} of {len(data)} positives are read with their context behind them"
        )
        limit, tokens = model.max_seq_length, model.tokenizer
        separator = f" {tokens.sep_token or CONNECTOR} "
        columns["positive"] = [
            situate(text, context, separator, limit, lambda text: len(tokens(text, verbose=False)["input_ids"]))
            for text, context in zip(columns["positive"], data.contexts, strict=True)
        ]
    if run.mine and len(columns) == 2:
        columns |= _mined(run, load_model(run.miner, download) if run.miner else model, columns, notes)
    elif (run.loss == "margin" or not run.in_batch) and len(columns) == 2:
        raise InputError("this loss needs negatives: give a column 'negative', or mine some with --mine 3")
    tasks = data.instructions or [run.instruction] * len(data)
    if run.examples:
        columns["anchor"] = _with_examples(run, model, data, tasks)
    elif data.instructions:
        columns["anchor"] = [
            NV_EMBED.query(text, task) if task else text for text, task in zip(columns["anchor"], tasks, strict=True)
        ]
    return columns, notes


def _with_examples(run: TrainingRun, model: Any, data: TrainingData, tasks: Sequence[str]) -> list[str]:
    """Every anchor with its task and 0 to `examples` other rows of that task before it, as many as the limit takes."""
    if not all(tasks):
        raise InputError(
            "examples are shown with their task: give --instruction, or a column 'instruction' in every row"
        )
    anchors, positives = data.texts["anchor"], data.texts["positive"]
    stores: dict[str, list[Example]] = {}
    for anchor, positive, task in zip(anchors, positives, tasks, strict=True):
        stores.setdefault(task, []).append(Example(anchor, positive))
    limit = model.max_seq_length or 512
    templates = {task: InContextTemplate(task, tuple(store), run.examples, limit) for task, store in stores.items()}
    rng = random.Random(run.seed)
    return [
        templates[task].build(
            anchor,
            templates[task].draw(anchor, positive, rng),
            lambda text: len(model.tokenizer(text, verbose=False)["input_ids"]),
        )
        for anchor, positive, task in zip(anchors, positives, tasks, strict=True)
    ]


def build_loss(run: TrainingRun, model: Any, labelled: bool = False, download: bool = False) -> nn.Module:
    """The loss of a run around a model."""
    if run.loss == "masked":
        return MaskedAutoencoderLoss(model, Ladder.of(*(run.ladder or default_ladder(model))), seed=run.seed)
    if run.loss == "cosent":
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        base: nn.Module = CoSENTLoss(model, scale=1 / run.temperature)
    elif run.loss == "margin":
        base = MarginRankingLoss(model)
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


def _mined(run: TrainingRun, miner: Any, columns: dict[str, list[Any]], notes: list[str]) -> dict[str, list[Any]]:
    documents = list(dict.fromkeys(columns["positive"]))
    row_of = {text: row for row, text in enumerate(documents)}
    own: dict[str, set[int]] = {}
    for anchor, positive in zip(columns["anchor"], columns["positive"], strict=True):
        own.setdefault(anchor, set()).add(row_of[positive])
    queries = list(own)
    positives = [sorted(own[query]) for query in queries]
    forbidden = [[row_of[query]] if query in row_of else [] for query in queries]
    count = min(run.mine, len(documents) - max(map(len, positives)) - 1)
    if count < 1:
        raise InputError(f"{len(documents)} different positives are too few to mine {run.mine} negatives from")
    asked, known = (
        miner.encode(texts, batch_size=run.batch_size, normalize_embeddings=True, show_progress_bar=False)
        for texts in (queries, documents)
    )
    mined = mine_negatives(
        asked,
        known,
        positives,
        count,
        rule=MarginRule("relative", run.mine_margin) if run.mine_margin else None,
        first_rank=run.mine_ranks[0],
        last_rank=run.mine_ranks[1],
        choose=run.mine_choose,
        forbidden=forbidden,
        seed=run.seed,
    )
    notes += mined.report.lines()
    rows = {query: row for row, query in enumerate(queries)}
    found: dict[str, list[Any]] = {
        f"negative_{i + 1}": [documents[mined.rows[rows[anchor]][i]] for anchor in columns["anchor"]]
        for i in range(count)
    }
    if run.soft_weight:
        own = np.einsum(
            "nd,nd->n",
            asked[[rows[anchor] for anchor in columns["anchor"]]],
            known[[row_of[positive] for positive in columns["positive"]]],
        )
        found["label"] = [
            [float(score), *map(float, mined.scores[rows[anchor]])]
            for score, anchor in zip(own, columns["anchor"], strict=True)
        ]
    return found


def _for_held_out(run: TrainingRun, columns: dict[str, list[Any]]) -> TrainingRun:
    """The run with as many negatives as the training rows got."""
    negatives = sum(name.startswith("negative") for name in columns)
    return replace(run, mine=negatives if run.mine else 0)


def _with_pooling(model: Any, run: TrainingRun) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    width, pooling = int(model[0].get_embedding_dimension()), run.pooling
    sizes: dict[str, Any] = {
        "latents": run.latents or 32,
        "heads": run.heads or next(heads for heads in (8, 4, 2, 1) if width % heads == 0),
        "head_dimension": run.head_dimension or None,
    }
    pooler: nn.Module
    if pooling == "latent":
        pooler = AttentionPooling(width, "tokens", zero_init=True, include_prompt=False, **sizes)
    elif pooling == "attention":
        pooler = AttentionPooling(width, "latents", **sizes)
    elif pooling == "multi-layer":
        keep_hidden_states(model)
        summary: Any = "last_token" if attention_mode(model) == "causal" else "mean"
        pooler = MultiLayerPooling(width, layer_count(model), summary, **sizes)
    else:
        pooler = Pooling(width, {"mean": "mean", "weighted": "weightedmean", "last-token": "lasttoken"}[pooling])
    return SentenceTransformer(
        modules=[model[0], pooler, Normalize()], prompts=dict(model.prompts), device=str(model.device)
    )


def _freeze(model: Any, count: int) -> None:
    backbone = find_backbone(model)
    layers = transformer_layers(backbone)
    if count >= len(layers):
        raise InputError(f"the model has {len(layers)} layers; at most {len(layers) - 1} can be frozen")
    frozen = [*layers[:count], backbone.get_input_embeddings(), getattr(backbone, "embeddings", None)]
    for part in frozen:
        if part is not None:
            part.requires_grad_(False)


def _add_adapters(run: TrainingRun, model: Any) -> Any:
    if not run.lora:
        return None
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("low-rank adapters", "train") from error

    backbone = find_backbone(model)
    wanted = ["query", "key", "value", "q_proj", "k_proj", "v_proj", "o_proj", "q_lin", "k_lin", "v_lin"]
    if run.lora_layers == "all":
        wanted += ["dense", "gate_proj", "up_proj", "down_proj", "lin1", "lin2"]
    present = {name.rsplit(".", 1)[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    targets = sorted(present & set(wanted))
    if not targets:
        raise InputError(f"no attention projections found in {type(backbone).__name__} to put adapters on")
    # Adapters go into the backbone in place, so the model trains them without further ado.
    settings = peft.LoraConfig(
        r=run.lora,
        lora_alpha=run.lora_alpha or 2 * run.lora,
        lora_dropout=run.lora_dropout,
        target_modules=targets,
    )
    return peft.get_peft_model(backbone, settings)


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
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rsplit("-", 1)[-1]))
    whole = [folder for folder in found if _is_whole(folder / "trainer_state.json")]
    if not whole:
        raise NotFoundError(f"'{work}' holds no checkpoint yet; start the run without --resume")
    return whole[-1]


def _is_whole(state: Path) -> bool:
    """The trainer writes this file last; a kill may leave it out or cut it short."""
    try:
        return bool(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _require_finite(model: nn.Module, step: int, work: Path) -> None:
    broken = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        raise DivergedError(f"after step {step} the weight {broken[0]} is no number; checkpoints are in '{work}'")


def _save(model: Any, run: TrainingRun, out: Path) -> None:
    if run.instruction:
        model.prompts["query"] = NV_EMBED.prompt(run.instruction)
    find_backbone(model).requires_grad_(True)
    temporary = out.with_name(f".{out.name}.saving")
    if temporary.exists():
        shutil.rmtree(temporary)
    model.save(str(temporary))
    (temporary / RUN_FILE).write_text(run.to_json(), encoding="utf-8")
    temporary.rename(out)

"""sentence-transformers' trainer, which here stops at a loss that is no number and says how far it is.

Where several processes train together, their gradients meet here (see `processes.average_gradients`).
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from isometry.encoders.text import NV_EMBED, find_backbone
from isometry.errors import DivergedError, InputError
from isometry.training.processes import any_process, average_gradients, world
from isometry.training.run import TrainingRun
from isometry.training.stages.batching import LikeLengthSampler

WEIGHTS = "trained.safetensors"


class GuardedTrainer(SentenceTransformerTrainer):
    """Stops with the batch named where the loss is no number. `stopped` is true after the caller asked to stop.

    A checkpoint holds, beside the model as a folder, what is trained and not among that folder's own weights in one file:
    adapters, poolers of ours, what a loss learns and draws. sentence-transformers reads back the folder alone.
    """

    stopped = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if world()[1] > 1:
            # "Evaluation mode" is accelerate's word for a model that is not wrapped for distributed training.
            prepare = self.accelerator.prepare_model
            self.accelerator.prepare_model = functools.partial(prepare, evaluation_mode=True)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        if world()[1] > 1:
            average_gradients([self.model, self.loss])
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        inside = self._backbone_names()
        held = {
            name: value.detach().cpu().contiguous() for name, value in self._trained().items() if name not in inside
        }
        # An empty file is none for safetensors.
        held["generator"] = torch.empty(0, dtype=torch.uint8)
        if isinstance(getattr(self.loss, "generator", None), torch.Generator):
            held["generator"] = self.loss.generator.get_state()
        save_file(held, Path(output_dir or self.args.output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        held = load_file(Path(checkpoint_path) / WEIGHTS)
        if len(held["generator"]):
            self.loss.generator.set_state(held["generator"])
        trained = self._trained()
        if trained.keys() - held.keys():
            backbone = find_backbone(self.model)
            saved = type(backbone).from_pretrained(checkpoint_path, dtype=torch.float32, local_files_only=True)
            inside = dict(saved.named_parameters())
            held |= {name: inside[within] for name, within in self._backbone_names().items()}
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(held[name])

    def _backbone_names(self) -> dict[str, str]:
        """Our name to the transformers model's own, of its parameters; none where adapters sit between them."""
        backbone = find_backbone(self.model)
        if any("lora_" in name for name, _ in backbone.named_parameters()):
            return {}
        inside = {id(value): name for name, value in backbone.named_parameters()}
        return {name: inside[id(value)] for name, value in self._named().items() if id(value) in inside}

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _trained(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._named().items() if value.requires_grad}

    def _named(self) -> dict[str, Tensor]:
        """Parameters of the model, then those of the loss that are not the model's."""
        model = {f"model.{name}": value for name, value in self.model.named_parameters()}
        known = {id(value) for value in model.values()}
        loss = {f"loss.{name}": value for name, value in self.loss.named_parameters() if id(value) not in known}
        return {**model, **loss}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        anchors = next((value for key, value in inputs.items() if key.endswith("input_ids")), None)
        found = super().compute_loss(model, inputs, *args, **kwargs)
        loss = found[0] if isinstance(found, tuple) else found
        if not bool(torch.isfinite(loss.detach()).all()):
            text = ""
            if isinstance(anchors, Tensor):
                text = self.model.tokenizer.decode(anchors[0], skip_special_tokens=True)[:80]
            raise DivergedError(
                f"the loss of step {self.state.global_step + 1} is {loss.item()}; its batch begins with the text "
                f"'{text}'. {last_checkpoint_sentence(Path(self.args.output_dir))} Lower the learning rate, or look "
                "at that batch"
            )
        return found


class _Guard(TrainerCallback):
    """No checkpoint is written from weights that are no numbers."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        # One number for all weights: their norm is no number where one of them is none.
        if control.should_save and not bool(torch.isfinite(nn.utils.get_total_norm(list(model.parameters())))):
            raise DivergedError(
                f"a weight is no number after step {state.global_step}. "
                f"{last_checkpoint_sentence(Path(args.output_dir))} Lower the learning rate"
            )


class _Report(TrainerCallback):
    def __init__(self, run: TrainingRun, progress: Callable[..., bool | None]) -> None:
        self.run, self.progress = run, progress
        self.trainer: Any = None
        self.began, self.first = time.perf_counter(), 0
        self.loss: float | None = None
        self.rate: float | None = None
        self.held_out: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began, self.first = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)
        self.rate = (logs or {}).get("learning_rate", self.rate)
        self.held_out = (logs or {}).get("eval_loss", self.held_out)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from isometry.training.train import TrainingStep

        rows = (state.global_step - self.first) * self.run.batch_size * self.run.accumulate
        speed = rows / max(time.perf_counter() - self.began, 1e-9)
        step = TrainingStep(state.global_step, state.max_steps, self.loss, self.rate, speed, self.held_out)
        if any_process(self.progress(step) is False, args.device):
            control.should_save = control.should_training_stop = True
            self.trainer.stopped = True


def last_checkpoint_sentence(work: Path) -> str:
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rsplit("-", 1)[-1]))
    return f"The last good checkpoint is '{found[-1]}'." if found else "No checkpoint was written yet."


def make_trainer(
    run: TrainingRun,
    work: Path,
    model: Any,
    loss: nn.Module,
    columns: dict[str, list[Any]],
    held: dict[str, list[Any]] | None,
    progress: Callable[..., bool | None] | None,
    sources: Sequence[int] = (),
) -> GuardedTrainer:
    """The trainer of a run; checkpoints and logs go to `work`.

    Raises:
        InputError: a batch that the processes cannot share equally, or more rows in it than there are.
    """
    rank, processes = world()
    if run.batch_size % processes:
        raise InputError(f"a batch of {run.batch_size} rows does not divide among {processes} processes")
    share = run.batch_size // processes
    rows = len(next(iter(columns.values())))
    for kind, found in (("to train on", columns), ("held out", held or {})):
        if processes > 1 and found and len(next(iter(found.values()))) < run.batch_size:
            raise InputError(f"several processes share whole batches: {kind} are fewer than {run.batch_size} rows")
    per_epoch = max(1, math.ceil(rows / (run.batch_size * run.accumulate)))
    steps = run.steps or max(1, round(per_epoch * run.epochs))
    every = run.save_every or max(1, steps // 10)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(work / "tensorboard")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        gradient_accumulation_steps=run.accumulate,
        # A batch that not every process has a share of would leave the others waiting.
        dataloader_drop_last=processes > 1,
        learning_rate=run.learning_rate,
        warmup_steps=round(run.warmup * steps),
        lr_scheduler_type=run.schedule,
        weight_decay=run.weight_decay,
        use_cpu=not torch.cuda.is_available(),
        bf16=run.precision == "bfloat16",
        seed=run.seed,
        data_seed=run.seed,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        eval_strategy="steps" if held else "no",
        eval_steps=every,
        load_best_model_at_end=bool(run.patience),
        metric_for_best_model="eval_loss" if held else None,
        greater_is_better=False if held else None,
        logging_steps=max(1, min(10, steps // 10)),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=["tensorboard"] if rank == 0 else [],
        batch_sampler=functools.partial(
            LikeLengthSampler,
            window=run.length_window,
            shares=processes,
            sources=sources if run.mixing else (),
            mixing=run.mixing,
        ),
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        prompts={"anchor": NV_EMBED.prompt(run.instruction)} if run.instruction and not run.examples else None,
    )
    if arguments.n_gpu > 1:
        # Several GPUs are several processes here, never torch's DataParallel in one.
        arguments._n_gpu = 1
    callbacks: list[TrainerCallback] = [_Guard()]
    if run.patience:
        callbacks.append(EarlyStoppingCallback(run.patience))
    report = _Report(run, progress) if progress is not None else None
    if report is not None:
        callbacks.append(report)
    trainer = GuardedTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        eval_dataset=Dataset.from_dict(held) if held else None,
        loss=loss,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if report is not None:
        report.trainer = trainer
    return trainer

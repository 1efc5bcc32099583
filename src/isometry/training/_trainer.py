"""sentence-transformers' trainer, which here stops at a loss that is no number and says how far it is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from isometry.encoders.text import NV_EMBED
from isometry.errors import DivergedError
from isometry.training.run import TrainingRun


class GuardedTrainer(SentenceTransformerTrainer):
    """Stops with the batch named where the loss is no number. `stopped` is true after the caller asked to stop."""

    stopped = False

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
        if control.should_save and not all(bool(torch.isfinite(value).all()) for value in model.parameters()):
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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began, self.first = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)
        self.rate = (logs or {}).get("learning_rate", self.rate)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from isometry.training.train import TrainingStep

        rows = (state.global_step - self.first) * self.run.batch_size
        speed = rows / max(time.perf_counter() - self.began, 1e-9)
        step = TrainingStep(state.global_step, state.max_steps, self.loss, self.rate, speed)
        if self.progress(step) is False:
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
) -> GuardedTrainer:
    """The trainer of a run; checkpoints and logs go to `work`."""
    rows = len(next(iter(columns.values())))
    per_epoch = max(1, math.ceil(rows / run.batch_size))
    steps = run.steps or max(1, round(per_epoch * run.epochs))
    every = run.save_every or max(1, steps // 10)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(work / "tensorboard")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=run.batch_size,
        per_device_eval_batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        warmup_steps=round(run.warmup * steps),
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
        report_to=["tensorboard"],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        prompts={"anchor": NV_EMBED.prompt(run.instruction)} if run.instruction else None,
    )
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

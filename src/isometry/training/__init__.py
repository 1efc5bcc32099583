"""Changing an encoder's weights: losses, negatives, batches and stages, runs, merging."""

from isometry.training.data import DataReport, TrainingData, check_training_data, join_training_data, read_training_data
from isometry.training.full_scale import FULL_SCALE, FullScale, full_scale
from isometry.training.margins import MarginRule
from isometry.training.model import load_model, prepare_model
from isometry.training.run import PRESETS, TrainingRun, preset, read_runs
from isometry.training.train import (
    TrainingResult,
    TrainingStep,
    build_loss,
    train,
    train_stages,
)

__all__ = [
    "FULL_SCALE",
    "PRESETS",
    "DataReport",
    "FullScale",
    "MarginRule",
    "TrainingData",
    "TrainingResult",
    "TrainingRun",
    "TrainingStep",
    "build_loss",
    "check_training_data",
    "full_scale",
    "join_training_data",
    "load_model",
    "prepare_model",
    "preset",
    "read_runs",
    "read_training_data",
    "train",
    "train_stages",
]

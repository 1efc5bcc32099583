"""Scenes from photographs: training, and what stands around it."""

from isometry.scenes.capture.build import Built, build_scene
from isometry.scenes.capture.presets import PRESETS, Preset, find_preset
from isometry.scenes.capture.training import Training, judge

__all__ = ["PRESETS", "Built", "Preset", "Training", "build_scene", "find_preset", "judge"]

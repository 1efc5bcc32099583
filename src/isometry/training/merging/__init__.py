"""Several models of one start made into one."""

from isometry.training.merging.merge import METHODS, merge_models
from isometry.training.merging.mergers import average, dare, fisher, fold_slerp, slerp, slerp_weights, ties
from isometry.training.merging.regmean import input_grams, regmean_weight
from isometry.training.merging.self_positioning import Position, fold_coefficients, self_position
from isometry.training.merging.vectors import TaskVector, task_matrix

__all__ = [
    "METHODS",
    "Position",
    "TaskVector",
    "average",
    "dare",
    "fisher",
    "fold_coefficients",
    "fold_slerp",
    "input_grams",
    "merge_models",
    "regmean_weight",
    "self_position",
    "slerp",
    "slerp_weights",
    "task_matrix",
    "ties",
]

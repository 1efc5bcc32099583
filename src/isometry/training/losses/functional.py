"""Formulas that several losses share. Plain functions of tensors; no model, no state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine_matrix(left: Tensor, right: Tensor) -> Tensor:
    """Rows `(n, d)` and `(m, d)` to cosines `(n, m)`, in float32 at least."""
    left, right = _wide(left), _wide(right)
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def focal_weights(
    log_probability: Tensor, gamma: float, with_gradient: bool = False, normalise: bool = False
) -> Tensor:
    """(1 - p)^gamma for each row's probability of its positive (paper 06, gamma .5 there).

    Args:
        log_probability: log p, `(n,)`.
        with_gradient: let the weight carry gradient; the paper does not say, the default treats it as a constant.
        normalise: divide by the mean weight, so that the loss keeps its scale.
    """
    log_p = log_probability if with_gradient else log_probability.detach()
    weights = (-torch.expm1(log_p)).clamp(min=1e-12 if with_gradient else 0.0) ** gamma
    return weights / weights.mean().clamp(min=1e-12) if normalise else weights


def kl_between_scores(
    student: Tensor, teacher: Tensor, student_temperature: float = 1.0, teacher_temperature: float = 1.0
) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) per row, over candidate lists `(n, c)`; the teacher is a constant.

    Returns `(n,)`, each >= 0; 0 where both give the same distribution.
    """
    target = F.log_softmax(_wide(teacher.detach()) / teacher_temperature, dim=-1)
    guess = F.log_softmax(_wide(student) / student_temperature, dim=-1)
    return (target.exp() * (target - guess)).sum(dim=-1)


def standardise(scores: Tensor) -> Tensor:
    """Scores `(n, c)` to mean 0 and deviation 1 within each row; a row of equal scores becomes zeros.

    Teachers differ in scale (paper 42): without it a temperature means nothing across teachers.
    """
    centred = scores - scores.mean(dim=-1, keepdim=True)
    return centred / centred.pow(2).mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)


def coordinate_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, detach_teacher: bool = True) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) * T over the coordinates of vectors `(n, d)`, mean of rows.

    Papers 03 and 23. It depends on the axes the vectors are written in; scores of the batch do not.
    """
    target = teacher.detach() if detach_teacher else teacher
    log_target = F.log_softmax(_wide(target) / temperature, dim=-1)
    log_guess = F.log_softmax(_wide(student) / temperature, dim=-1)
    return (log_target.exp() * (log_target - log_guess)).sum(dim=-1).mean() * temperature


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values

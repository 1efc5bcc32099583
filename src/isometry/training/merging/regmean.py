"""RegMean: linear layers merged by least squares on their inputs. Source: Jin et al., RegMean, 2023; paper 10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError


def regmean_weight(weights: Sequence[Tensor], grams: Sequence[Tensor], shrink: float = 0.1) -> Tensor:
    """W = (sum G_i)^-1 sum G_i W_i for one layer.

    Args:
        weights: of the models, each `(out, in)`.
        grams: X_i^T X_i of the layer's inputs, each `(in, in)`.
        shrink: share by which off-diagonal entries of the Grams are reduced (0 to .4 in the paper).

    Returns:
        `(out, in)`; for equal Grams the mean of the weights, for one model its weight.
    """
    if not 0 <= shrink < 1:
        raise InputError(f"off-diagonal entries shrink by a share of at least 0 and below 1, not {shrink}")
    total = torch.zeros_like(grams[0], dtype=torch.float64)
    right = torch.zeros(grams[0].shape[0], weights[0].shape[0], dtype=torch.float64)
    for weight, gram in zip(weights, grams, strict=True):
        wide = gram.double()
        reduced = (1 - shrink) * wide + shrink * torch.diag(wide.diagonal())
        total += reduced
        right += reduced @ weight.double().T
    ridge = 1e-8 * total.diagonal().mean().clamp(min=1e-12)
    total += ridge * torch.eye(len(total), dtype=torch.float64)
    mean = torch.stack([weight.double() for weight in weights]).mean(dim=0).T
    return torch.linalg.solve(total, right + ridge * mean).T.to(weights[0].dtype)


def input_grams(model: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """X^T X of the inputs of every linear layer while `run()` puts data through the model; by layer name."""
    grams: dict[str, Tensor] = {}
    hooks = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            rows = inputs[0].detach().flatten(0, -2).float()
            grams[name] = grams.get(name, torch.zeros(rows.shape[1], rows.shape[1])) + rows.T @ rows

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in hooks:
            handle.remove()
    return grams

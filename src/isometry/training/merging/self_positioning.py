"""Self Positioning: the few numbers of a merge learned on a small probe set, the models frozen. Paper 10.

    V(a) = lambda * slerp-fold(V_1, …, V_N; a),    minimise  mean probe loss(theta_0 + V) + mu * lambda

A step costs one ordinary backward pass and N dot products: V is a combination of the task vectors, so the gradient of
the numbers follows from the gradient of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.errors import DivergedError, InputError
from isometry.training.merging.mergers import slerp_weights


@dataclass(frozen=True)
class Position:
    """Where the search ended.

    Attributes:
        shares: a_1 … a_N as learned, all at least 0.
        scale: lambda.
        coefficients: what each task vector is multiplied by, lambda included; losses: of the probe batches, step by
            step.
    """

    shares: tuple[float, ...]
    scale: float
    coefficients: tuple[float, ...]
    losses: tuple[float, ...]


def fold_coefficients(shares: Tensor, scale: Tensor, gram: Tensor) -> Tensor:
    """Factors `(N,)` of the task vectors in lambda * slerp-fold(V; a), differentiable in shares `(N,)` and scale `()`.

    `gram` `(N, N)` holds the dot products of the task vectors: all the geometry the fold needs.
    """
    gram = gram.double()
    coefficients = torch.zeros(len(shares), dtype=torch.float64)
    coefficients = coefficients + torch.eye(len(shares), dtype=torch.float64)[0]
    for k in range(1, len(shares)):
        unit = torch.eye(len(shares), dtype=torch.float64)[k]
        squared = (coefficients @ gram @ coefficients) * gram[k, k]
        parallel = torch.ones((), dtype=torch.float64)
        cosine = coefficients @ gram @ unit / squared.sqrt() if float(squared.detach()) > 0 else parallel
        left, right = slerp_weights(cosine, shares[k] / (shares[:k].mean() + shares[k]))
        coefficients = left * coefficients + right * unit
    return scale * coefficients


def self_position(
    model: nn.Module,
    base: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    batches: Iterable[Callable[[], Tensor]],
    learning_rate: float = 5e-3,
    mu: float = 0.0,
    positive: bool = True,
) -> Position:
    """Search the interpolation space of N task vectors on a probe set; the model is left at the found place.

    Args:
        model: any module; its parameters named in `base` are moved.
        base: theta_0.
        vectors: per parameter name the N differences `(N, *shape)`.
        batches: functions that give the loss of the model on one probe batch; one step each. The loss should have the
            temperature and batch size of training, or lambda drifts.
        learning_rate: of Adam (5e-3 in the paper, 1 000 steps; 1e-2 for some hundred).
        mu: price of lambda.
        positive: a and lambda through softplus; False leaves them unconstrained, as printed.

    Raises:
        InputError: fewer than two models. DivergedError: a probe loss that is no number.
    """
    count = len(next(iter(vectors.values()))) if vectors else 0
    if count < 2:
        raise InputError(f"self positioning searches between two models or more; got {count}")
    names = [name for name, _ in model.named_parameters() if name in vectors]
    gram = torch.zeros(count, count, dtype=torch.float64)
    for name in names:
        rows = vectors[name].flatten(1).double()
        gram += rows @ rows.T
    start = math.log(math.expm1(1.0)) if positive else 1.0
    raw_shares = torch.full((count,), start, dtype=torch.float64, requires_grad=True)
    raw_scale = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([raw_shares, raw_scale], lr=learning_rate)
    parameters = dict(model.named_parameters())

    def read() -> tuple[Tensor, Tensor, Tensor]:
        shares = F.softplus(raw_shares) if positive else raw_shares
        scale = F.softplus(raw_scale) if positive else raw_scale
        return shares, scale, fold_coefficients(shares, scale, gram)

    def move(coefficients: Tensor) -> None:
        with torch.no_grad():
            for name in names:
                step = torch.tensordot(coefficients.to(vectors[name].dtype), vectors[name], dims=1)
                parameters[name].copy_(base[name] + step)

    losses: list[float] = []
    for batch in batches:
        shares, scale, coefficients = read()
        move(coefficients.detach())
        model.zero_grad()
        loss = batch()
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"the probe loss of step {len(losses) + 1} is {loss.item()}")
        loss.backward()
        slope = torch.zeros(count, dtype=torch.float64)
        for name in names:
            gradient = parameters[name].grad
            if gradient is not None:
                slope += vectors[name].flatten(1).double() @ gradient.flatten().double()
        optimiser.zero_grad()
        (coefficients @ slope + mu * scale).backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    shares, scale, coefficients = read()
    move(coefficients.detach())
    model.zero_grad()
    return Position(
        tuple(shares.detach().tolist()), float(scale.detach()), tuple(coefficients.detach().tolist()), tuple(losses)
    )

"""New hard negatives made in embedding space by mixing real ones.

Paper 06. The paper leaves open how many are made, how pairs are drawn and the temperature of the list weights; here
one pair-wise and one list-wise vector per query are made by default, a pair is drawn at random, and the weights come
from the query's similarities at the loss's temperature. The weights are constants, the vectors carry gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mix_pairs(negatives: Tensor, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """weight * n_left + (1 - weight) * n_right, made length one.

    Args:
        negatives: `(b, m, d)` of length one.
        weight: `(b, c)` in 0..1.
        left, right: `(b, c)` positions in 0..m-1.

    Returns:
        `(b, c, d)`.
    """
    d = negatives.shape[-1]
    first = negatives.gather(1, left.unsqueeze(-1).expand(-1, -1, d))
    second = negatives.gather(1, right.unsqueeze(-1).expand(-1, -1, d))
    weight = weight.unsqueeze(-1).to(negatives.dtype)
    return F.normalize(weight * first + (1 - weight) * second, dim=-1)


def draw_pairs(rows: int, negatives: int, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Weights from Beta(2, 2) and positions of two different negatives, each `(rows, count)`."""
    gamma = -torch.log(torch.rand(4, rows, count, device=device).clamp(min=1e-12))
    first, second = gamma[0] + gamma[1], gamma[2] + gamma[3]
    left = torch.randint(negatives, (rows, count), device=device)
    step = torch.randint(1, max(negatives, 2), (rows, count), device=device)
    return first / (first + second), left, (left + step) % negatives


def mix_list(queries: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """All negatives of a query weighted by softmax(similarity / temperature), made length one.

    Queries `(b, d)` and negatives `(b, m, d)`, both of length one, to `(b, d)`. Towards temperature 0 it is the
    hardest negative, towards infinity the direction of their mean.
    """
    similarity = torch.einsum("bd,bmd->bm", queries, negatives).detach()
    weight = torch.softmax(similarity / temperature, dim=-1).to(negatives.dtype)
    return F.normalize(torch.einsum("bm,bmd->bd", weight, negatives), dim=-1)

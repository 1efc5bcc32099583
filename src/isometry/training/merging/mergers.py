"""Task vectors to one: averages, slerp, TIES, DARE, Fisher. Rows of `(n, p)` are the models; the result is `(p,)`.

Paper 10 compares them. mergekit (an optional peer under another licence) has the static ones per tensor; these work on
the whole vector, as the paper does, and need nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isometry.errors import InputError


def average(vectors: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Weighted mean: a model soup, and task arithmetic up to a scale."""
    share = _weights(vectors, weights)
    return (share / share.sum()) @ vectors


def slerp(first: Tensor, second: Tensor, t: float | Tensor) -> Tensor:
    """[ sin((1 - t) a) first + sin(t a) second ] / sin a, a the angle between them; t = 0 gives the first.

    Lengths are interpolated roughly, since the vectors are not normalised. Vectors that are nearly parallel (sin a
    below 1e-4) are interpolated linearly. The paper prints the two weights crossed; this is the usual convention.
    """
    lengths = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    cosine = float((first @ second / lengths).clamp(-1, 1)) if lengths > 0 else 1.0
    first_weight, second_weight = slerp_weights(cosine, t)
    return first_weight * first + second_weight * second


def slerp_weights(cosine: float | Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of `slerp` for vectors of that cosine; differentiable in both."""
    t = torch.as_tensor(t, dtype=torch.float64)
    wide = torch.as_tensor(cosine, dtype=torch.float64).clamp(-1, 1)
    if float(1 - wide.detach().abs()) < 5e-9:  # sin a below 1e-4
        return 1 - t, t
    angle = torch.acos(wide)
    return torch.sin((1 - t) * angle) / torch.sin(angle), torch.sin(t * angle) / torch.sin(angle)


def fold_slerp(vectors: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Slerp of n vectors folded from the left; the running result carries the mean of the weights before it."""
    share = _weights(vectors, weights)
    merged = vectors[0]
    for k in range(1, len(vectors)):
        before = share[:k].mean()
        merged = slerp(merged, vectors[k], float(share[k] / (before + share[k])))
    return merged


def ties(vectors: Tensor, keep: float = 0.2, scale: float = 1.0) -> Tensor:
    """Trim each vector to its largest entries, elect a sign per coordinate, average the entries that agree.

    Args:
        keep: share of entries kept per vector, by size.
        scale: factor of the result (paper 10 tries .8 to 1.6).

    Source: Yadav et al., TIES-Merging, 2023.
    """
    if not 0 < keep <= 1:
        raise InputError(f"TIES keeps a share of entries above 0 and up to 1, not {keep}")
    count = max(1, round(keep * vectors.shape[1]))
    trimmed = torch.zeros_like(vectors)
    for row, vector in enumerate(vectors):
        top = vector.abs().topk(count).indices
        trimmed[row, top] = vector[top]
    sign = torch.sign(trimmed.sum(dim=0))
    agree = (torch.sign(trimmed) == sign) & (trimmed != 0)
    total = (trimmed * agree).sum(dim=0)
    return scale * total / agree.sum(dim=0).clamp(min=1)


def dare(vectors: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Each entry dropped with that probability, the rest divided by what is kept: same mean, `(n, p)` to `(n, p)`.

    Source: Yu et al., DARE, 2023. Merge the result by any other rule.
    """
    if not 0 <= drop < 1:
        raise InputError(f"DARE drops a share of at least 0 and below 1, not {drop}")
    kept = torch.rand(vectors.shape, generator=generator) >= drop
    return vectors * kept / (1 - drop)


def fisher(vectors: Tensor, information: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Mean per coordinate, weighted by each model's Fisher information `(n, p)` there.

    Coordinates that carry no information in any model take the plain weighted mean.
    """
    share = _weights(vectors, weights).unsqueeze(1)
    mass = share * information
    total = mass.sum(dim=0)
    plain = (share * vectors).sum(dim=0) / share.sum()
    return torch.where(total > 1e-20, (mass * vectors).sum(dim=0) / total.clamp(min=1e-20), plain)


def _weights(vectors: Tensor, weights: Sequence[float] | None) -> Tensor:
    share = torch.ones(len(vectors)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    if len(share) != len(vectors) or bool((share < 0).any()) or float(share.sum()) <= 0:
        raise InputError(f"{len(vectors)} models need {len(vectors)} weights of at least 0 with a sum above 0")
    return share.to(vectors.dtype)

"""Plain pooling functions over token states: mean, last token, position-weighted mean.

They are what sentence-transformers' `Pooling` module computes (use that inside a model); these are for code that has
token states in its hands: the multi-exit ladder, late chunking, multi-layer pooling. All are safe for padding on
either side, because they read the mask instead of an index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isometry.errors import ShapeError


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens: tokens `(b, t, d)`, mask `(b, t)` of 0/1 to `(b, d)`. A row without tokens gives zeros."""
    _check(tokens, mask)
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def last_token_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """State of the last real token: tokens `(b, t, d)`, mask `(b, t)` to `(b, d)`, padded left or right."""
    _check(tokens, mask)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask.to(torch.long) * positions).argmax(dim=1)
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def weighted_mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean weighted by position among the real tokens (1, 2, 3, …), for causal models where later states know more.

    Tokens `(b, t, d)`, mask `(b, t)` to `(b, d)`. Source: Muennighoff, SGPT, 2022 (the weighting; not a paper of ours).
    """
    _check(tokens, mask)
    weights = (mask.cumsum(dim=1) * mask).unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def without_prompt(mask: Tensor, prompt_length: int | Tensor | None) -> Tensor:
    """Mask `(b, t)` with the first `prompt_length` real tokens of each row switched off (the instruction of paper 05).

    `prompt_length` is one number, or one per row `(b,)`; counting starts at the first real token, so left padding is
    no trap. The mask given is not changed.
    """
    if prompt_length is None:
        return mask
    length = torch.as_tensor(prompt_length, device=mask.device).reshape(-1, 1)
    return mask * (mask.cumsum(dim=1) > length).to(mask.dtype)


def _check(tokens: Tensor, mask: Tensor) -> None:
    if tokens.ndim != 3 or mask.shape != tokens.shape[:2]:
        raise ShapeError(
            f"pooling takes tokens (b, t, d) and a mask (b, t); got {tuple(tokens.shape)} and {tuple(mask.shape)}"
        )

"""Students over a frozen encoder: what its layers say is computed once, then only a small head is trained.

A step costs milliseconds where training the encoder costs seconds, so many arms and seeds fit into a laptop proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.encoders.text import encode_exits
from isometry.encoders.text.exits import layer_states
from isometry.recipes._text import full_model, reciprocal_ranks


def brain_floats() -> Any:
    """Context in which matrix products run in bfloat16 where the processor has it, float32 elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu._is_avx512_bf16_supported()))


def layer_means(texts: Sequence[str], layers: Sequence[int] = (2, 6)) -> dict[int, Tensor]:
    """Mean-pooled states `(n, 384)` of the bundled encoder's layers, one pass over the texts for all of them."""
    with brain_floats():
        found = encode_exits(full_model(), list(texts), layers)
    return {
        layer: torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)) for layer, vectors in found.items()
    }


class Head(nn.Module):
    """x + W2 gelu(W1 x) on vectors `(n, width)` brought to one length; it starts as the identity."""

    def __init__(self, width: int = 384, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.widen, self.narrow = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1) * x.shape[-1] ** 0.5
        return x + self.narrow(F.gelu(self.widen(x)))


def descend(
    modules: Sequence[nn.Module],
    loss: Callable[[int], Tensor],
    steps: int,
    rate: float = 1e-3,
    seed: int = 0,
    tick: Callable[[], None] | None = None,
) -> None:
    """Train modules in place on loss(step): AdamW, linear warm-up over a tenth and linear decay, clipped at 1."""
    torch.manual_seed(seed)
    parameters = list({id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values())
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    warm = max(1, steps // 10)
    for module in modules:
        module.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / warm, (steps - step) / max(steps - warm, 1))
        optimiser.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if tick is not None:
            tick()
    for module in modules:
        module.eval()


def unit(vectors: Tensor) -> np.ndarray:
    """Rows of length one, as an array."""
    return np.asarray(F.normalize(vectors.detach(), dim=-1).numpy())


def head_mrr(head: nn.Module, queries: Tensor, documents: Tensor) -> float:
    """Mean reciprocal rank of document i for query i, both through the head."""
    with torch.no_grad():
        return float(reciprocal_ranks(unit(head(queries)), unit(head(documents))).mean())


def token_states(texts: Sequence[str], layer: int = 6, length: int = 24, model: Any = None) -> tuple[Tensor, Tensor]:
    """Token states `(n, length, d)` of one layer and their mask `(n, length)`; texts are cut to `length` tokens."""
    model = (model or full_model()).eval()
    states, masks = [], []
    with torch.inference_mode(), brain_floats():
        for start in range(0, len(texts), 64):
            features = model.tokenizer(
                list(texts[start : start + 64]),
                padding="max_length",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )
            states.append(layer_states(model, dict(features))[layer].float())
            masks.append(features["attention_mask"])
    return torch.cat(states).clone(), torch.cat(masks)

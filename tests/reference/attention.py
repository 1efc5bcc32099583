"""Slow, plain cross-attention block of papers 02 and 05: one row and one head at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_attention(block, queries: Tensor, context: Tensor, keys: Tensor | None = None) -> Tensor:
    """The same result as `CrossAttention.forward`, with loops."""
    d = queries.shape[-1]
    rows = []
    for row in range(len(queries)):
        normed_q = F.layer_norm(queries[row], (d,), block.norm_queries.weight, block.norm_queries.bias)
        normed_c = F.layer_norm(context[row], (d,), block.norm_context.weight, block.norm_context.bias)
        if keys is not None:
            normed_c = normed_c[keys[row].bool()]
        q = normed_q @ block.to_queries.weight.T
        inner = q.shape[-1]
        kv = normed_c @ block.to_keys_values.weight.T
        k, v = kv[:, :inner], kv[:, inner:]
        width = inner // block.heads
        heads = []
        for h in range(block.heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(width)
            heads.append(torch.softmax(scores, dim=-1) @ v[:, part])
        x = queries[row] + torch.cat(heads, dim=-1) @ block.to_output.weight.T
        normed = F.layer_norm(x, (d,), block.norm_forward.weight, block.norm_forward.bias)
        wide = normed @ block.widen.weight.T + block.widen.bias
        half = wide.shape[-1] // 2
        rows.append(x + (wide[:, :half] * F.gelu(wide[:, half:])) @ block.narrow.weight.T + block.narrow.bias)
    return torch.stack(rows)

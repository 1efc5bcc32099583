"""BERT forward passes on the CPU over packed tokens: no padding, one matrix per batch.

Texts of a batch lie one behind the other in one `(t, d)` matrix, so that every matrix product runs over real tokens
alone. Attention takes texts of equal length together and needs no mask. Query, key and value are one product, the
scale of the scores is folded into the query's weights, and with oneDNN the weights are laid out once for its bfloat16
products with the activation inside. Pooling and normalising are in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN keeps code for each shape that it has met, about half a megabyte each: batches are filled up to a multiple of
# this many rows, and longer texts attend one by one, so that few shapes occur. Without, 4,000 abstracts left 1.4 GB.
_ROW_STEP = 64
_LONG = 64
_ROWS_HINT = 2048


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without, bfloat16 is slower than float32."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return False
    return bool(torch.backends.mkldnn.is_available()) and bool(flags & {"avx512_bf16", "amx_bf16"})


class _Linear:
    """`x W^T + b`, with an exact GELU behind it where asked."""

    def __init__(self, weight: Tensor, bias: Tensor, gelu: bool, dtype: torch.dtype) -> None:
        self.weight, self.bias, self.gelu = weight.to(dtype), bias.to(dtype), gelu
        self.laid_out = dtype == torch.bfloat16 and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        if self.laid_out:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS_HINT)

    def __call__(self, x: Tensor) -> Tensor:
        if self.laid_out:
            act, kind = ("gelu", "none") if self.gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, act, [], kind)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if self.gelu else y


class PackedBert:
    """A BERT encoder (absolute positions, exact GELU) in float32 or bfloat16.

    Args:
        weights: tensors under the names of a `BertModel`.
        config: its `config.json`.
        layers: how many of its layers to keep.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: Mapping[str, Any], layers: int, dtype: torch.dtype):
        self.dtype = dtype
        self.heads: int = config["num_attention_heads"]
        self.width: int = config["hidden_size"]
        self.epsilon: float = config["layer_norm_eps"]
        self.vocabulary = weights["embeddings.word_embeddings.weight"].to(dtype)
        positions = weights["embeddings.position_embeddings.weight"]
        self.positions = (positions + weights["embeddings.token_type_embeddings.weight"][0]).to(dtype)
        self.norm = self._pair(weights, "embeddings.LayerNorm")
        self.layers = [self._layer(weights, f"encoder.layer.{number}") for number in range(layers)]

    def _pair(self, weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"].to(self.dtype), weights[f"{name}.bias"].to(self.dtype)

    def _layer(self, weights: Mapping[str, Tensor], name: str) -> dict[str, Any]:
        scale = math.sqrt(self.heads / self.width)
        mixed = []
        for kind in ("weight", "bias"):
            query, key, value = (weights[f"{name}.attention.self.{part}.{kind}"] for part in ("query", "key", "value"))
            mixed.append(torch.cat([query.float() * scale, key.float(), value.float()]))

        def linear(part: str, gelu: bool = False) -> _Linear:
            return _Linear(weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"], gelu, self.dtype)

        return {
            "mix": _Linear(mixed[0], mixed[1], False, self.dtype),
            "out": linear("attention.output.dense"),
            "norm": self._pair(weights, f"{name}.attention.output.LayerNorm"),
            "up": linear("intermediate.dense", gelu=True),
            "down": linear("output.dense"),
            "last_norm": self._pair(weights, f"{name}.output.LayerNorm"),
        }

    def __call__(self, ids: Sequence[np.ndarray]) -> Tensor:
        """Token ids of texts sorted by length to the last layer's states, float32 `(sum n_i, d)`."""
        lengths = [len(text) for text in ids]
        spare = np.zeros(-sum(lengths) % _ROW_STEP, np.int64)
        flat = torch.from_numpy(np.concatenate([*ids, spare]).astype(np.int64))
        places = torch.from_numpy(np.concatenate([*(np.arange(length) for length in lengths), spare]))
        runs = _runs(lengths)
        x = self.vocabulary[flat] + self.positions[places]
        x = F.layer_norm(x, (self.width,), *self.norm, self.epsilon)
        for layer in self.layers:
            attended = layer["out"](self._attend(layer["mix"](x), runs)).add_(x)
            x = F.layer_norm(attended, (self.width,), *layer["norm"], self.epsilon)
            x = F.layer_norm(layer["down"](layer["up"](x)).add_(x), (self.width,), *layer["last_norm"], self.epsilon)
        return x[: len(flat) - len(spare)].float()

    def _attend(self, mixed: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
        """Queries, keys and values `(t, 3 d)` to what each token gathers from its own text `(t, d)`."""
        size = self.width // self.heads
        out = torch.zeros(len(mixed), self.width, dtype=mixed.dtype)
        for start, texts, length in runs:
            rows = slice(start, start + texts * length)
            parts = mixed[rows].view(texts, length, 3, self.heads, size).permute(0, 2, 3, 1, 4)
            if self.dtype == torch.bfloat16 and length > _LONG:
                into = out[rows].view(texts, length, self.heads, size)
                for text in range(texts):
                    query, key, value = parts[text].contiguous()
                    scores = torch.bmm(query, key.transpose(1, 2)).softmax(-1)
                    into[text] = torch.bmm(scores, value).transpose(0, 1)
            else:
                query, key, value = parts.unbind(1)
                found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
                out[rows].view(texts, length, self.heads, size).copy_(found.transpose(1, 2))
        return out


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Texts of equal length behind one another, as (first token, texts, length)."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs

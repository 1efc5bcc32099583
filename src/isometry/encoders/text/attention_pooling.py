"""Attention pooling: a small trained cross-attention in place of the mean over tokens.

Papers 02 (latents ask the tokens) and 05 (tokens ask a dictionary of latents): one class, both directions.
The block is the one of the published code of both: pre-norm, residual, GEGLU feed-forward. Paper 05 prints a simpler
form without projections, residuals and norms; its released code has them, and so has this.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.encoders.text.pooling import last_token_pool, mean_pool, without_prompt
from isometry.errors import InputError


class CrossAttention(nn.Module):
    """Pre-norm cross-attention and GEGLU feed-forward, both residual (papers 02 and 05, published code).

    Args:
        dimension: width of queries, keys and output.
        heads: attention heads.
        head_dimension: width of each (the papers use far more than dimension / heads).
        feed_forward: hidden width of the feed-forward as a multiple of `dimension`.
        zero_init: start with a block that adds nothing (output projection and last feed-forward layer at zero).
    """

    def __init__(
        self, dimension: int, heads: int, head_dimension: int, feed_forward: int = 4, zero_init: bool = False
    ) -> None:
        super().__init__()
        inner = heads * head_dimension
        self.heads = heads
        self.norm_queries = nn.LayerNorm(dimension)
        self.norm_context = nn.LayerNorm(dimension)
        self.to_queries = nn.Linear(dimension, inner, bias=False)
        self.to_keys_values = nn.Linear(dimension, 2 * inner, bias=False)
        self.to_output = nn.Linear(inner, dimension, bias=False)
        self.norm_forward = nn.LayerNorm(dimension)
        self.widen = nn.Linear(dimension, 2 * feed_forward * dimension)
        self.narrow = nn.Linear(feed_forward * dimension, dimension)
        if zero_init:
            for weight in (self.to_output.weight, self.narrow.weight, self.narrow.bias):
                nn.init.zeros_(weight)

    def forward(self, queries: Tensor, context: Tensor, keys: Tensor | None = None) -> Tensor:
        """Queries `(b, m, d)` over context `(b, k, d)` to `(b, m, d)`; `keys` `(b, k)`: true for a key to see."""
        mask = None if keys is None else keys.bool()[:, None, None, :]
        key, value = self.to_keys_values(self.norm_context(context)).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            self._split(self.to_queries(self.norm_queries(queries))), self._split(key), self._split(value), mask
        )
        joined = attended.transpose(1, 2).flatten(2)
        hidden = queries + self.to_output(joined)
        value, gate = self.widen(self.norm_forward(hidden)).chunk(2, dim=-1)
        return hidden + self.narrow(value * F.gelu(gate))

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionPooling(Module):
    """Trained pooling over the token states of the last layer; stands where sentence-transformers' `Pooling` stands.

    Args:
        embedding_dimension: width d of the token states and of the vector.
        queries: "latents" = the latents ask the tokens and the vector is the mean over latents (paper 02);
            "tokens" = the tokens ask the latents and the vector is the masked mean over tokens (paper 05).
        latents: how many trained latent vectors, drawn from N(0, 1) (papers: 768 and 512; 16 to 64 on a laptop).
        heads / head_dimension: None takes embedding_dimension / heads (papers: 32 x 2048 and 8 x 4096).
        feed_forward: see `CrossAttention`.
        tokens: "last" shows the latents the last real token only. Paper 02's model M2 does so; the softmax over one
            key is 1, so that model is a trained head over the last token, not attention.
        include_prompt: False leaves the instruction's tokens out of the pooling (paper 05).
        zero_init: the block starts adding nothing; with queries="tokens" training then starts from mean pooling.
            Not in the papers, which train far longer; a laptop's few steps need it.
    """

    config_keys: ClassVar[list[str]] = [
        "embedding_dimension",
        "queries",
        "latents",
        "heads",
        "head_dimension",
        "feed_forward",
        "tokens",
        "include_prompt",
    ]

    def __init__(
        self,
        embedding_dimension: int,
        queries: Literal["latents", "tokens"] = "tokens",
        latents: int = 32,
        heads: int = 8,
        head_dimension: int | None = None,
        feed_forward: int = 4,
        tokens: Literal["all", "last"] = "all",
        include_prompt: bool = True,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if queries not in ("latents", "tokens"):
            raise InputError(f"queries is 'latents' or 'tokens', not '{queries}'")
        if tokens not in ("all", "last") or (tokens == "last" and queries == "tokens"):
            raise InputError("tokens is 'all' or 'last', and 'last' goes with queries='latents' only")
        if head_dimension is None and embedding_dimension % heads:
            raise InputError(f"{embedding_dimension} dimensions do not divide by {heads} heads; give head_dimension")
        self.embedding_dimension = embedding_dimension
        self.queries = queries
        self.heads = heads
        self.head_dimension = head_dimension or embedding_dimension // heads
        self.feed_forward = feed_forward
        self.tokens = tokens
        self.include_prompt = include_prompt
        self.dictionary = nn.Parameter(torch.randn(latents, embedding_dimension))
        self.block = CrossAttention(embedding_dimension, heads, self.head_dimension, feed_forward, zero_init)

    @property
    def latents(self) -> int:
        return len(self.dictionary)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Reads `token_embeddings` `(b, t, d)` and `attention_mask` `(b, t)`; writes `sentence_embedding` `(b, d)`."""
        states, mask = features["token_embeddings"], features["attention_mask"]
        if not self.include_prompt:
            mask = without_prompt(mask, features.get("prompt_length"))
        latents = self.dictionary.to(states.dtype).expand(len(states), -1, -1)
        if self.queries == "tokens":
            pooled = mean_pool(self.block(states, latents), mask)
        elif self.tokens == "last":
            pooled = self.block(latents, last_token_pool(states, mask).unsqueeze(1)).mean(dim=1)
        else:
            pooled = self.block(latents, states, mask).mean(dim=1)
        features["sentence_embedding"] = pooled
        return features

    def get_embedding_dimension(self) -> int:
        return self.embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> AttentionPooling:
        return load_with_weights(cls, model_name_or_path, **kwargs)


def load_with_weights(cls: Any, model_name_or_path: str, **kwargs: Any) -> Any:
    """A module of ours from its folder inside a saved model: configuration from JSON, weights from safetensors."""
    places = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
    where = {key: kwargs[key] for key in places if key in kwargs}
    module = cls(**cls.load_config(model_name_or_path, **where))
    return cls.load_torch_weights(model_name_or_path, model=module, **where)

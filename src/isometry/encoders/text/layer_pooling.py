"""Multi-layers trainable pooling: one summary per layer, a learned layer matrix, latents that ask all layers.

Paper 02. The paper calls the layer matrix a weight matrix; its code adds it, so it is a learned layer position.
The embedding output (hidden state 0) is not used.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

from isometry.encoders.text.attention_mode import find_backbone
from isometry.encoders.text.attention_pooling import CrossAttention, load_with_weights
from isometry.encoders.text.pooling import last_token_pool, mean_pool
from isometry.errors import InputError


class MultiLayerPooling(Module):
    """Latents attend over one summary vector of every layer; the vector is the mean over the latents.

    The transformer in front must keep its hidden states: call `keep_hidden_states(model)` once; it is saved along.

    Args:
        embedding_dimension: width d.
        layers: transformer layers L (hidden states 1..L are read).
        summary: "mean" over real tokens for bidirectional models, "last_token" for causal ones (the paper's choice).
        latents / heads / head_dimension / feed_forward / zero_init: see `AttentionPooling`.
    """

    config_keys: ClassVar[list[str]] = [
        "embedding_dimension",
        "layers",
        "summary",
        "latents",
        "heads",
        "head_dimension",
        "feed_forward",
    ]

    def __init__(
        self,
        embedding_dimension: int,
        layers: int,
        summary: Literal["mean", "last_token"] = "mean",
        latents: int = 32,
        heads: int = 8,
        head_dimension: int | None = None,
        feed_forward: int = 4,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if summary not in ("mean", "last_token"):
            raise InputError(f"summary is 'mean' or 'last_token', not '{summary}'")
        if head_dimension is None and embedding_dimension % heads:
            raise InputError(f"{embedding_dimension} dimensions do not divide by {heads} heads; give head_dimension")
        self.embedding_dimension = embedding_dimension
        self.layers = layers
        self.summary = summary
        self.heads = heads
        self.head_dimension = head_dimension or embedding_dimension // heads
        self.feed_forward = feed_forward
        self.dictionary = nn.Parameter(torch.randn(latents, embedding_dimension))
        self.layer_matrix = nn.Parameter(0.02 * torch.randn(layers, embedding_dimension))
        self.block = CrossAttention(embedding_dimension, heads, self.head_dimension, feed_forward, zero_init)

    @property
    def latents(self) -> int:
        return len(self.dictionary)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Reads `all_layer_embeddings` (L + 1 of `(b, t, d)`) and the mask; writes `sentence_embedding` `(b, d)`."""
        states = features.get("all_layer_embeddings")
        if states is None or len(states) != self.layers + 1:
            got = "none" if states is None else str(len(states) - 1)
            raise InputError(
                f"multi-layer pooling needs the hidden states of {self.layers} layers and got {got}; "
                "call keep_hidden_states(model) before training"
            )
        features["sentence_embedding"] = self.pool(self.summarise(states[1:], features["attention_mask"]))
        return features

    def summarise(self, states: tuple[Tensor, ...] | list[Tensor], mask: Tensor) -> Tensor:
        """Hidden states of L layers, each `(b, t, d)`, to one summary per layer `(b, L, d)`."""
        pool = mean_pool if self.summary == "mean" else last_token_pool
        return torch.stack([pool(state, mask) for state in states], dim=1)

    def pool(self, summaries: Tensor) -> Tensor:
        """Layer summaries `(b, L, d)` to vectors `(b, d)`; for training on cached states of a frozen encoder."""
        latents = self.dictionary.to(summaries.dtype).expand(len(summaries), -1, -1)
        return self.block(latents, summaries + self.layer_matrix.to(summaries.dtype)).mean(dim=1)

    def get_embedding_dimension(self) -> int:
        return self.embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> MultiLayerPooling:
        return load_with_weights(cls, model_name_or_path, **kwargs)


def keep_hidden_states(model: nn.Module) -> None:
    """Make the transformer of a sentence-transformers model hand on the states of all its layers; saved with it."""
    find_backbone(model).config.output_hidden_states = True

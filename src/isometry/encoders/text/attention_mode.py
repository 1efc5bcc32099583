"""Switching a decoder-only encoder between causal and bidirectional attention.

Papers 02, 05 and 06: dropping the causal mask of a language model is worth points on retrieval and costs some on
clustering. transformers (5.2 and later) reads `config.is_causal` when it builds the mask, so the switch is one
attribute, it may be thrown at any time, and it is written into `config.json` with the model.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from isometry.errors import InputError

AttentionMode = Literal["causal", "bidirectional"]
_DECODER_PARTS = ("layers", "embed_tokens", "norm")


def set_attention_mode(model: nn.Module, mode: AttentionMode) -> None:
    """Make a decoder-only transformer causal or bidirectional, in place.

    Args:
        model: a sentence-transformers model, its `Transformer` module, or the transformers model itself.
        mode: "causal" (a token sees itself and what stands before it) or "bidirectional" (every real token).

    Raises:
        InputError: the model is not decoder-only (an encoder is always bidirectional), or the mode is unknown.
    """
    if mode not in ("causal", "bidirectional"):
        raise InputError(f"attention mode '{mode}' is unknown; use 'causal' or 'bidirectional'")
    backbone = find_backbone(model)
    if not all(hasattr(backbone, part) for part in _DECODER_PARTS):
        raise InputError(f"{type(backbone).__name__} is not a decoder-only model, so its attention mode cannot switch")
    backbone.config.is_causal = mode == "causal"


def attention_mode(model: nn.Module) -> AttentionMode:
    """The mode a model runs in now; an encoder such as BERT is always bidirectional."""
    backbone = find_backbone(model)
    if not all(hasattr(backbone, part) for part in _DECODER_PARTS):
        return "bidirectional"
    return "causal" if getattr(backbone.config, "is_causal", True) else "bidirectional"


def find_backbone(model: nn.Module) -> nn.Module:
    """The transformers model inside a sentence-transformers model, a `Transformer` module, a wrapper, or itself."""
    for wrapper in ("module", "_orig_mod"):
        if hasattr(model, wrapper):
            return find_backbone(getattr(model, wrapper))
    if isinstance(model, nn.Sequential):
        return find_backbone(model[0])
    if hasattr(model, "auto_model"):
        return model.auto_model
    if hasattr(model, "config"):
        return model
    raise InputError(f"{type(model).__name__} holds no transformers model")

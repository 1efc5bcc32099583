"""The model a run starts from: loaded, cut, given a pooler, frozen or adapted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from isometry.encoders.text import (
    AttentionPooling,
    MultiLayerPooling,
    attention_mode,
    find_backbone,
    keep_hidden_states,
    layer_count,
    load_text_model,
    residual_pair,
    set_attention_mode,
    truncate,
)
from isometry.encoders.text.exits import transformer_layers
from isometry.errors import InputError, MissingExtraError, NotFoundError
from isometry.training.run import TrainingRun


def prepare_model(run: TrainingRun, download: bool = False) -> Any:
    """The starting model of a run, with the run's pooling, attention mode, frozen layers and length limit."""
    model = load_model(run.model, download)
    if run.max_tokens:
        model.max_seq_length = run.max_tokens
    if run.attention != "keep":
        set_attention_mode(model, run.attention)
    if run.pooling != "keep":
        model = _with_pooling(model, run)
    if run.freeze:
        _freeze(model, run.freeze)
    if run.beside:
        model = residual_pair(model, load_model(run.beside, download))
    return model


def load_model(name: str, download: bool = False) -> Any:
    """A SentenceTransformer by "default", a folder (checked for foreign code), or a hub name on this machine.

    "default#layers=2,dimensions=96" is cut to its first layers and coordinates (`truncate`).
    """
    from isometry.encoders.load import default_folder, split_name

    whole, cuts = split_name(name)
    if "tokens" in cuts:
        raise InputError(f"'{name}': training takes one vector a text; leave tokens out")
    if cuts:
        model = load_model(whole, download)
        layers, dimensions = layer_count(model), int(model.get_embedding_dimension())
        return truncate(model, (cuts.get("layers", layers), cuts.get("dimensions", dimensions)))
    if name == "default":
        return load_text_model(default_folder())
    if Path(name).is_dir():
        return load_text_model(name)
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, local_files_only=not download)
    except (OSError, ValueError) as error:
        where = (
            "a model that the hub gives"
            if download
            else "a hub model on this machine ('isometry train --download' fetches one)"
        )
        raise NotFoundError(f"no model '{name}': neither a folder nor {where}") from error


def _with_pooling(model: Any, run: TrainingRun) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    width, pooling = int(model[0].get_embedding_dimension()), run.pooling
    sizes: dict[str, Any] = {
        "latents": run.latents or 32,
        "heads": run.heads or next(heads for heads in (8, 4, 2, 1) if width % heads == 0),
        "head_dimension": run.head_dimension or None,
    }
    pooler: nn.Module
    if pooling == "latent":
        pooler = AttentionPooling(width, "tokens", zero_init=True, include_prompt=False, **sizes)
    elif pooling == "attention":
        pooler = AttentionPooling(width, "latents", **sizes)
    elif pooling == "multi-layer":
        keep_hidden_states(model)
        summary: Any = "last_token" if attention_mode(model) == "causal" else "mean"
        pooler = MultiLayerPooling(width, layer_count(model), summary, **sizes)
    else:
        pooler = Pooling(width, {"mean": "mean", "weighted": "weightedmean", "last-token": "lasttoken"}[pooling])
    return SentenceTransformer(
        modules=[model[0], pooler, Normalize()], prompts=dict(model.prompts), device=str(model.device)
    )


def _freeze(model: Any, count: int) -> None:
    backbone = find_backbone(model)
    layers = transformer_layers(backbone)
    if count >= len(layers):
        raise InputError(f"the model has {len(layers)} layers; at most {len(layers) - 1} can be frozen")
    frozen = [*layers[:count], backbone.get_input_embeddings(), getattr(backbone, "embeddings", None)]
    for part in frozen:
        if part is not None:
            part.requires_grad_(False)


def add_adapters(run: TrainingRun, model: Any) -> Any:
    """Low-rank adapters in the backbone, in place; the wrapper that can merge them, None where the run asks for none."""
    if not run.lora:
        return None
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("low-rank adapters", "train") from error

    backbone = find_backbone(model)
    wanted = ["query", "key", "value", "q_proj", "k_proj", "v_proj", "o_proj", "q_lin", "k_lin", "v_lin"]
    if run.lora_layers == "all":
        wanted += ["dense", "gate_proj", "up_proj", "down_proj", "lin1", "lin2"]
    present = {name.rsplit(".", 1)[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    targets = sorted(present & set(wanted))
    if not targets:
        raise InputError(f"no attention projections found in {type(backbone).__name__} to put adapters on")
    # Adapters go into the backbone in place, so the model trains them without further ado.
    settings = peft.LoraConfig(
        r=run.lora,
        lora_alpha=run.lora_alpha or 2 * run.lora,
        lora_dropout=run.lora_dropout,
        target_modules=targets,
    )
    return peft.get_peft_model(backbone, settings)

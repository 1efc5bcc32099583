"""Reading an encoder at several depths from one forward pass, and cutting it down to a smaller, faster model.

Papers 02, 03 and 23. Layer n means the output of the n-th transformer layer, `hidden_states[n]`; the embedding output
(`hidden_states[0]`) is never an exit. Pre-norm decoders (Qwen2, Mistral, Llama) normalise only after the last layer,
so every earlier exit goes through that final norm too; a cut model then behaves the same as the exit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from torch import Tensor, nn

from isometry.encoders.text.attention_mode import find_backbone
from isometry.encoders.text.ladder import Size
from isometry.errors import InputError, MissingExtraError

_STACKS = ("encoder.layer", "layers", "transformer.layer", "encoder.layers")


def layer_count(model: nn.Module) -> int:
    """How many transformer layers a model has."""
    return len(transformer_layers(find_backbone(model)))


def transformer_layers(backbone: nn.Module) -> nn.ModuleList:
    """The layers of a transformers model, first to last."""
    owner, name = _layer_stack(backbone)
    layers: nn.ModuleList = getattr(owner, name)
    return layers


def exit_vectors(model: nn.Module, features: dict[str, Any], layers: Iterable[int]) -> dict[int, Tensor]:
    """Pooled, un-normalised vectors `(b, d)` of several exits from one forward pass.

    Args:
        model: a SentenceTransformer, or one wrapped for several devices.
        features: what `model.preprocess(texts)` gives.
        layers: exits n >= 1.
    """
    core = _unwrap(model)
    backbone = find_backbone(core)
    states = layer_states(model, features)
    last = len(states) - 1
    vectors = {}
    for layer in layers:
        if not 1 <= layer <= last:
            raise InputError(f"the model has {last} layers, so there is no exit {layer}; exits count from 1")
        tokens = states[layer]
        if layer < last:
            tokens = _final_norm(backbone)(tokens)
        pooled = {**features, "token_embeddings": tokens}
        for module in list(core)[1:]:
            if not isinstance(module, Normalize):
                pooled = module(pooled)
        vectors[layer] = pooled["sentence_embedding"]
    return vectors


def layer_states(model: nn.Module, features: dict[str, Any]) -> Sequence[Tensor]:
    """Token states `(b, t, d)` of the embedding output and every layer: `[n]` is layer n's. One forward pass."""
    backbone = find_backbone(model)
    kept = backbone.config.output_hidden_states
    backbone.config.output_hidden_states = True
    try:
        states: Sequence[Tensor] = model(dict(features))["all_layer_embeddings"]
    finally:
        backbone.config.output_hidden_states = kept
    return states


def encode_exits(
    model: SentenceTransformer, texts: Sequence[str], layers: Iterable[int], batch_size: int = 64
) -> dict[int, np.ndarray]:
    """Texts to un-normalised vectors `(n, d)` float32 for each exit; one pass over the texts for all exits."""
    layers = tuple(layers)
    model.eval()
    order = np.argsort([-len(text) for text in texts], kind="stable")
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            features = model.preprocess([texts[row] for row in rows])
            features = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
            for layer, vectors in exit_vectors(model, features, layers).items():
                found[layer].append(vectors.float().cpu())
    back = np.argsort(order, kind="stable")
    dimension = model.get_embedding_dimension()
    empty = np.zeros((0, dimension), dtype=np.float32)
    return {layer: torch.cat(parts).numpy()[back] if parts else empty for layer, parts in found.items()}


def truncate(model: SentenceTransformer, size: Size | tuple[int, int]) -> SentenceTransformer:
    """A copy with the first `layers` layers only, whose vectors are the first `dimensions` coordinates, length one.

    The copy is an ordinary model of sentence-transformers' own modules: the cut of the dimensions is a `Dense` module
    that selects coordinates, so it saves, loads and reports its dimension everywhere without our code.

    Raises:
        InputError: more layers or dimensions than the model has, or pooling that reads all layers.
    """
    layers, dimensions = (size.layers, size.dimensions) if isinstance(size, Size) else size
    full = model.get_embedding_dimension()
    if not 1 <= layers <= layer_count(model) or not 1 <= dimensions <= full:
        raise InputError(
            f"cannot cut to {layers} layers x {dimensions} dimensions: the model has {layer_count(model)} x {full}"
        )
    if find_backbone(model).config.output_hidden_states and layers < layer_count(model):
        raise InputError("the model's pooling reads all layers, so it cannot be cut to fewer")
    modules = [_cut_layers(model[0], layers), *(copy.deepcopy(module) for module in list(model)[1:])]
    kept = [module for module in modules if not isinstance(module, Normalize)]
    if dimensions < full:
        select = torch.eye(full, device=model.device)[:dimensions].clone()
        kept.append(Dense(full, dimensions, bias=False, activation_function=nn.Identity(), init_weight=select))
    if len(kept) < len(modules) or dimensions < full:
        kept.append(Normalize())
    return SentenceTransformer(
        modules=kept,
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        device=str(model.device),
    )


def save_truncated(model: SentenceTransformer, size: Size | tuple[int, int], path: str | Path) -> SentenceTransformer:
    """Cut the model and save the smaller one as an ordinary sentence-transformers folder; returns it."""
    smaller = truncate(model, size)
    smaller.save(str(path))
    return smaller


def evaluate_grid(
    model: SentenceTransformer,
    task: Any,
    layers: Sequence[int],
    dimensions: Sequence[int],
    batch_size: int = 64,
) -> np.ndarray:
    """Score every (layer, dimensions) cell: task maps an encoder (`encode(texts) -> (n, d)`) to a number.

    Returns `(len(layers), len(dimensions))` float64. Texts are encoded once for all cells.
    """
    store = _ExitStore(model, tuple(layers), batch_size)
    return np.array([[float(task(_ExitEncoder(store, n, d))) for d in dimensions] for n in layers])


def heat_map(grid: np.ndarray, layers: Sequence[int], dimensions: Sequence[int], path: str | Path, title: str) -> None:
    """Draw a grid of scores (`evaluate_grid`) with the value in every cell, into an image file."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("a heat map", "eval") from error

    figure, axes = plt.subplots(figsize=(1.1 * len(dimensions) + 1.6, 0.6 * len(layers) + 1.4), layout="constrained")
    picture = axes.imshow(grid, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(dimensions)), [str(d) for d in dimensions])
    axes.set_yticks(range(len(layers)), [str(n) for n in layers])
    axes.set(xlabel="dimensions", ylabel="layers", title=title)
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for row, column in np.ndindex(grid.shape):
        colour = "black" if grid[row, column] > middle else "white"
        axes.text(column, row, f"{grid[row, column]:.3f}", ha="center", va="center", color=colour)
    figure.colorbar(picture, ax=axes)
    figure.savefig(path)
    plt.close(figure)


class _ExitStore:
    """Vectors of every exit for every text seen so far."""

    def __init__(self, model: SentenceTransformer, layers: tuple[int, ...], batch_size: int) -> None:
        self.model, self.layers, self.batch_size = model, layers, batch_size
        self.rows: dict[str, int] = {}
        self.vectors: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}

    def get(self, texts: Sequence[str], layer: int) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if new:
            for exit_layer, vectors in encode_exits(self.model, new, self.layers, self.batch_size).items():
                self.vectors[exit_layer].extend(vectors)
            self.rows.update({text: len(self.rows) + i for i, text in enumerate(new)})
        return np.stack([self.vectors[layer][self.rows[text]] for text in texts])


class _ExitEncoder:
    """One cell of the grid, as an encoder."""

    def __init__(self, store: _ExitStore, layer: int, dimensions: int) -> None:
        self.store, self.layer, self.dimensions = store, layer, dimensions

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        vectors = self.store.get(list(inputs), self.layer)[:, : self.dimensions]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _cut_layers(transformer: Transformer, layers: int) -> Transformer:
    """A copy of the transformer module with the first layers only, without copying the others first."""
    owner, name = _layer_stack(transformer.auto_model)
    stack = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(stack[:layers]))
    try:
        cut = copy.deepcopy(transformer)
    finally:
        setattr(owner, name, stack)
    config = cut.auto_model.config
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return cut


def _layer_stack(backbone: nn.Module) -> tuple[nn.Module, str]:
    for path in _STACKS:
        *parents, name = path.split(".")
        owner: Any = backbone
        for parent in parents:
            owner = getattr(owner, parent, None)
        if owner is not None and isinstance(getattr(owner, name, None), nn.ModuleList):
            return owner, name
    raise InputError(f"cannot find the layers of {type(backbone).__name__}; known places: {', '.join(_STACKS)}")


def _final_norm(backbone: nn.Module) -> nn.Module:
    for name in ("norm", "final_norm"):
        if isinstance(getattr(backbone, name, None), nn.Module):
            return getattr(backbone, name)
    return nn.Identity()


def _unwrap(model: Any) -> SentenceTransformer:
    for wrapper in ("module", "_orig_mod"):
        if hasattr(model, wrapper):
            return _unwrap(getattr(model, wrapper))
    return model

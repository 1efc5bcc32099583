"""Sentence vectors of every other model, through sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from isometry.encoders.bert_engine import own_tokens
from isometry.encoders.text.attention_mode import find_backbone
from isometry.encoders.text.exits import layer_count, truncate
from isometry.encoders.text.load import load_text_model
from isometry.encoders.tokens import Tokens, clean
from isometry.errors import InputError


class ModelEngine:
    """A SentenceTransformer, one call at a time: its tokenizers cannot be shared between threads.

    Args:
        folder: a model folder.
        device: as torch spells it.
        dtype: of the transformer; pooling and what follows stay float32.
        layers: transformer layers to keep; None keeps all.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: str, layers: int | None = None) -> None:
        try:
            model: Any = load_text_model(folder, device=device)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        self.dimension = int(model.get_embedding_dimension() or 0)
        if layers is not None:
            model = truncate(model, (layers, self.dimension))
        if dtype != torch.float32:
            model[0].to(dtype)
            model[0].register_forward_hook(_widen)
        self.model: Any = model.eval()
        self.layers = _layers(model)
        self._lock = threading.Lock()
        self.normalized = type(list(self.model)[-1]).__name__ == "Normalize"
        self.modalities = tuple(kind for kind in ("text", "image") if kind in self.model.modalities)
        self.prompts = {key: value or "" for key, value in self.model.prompts.items()}
        if self.model.default_prompt_name:
            usual = self.prompts.get(self.model.default_prompt_name, "")
            self.prompts = {key: self.prompts.get(key) or usual for key in ("query", "document")} | self.prompts
        limit = self.model.max_seq_length
        self.max_tokens = int(limit) if limit is not None and limit < 1 << 24 else None
        core = getattr(self.model.tokenizer, "backend_tokenizer", None) if "text" in self.modalities else None
        self._tokens = Tokens(core, self.max_tokens) if core is not None else None

    def prepare(self, texts: Sequence[str], prompt: str) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Texts to inputs of `vectors`, their lengths in tokens `(n,)` and the tokens that each lost `(n,)`."""
        inputs = [clean(text) for text in texts]
        if self._tokens is None:
            return inputs, np.array([len(text) // 4 + 1 for text in inputs], np.int64), np.zeros(len(inputs), np.int64)
        ids, lost, heads = self._tokens([prompt + text for text in inputs])
        cut = [head[len(prompt) :] for head in heads]
        return cut, np.array([len(text) for text in ids], np.int64), lost

    def vectors(self, inputs: Sequence[Any], query: bool, prompt: str) -> np.ndarray:
        """Prepared inputs, or images, to float32 `(b, d)`."""
        task = "query" if query else "document"
        with self._lock:
            out = self.model(self._features(inputs, prompt), task=task)
        return np.ascontiguousarray(out["sentence_embedding"].float().cpu().numpy())

    def token_vectors(self, inputs: Sequence[str], prompt: str, special: bool = True) -> list[Tensor]:
        """Texts to one float32 `(n_i, d)` per text, with or without the tokens that the tokenizer adds.

        Raises InputError where the model gives none.
        """
        with self._lock:
            features = self._features(inputs, prompt)
            ids = features.get("input_ids")
            out = self.model[0](features)
        if "token_embeddings" not in out or "attention_mask" not in out:
            raise InputError("this model gives no vectors of single tokens")
        pairs = zip(out["token_embeddings"].float().cpu(), out["attention_mask"].bool().cpu(), strict=True)
        found = [states[mask] for states, mask in pairs]
        if special or ids is None:
            return found
        added = np.array(self.model.tokenizer("")["input_ids"])
        masks = out["attention_mask"].bool().cpu()
        kept = [~np.isin(row[mask].numpy(), added) for row, mask in zip(ids.cpu(), masks, strict=True)]
        return [own_tokens(states, own) for states, own in zip(found, kept, strict=True)]

    def _features(self, inputs: Sequence[Any], prompt: str) -> dict[str, Any]:
        features = self.model.preprocess(list(inputs), prompt=prompt or None)
        device = self.model.device
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in features.items()}


def _layers(model: Any) -> int | None:
    """How many layers may be kept or left out; None where the model cannot be cut."""
    try:
        return None if find_backbone(model).config.output_hidden_states else layer_count(model)
    except (InputError, AttributeError):
        return None


def _widen(module: Any, given: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {key: _wide(value) for key, value in features.items()}


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

"""Sentence vectors of plain BERT folders through `PackedBert`: no sentence-transformers, no transformers to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from isometry.encoders.digest import read_json
from isometry.encoders.packed_bert import PackedBert
from isometry.encoders.tokens import Tokens
from isometry.errors import InputError

_USUAL = {"hidden_act": "gelu", "model_type": "bert", "position_embedding_type": "absolute"}


class BertEngine:
    """BERT, mean or first-token pooling, and a length of one where the model says so.

    Args:
        folder: a model folder for which `reads_plainly` is true.
        layers: transformer layers to keep; None keeps all.
    """

    modalities = ("text",)

    def __init__(self, folder: Path, dtype: torch.dtype, layers: int | None = None) -> None:
        config = read_json(folder / "config.json")
        settings = plain_settings(folder)
        total = config["num_hidden_layers"]
        if layers is not None and not 1 <= layers <= total:
            raise InputError(f"cannot keep {layers} layers: the model has {total}")
        self.layers: int | None = layers or total
        try:
            weights = {
                name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()
            }
            self.bert = PackedBert(weights, config, layers or total, dtype)
        except (KeyError, RuntimeError, OSError, ValueError, SafetensorError) as error:
            raise InputError(f"'{folder / 'model.safetensors'}' is not a readable BERT model: {error}") from error
        self.max_tokens: int = settings["max_tokens"]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokens = Tokens(tokenizer, self.max_tokens)
        self._special = np.array(tokenizer.encode("").ids)
        self.pooling, self.normalized = settings["pooling"], settings["normalized"]
        self.dimension: int = config["hidden_size"]
        self.prompts: dict[str, str] = settings["prompts"]

    def prepare(self, texts: Sequence[str], prompt: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Texts to inputs of `vectors`, their lengths in tokens `(n,)` and the tokens that each lost `(n,)`."""
        ids, lost, _ = self.tokens([prompt + text for text in texts] if prompt else texts)
        return ids, np.array([len(text) for text in ids], np.int64), lost

    def vectors(self, inputs: list[np.ndarray], query: bool, prompt: str) -> np.ndarray:
        """Prepared inputs, sorted by length, to float32 `(b, d)`."""
        states = self.bert(inputs)
        lengths = torch.tensor([len(text) for text in inputs])
        if self.pooling == "cls":
            pooled = states[torch.cumsum(lengths, 0) - lengths]
        else:
            pooled = torch.segment_reduce(states, "mean", lengths=lengths, axis=0)
        return (F.normalize(pooled, dim=1) if self.normalized else pooled).numpy()

    def token_vectors(self, inputs: list[np.ndarray], prompt: str, special: bool = True) -> list[Tensor]:
        """Prepared inputs to one float32 `(n_i, d)` per text, with or without the tokens that the tokenizer adds."""
        states = self.bert(inputs).split([len(text) for text in inputs])
        if special:
            return list(states)
        return [own_tokens(one, ~np.isin(text, self._special)) for one, text in zip(states, inputs, strict=True)]


def own_tokens(states: Tensor, own: np.ndarray) -> Tensor:
    """Rows of `states` (n, d) where `own` (n,) is true, or the first row where it never is."""
    return states[torch.from_numpy(np.flatnonzero(own))] if own.any() else states[:1]


def reads_plainly(folder: Path) -> bool:
    """Whether a folder is BERT, mean or first-token pooling and at most a normalisation, with nothing that changes them."""
    return plain_settings(folder) != {}


def plain_settings(folder: Path) -> dict[str, Any]:
    """Pooling, normalisation, limit and prompts of such a folder; empty where it is another kind of model."""
    needed = ("modules.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    if not all((folder / name).is_file() for name in needed):
        return {}
    modules = sorted(read_json(folder / "modules.json"), key=lambda module: module.get("idx", 0))
    kinds = [
        module["type"].rpartition(".")[2] for module in modules if module["type"].startswith("sentence_transformers.")
    ]
    if len(kinds) != len(modules) or kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return {}
    if modules[0]["path"] not in ("", "."):
        return {}
    config = read_json(folder / "config.json")
    pooling = _pooling(read_json(folder / modules[1]["path"] / "config.json"))
    tokenizer = read_json(folder / "tokenizer_config.json")
    limit = _limit(folder, config, tokenizer)
    if not (_is_plain_bert(config) and pooling and limit and _same_tokens(folder, tokenizer)):
        return {}
    file = folder / "config_sentence_transformers.json"
    general = read_json(file) if file.is_file() else {}
    if general.get("truncate_dim") is not None or general.get("default_prompt_name") is not None:
        return {}
    return {
        "pooling": pooling,
        "normalized": len(kinds) == 3,
        "max_tokens": limit,
        "prompts": general.get("prompts") or {},
    }


def _is_plain_bert(config: Mapping[str, Any]) -> bool:
    usual = all(config.get(key, value) == value for key, value in _USUAL.items())
    unusual = any(
        config.get(key) for key in ("is_decoder", "add_cross_attention", "output_hidden_states", "quantization_config")
    )
    sizes = ("num_hidden_layers", "num_attention_heads", "hidden_size", "layer_norm_eps")
    return config.get("model_type") == "bert" and usual and not unusual and all(key in config for key in sizes)


def _pooling(config: Mapping[str, Any]) -> str:
    """'mean', 'cls', or nothing for another pooling."""
    if not config.get("include_prompt", True):
        return ""
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = (
            {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get(modes[0])
            if len(modes) == 1
            else ""
        )
    return mode if mode in ("mean", "cls") else ""


def _limit(folder: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """Tokens kept; 0 where the settings ask for something else than the usual."""
    file = folder / "sentence_bert_config.json"
    settings = read_json(file) if file.is_file() else {}
    usual = {
        "max_seq_length": settings.get("max_seq_length"),
        "do_lower_case": False,
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    if any(key not in usual or value != usual[key] for key, value in settings.items()):
        return 0
    limit = settings.get("max_seq_length") or tokenizer.get("model_max_length") or 0
    return int(min(limit, config.get("max_position_embeddings", 512)))


def _same_tokens(folder: Path, tokenizer: Mapping[str, Any]) -> bool:
    """Whether tokenizer.json says all; settings beside it may lower-case differently or cut from the left."""
    if tokenizer.get("truncation_side", "right") != "right" or tokenizer.get("padding_side", "right") != "right":
        return False
    core = read_json(folder / "tokenizer.json")
    normalizer = core.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer":
        named = {
            "lowercase": "do_lower_case",
            "strip_accents": "strip_accents",
            "handle_chinese_chars": "tokenize_chinese_chars",
        }
        return all(
            tokenizer.get(theirs, normalizer.get(ours)) == normalizer.get(ours) for ours, theirs in named.items()
        )
    return tokenizer.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")

"""A residual pair as one model: the situated encoder, and behind it a fixed encoder of the chunk alone. Paper 48, version 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from torch.nn import functional as F

from isometry.encoders.text.load import load_text_model
from isometry.errors import InputError


class ChunkResidual(Module):
    """Adds what a second encoder says of the chunk alone; both vectors have length one before.

    Stands behind the situated encoder's pooling. A text is "chunk [SEP] context" (`situate`): the situated encoder reads
    all of it, the chunk encoder up to the first separator, and a query, which has none, they read alike. The chunk encoder
    is not trained (whether the paper trains it is not stated).

    Args:
        chunk_encoder: a model with the situated encoder's vocabulary and width.
        separator: number of the token that ends the chunk.
    """

    def __init__(self, chunk_encoder: SentenceTransformer, separator: int) -> None:
        super().__init__()
        self.chunk_encoder = chunk_encoder.requires_grad_(False)
        self.separator = separator

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Reads `input_ids` and `attention_mask` `(b, t)`; adds to `sentence_embedding` `(b, d)`."""
        mask = features["attention_mask"]
        ends = ((features["input_ids"] == self.separator) & mask.bool()).cumsum(dim=1)
        # The first separator itself is read: it ends the chunk as it ends a text.
        read = mask * ((ends == 0) | ((ends == 1) & (features["input_ids"] == self.separator)))
        inputs: dict[str, Any] = {
            key: features[key] for key in ("input_ids", "token_type_ids", "prompt_length") if key in features
        }
        with torch.no_grad():
            alone = self.chunk_encoder.eval()({**inputs, "attention_mask": read})["sentence_embedding"]
        situated = features["sentence_embedding"]
        features["sentence_embedding"] = F.normalize(situated, dim=-1) + F.normalize(alone.to(situated.dtype), dim=-1)
        return features

    def get_embedding_dimension(self) -> int:
        return int(self.chunk_encoder.get_embedding_dimension() or 0)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.chunk_encoder.save(str(Path(output_path) / "chunk_encoder"), create_model_card=False)

    def get_config_dict(self) -> dict[str, Any]:
        return {"separator": self.separator}

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> ChunkResidual:
        config = cls.load_config(model_name_or_path, subfolder=subfolder, local_files_only=True)
        return cls(load_text_model(Path(model_name_or_path) / subfolder / "chunk_encoder", "cpu"), config["separator"])


def residual_pair(situated: SentenceTransformer, chunk: SentenceTransformer) -> Any:
    """The two as one model, with a vector of length one at the end (the paper leaves it open).

    Raises:
        InputError: other vocabularies or widths, or a tokenizer without a separator token.
    """
    separator = situated.tokenizer.sep_token_id
    if separator is None:
        raise InputError("a residual pair needs a tokenizer with a separator token between chunk and context")
    if situated.tokenizer.get_vocab() != chunk.tokenizer.get_vocab():
        raise InputError("the two encoders of a residual pair share a vocabulary; these do not")
    if situated.get_embedding_dimension() != chunk.get_embedding_dimension():
        raise InputError(
            f"the encoders of a residual pair have {situated.get_embedding_dimension()} and "
            f"{chunk.get_embedding_dimension()} dimensions; give two of one width"
        )
    from sentence_transformers.base.modules.normalize import Normalize

    modules = [*situated, ChunkResidual(chunk, separator), Normalize()]
    return SentenceTransformer(modules=modules, prompts=dict(situated.prompts), device=str(situated.device))

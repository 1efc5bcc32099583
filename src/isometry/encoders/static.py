"""The mean of a BERT model's token embeddings, without any layer: the static baseline of every transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from isometry.encoders.digest import folder_digest
from isometry.encoders.load import default_folder
from isometry.encoders.trust import refuse_foreign_code
from isometry.errors import InputError
from isometry.types import EncoderDescription

_TABLES = ("embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight")


class StaticEncoder:
    """Averages word-piece embeddings; special tokens are left out, vectors have length one.

    Args:
        folder: a model folder with `tokenizer.json` and BERT weights; None is the bundled encoder's.
    Raises:
        InputError: the folder holds no such model.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        path = Path(folder) if folder is not None else default_folder()
        refuse_foreign_code(path)
        try:
            with safe_open(str(path / "model.safetensors"), "np") as weights:
                name = next(name for name in _TABLES if name in weights.keys())  # noqa: SIM118
                self._table = weights.get_tensor(name).astype(np.float32)
            self._tokens = Tokenizer.from_file(str(path / "tokenizer.json"))
        except (StopIteration, OSError, SafetensorError) as error:
            raise InputError(f"'{path}' has no token embeddings of a BERT model: {error}") from error
        self._tokens.no_truncation()
        self._tokens.no_padding()
        self._digest = hashlib.blake2b(f"static{folder_digest(path)}".encode(), digest_size=16).hexdigest()

    def describe(self) -> EncoderDescription:
        return EncoderDescription("static", self._digest, self._table.shape[1])

    def encode(self, inputs: Iterable[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Texts to float32 `(n, d)`; an empty text is a zero row."""
        texts = list(inputs)
        found = np.zeros((len(texts), self._table.shape[1]), np.float32)
        for row, tokens in enumerate(self._tokens.encode_batch_fast(texts, add_special_tokens=False)):
            if tokens.ids:
                found[row] = self._table[tokens.ids].mean(axis=0)
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(norms > 0, norms, 1)

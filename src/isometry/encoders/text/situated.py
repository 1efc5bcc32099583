"""Chunks embedded in the light of what stands around them.

Paper 48: situated inputs (chunk first, then its context), residual pairs of encoders, the causal reading of one pass;
and late chunking (encode the whole text once, pool each chunk's tokens), which the paper compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from isometry.errors import InputError, ShapeError

CONNECTOR = "The text below surrounds the passage above; read the passage in its light."


def chunk_sentences(sentences: Sequence[str], budget: int, count: Callable[[str], int] | None = None) -> list[str]:
    """Whole sentences gathered until the next one would exceed `budget` tokens (paper 48: 200).

    A single sentence longer than the budget is a chunk of its own. Joining the chunks with blanks gives every sentence
    back, in order, once. `count` counts tokens (default: words).
    """
    count = count or (lambda text: len(text.split()))
    chunks: list[str] = []
    held: list[str] = []
    size = 0
    for sentence in sentences:
        length = count(sentence)
        if held and size + length > budget:
            chunks.append(" ".join(held))
            held, size = [], 0
        held.append(sentence)
        size += length
    if held:
        chunks.append(" ".join(held))
    return chunks


def context_block(chunks: Sequence[str], position: int, block: int = 16) -> str:
    """The block of consecutive chunks that a chunk lies in (paper 48: 16, no sliding window)."""
    start = position // block * block
    return " ".join(chunks[start : start + block])


def situate(
    chunk: str,
    context: str,
    separator: str = " [SEP] ",
    budget: int | None = None,
    count: Callable[[str], int] | None = None,
) -> str:
    """Chunk, separator, context; an empty context gives the chunk alone. Only the context is cut to the budget.

    Args:
        budget: most tokens of the result; context words are dropped from the end, the chunk never.
        count: counts tokens (default: words).
    """
    if not context:
        return chunk
    words = context.split()
    if budget is not None:
        count = count or (lambda text: len(text.split()))
        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if count(chunk + separator + " ".join(words[:middle])) <= budget:
                low = middle
            else:
                high = middle - 1
        words = words[:low]
    return chunk + separator + " ".join(words) if words else chunk


def late_chunks(model: SentenceTransformer, text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Vectors `(len(spans), d)` of length one: the whole text is read once, each span's tokens are averaged.

    Args:
        spans: character ranges (start, end) of the chunks.

    Raises:
        InputError: a span holds no token, for example because the text is longer than the model's limit.
    """
    model.eval()
    features = model.preprocess([text])
    moved = {key: value.to(model.device) if isinstance(value, Tensor) else value for key, value in features.items()}
    with torch.inference_mode():
        tokens = model[0](moved)["token_embeddings"][0].float()
    encoded = model.tokenizer(text, truncation=True, max_length=model.max_seq_length, return_offsets_mapping=True)
    vectors = np.zeros((len(spans), tokens.shape[1]), dtype=np.float32)
    for row, (start, end) in enumerate(spans):
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < b and a >= start and b <= end]
        if not inside:
            raise InputError(
                f"the span {start}..{end} holds no token the model reads ({model.max_seq_length} tokens of the text); "
                "shorten the text"
            )
        vectors[row] = tokens[inside].mean(dim=0).cpu().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class ResidualPair:
    """Two encoders whose vectors are added: one reads the chunk, the other the chunk in its context (paper 48, v1).

    The score is the dot product of the sums, so one index of d dimensions serves the pair. Each component has length
    one before it is added; `renormalise` divides the sum by its length (the paper leaves it open; off keeps the four
    cross terms exact).
    """

    chunk_encoder: Any
    situated_encoder: Any
    renormalise: bool = False

    def encode_queries(self, queries: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """The same query text through both: `(q, d)`."""
        return self._sum(queries, queries, batch_size)

    def encode_chunks(self, chunks: Sequence[str], situated: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Chunks, and the same chunks with their context (`situate`): `(n, d)`."""
        if len(chunks) != len(situated):
            raise ShapeError(f"{len(chunks)} chunks and {len(situated)} situated texts; give one for each")
        return self._sum(chunks, situated, batch_size)

    def _sum(self, plain: Sequence[str], situated: Sequence[str], batch_size: int) -> np.ndarray:
        total = _unit(self.chunk_encoder.encode(list(plain), batch_size=batch_size))
        total = total + _unit(self.situated_encoder.encode(list(situated), batch_size=batch_size))
        return _unit(total) if self.renormalise else total


def marker_states(tokens: Tensor, input_ids: Tensor, mask: Tensor, marker: int) -> tuple[Tensor, Tensor]:
    """States at the first and last marker token of every row: the causal reading of paper 48, v1.5.

    In a causal model the first marker cannot see the context behind it, so its state is the chunk alone; the last is
    the situated chunk. Padding is skipped even where the pad token is the marker.

    Args:
        tokens: `(b, t, d)`.
        input_ids: `(b, t)`.
        mask: `(b, t)` of 0/1.
        marker: the token's number.

    Returns:
        chunk states `(b, d)`, situated states `(b, d)`.
    """
    found = (input_ids == marker) & mask.bool()
    if not bool(found.any(dim=1).all()):
        row = int((~found.any(dim=1)).nonzero()[0])
        raise InputError(f"row {row} holds no marker token {marker}; was it cut off by the length limit?")
    rows = torch.arange(len(tokens), device=tokens.device)
    first = found.long().argmax(dim=1)
    last = found.shape[1] - 1 - found.flip(1).long().argmax(dim=1)
    return tokens[rows, first], tokens[rows, last]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

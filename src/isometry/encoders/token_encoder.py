"""One vector for each token of a text, of any model that gives sentence vectors: late interaction without training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from isometry.encoders.sentence_encoder import SentenceEncoder
from isometry.types import EncoderDescription, VectorSets


class TokenEncoder:
    """The last hidden states of a text's tokens at length one; made by `load_encoder('NAME#tokens')`.

    Special tokens are left out; a text that has nothing else keeps its first. Such vectors were not trained to be
    matched one by one; a model that was is a `MultiVectorEncoder` folder, which `load_encoder` takes as it is.

    Args:
        inner: the encoder of sentence vectors.
        description: with `multi_vector`.
        most: token vectors kept of a document; None keeps all that the model reads. Queries keep all.
    """

    def __init__(self, inner: SentenceEncoder, description: EncoderDescription, most: int | None = None) -> None:
        self._inner, self._description, self._most = inner, description, most
        self.precision = inner.precision

    @property
    def truncated(self) -> int:
        """Texts that were cut to the model's `max_tokens` so far."""
        return self._inner.truncated

    @property
    def most_tokens_cut(self) -> int:
        """The most tokens that one text lost there."""
        return self._inner.most_tokens_cut

    def describe(self) -> EncoderDescription:
        return self._description

    def encode(self, inputs: Iterable[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> VectorSets:
        """Documents to their token vectors. Raises InputError for one text in place of a list."""
        sets = VectorSets(*self._inner.encode_tokens(inputs, batch_size, special=False))
        if self._most is None:
            return sets
        sizes = np.minimum(np.diff(sets.offsets), self._most)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(sets.offsets[:-1] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return VectorSets(sets.values[at], offsets)

    def encode_queries(
        self, texts: Iterable[str], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> VectorSets:
        """Queries to their token vectors, with the model's own prompt for queries."""
        return VectorSets(*self._inner.encode_tokens(texts, batch_size, special=False, query=True))

    def count_tokens(self, texts: list[str]) -> int:
        """Tokens that `encode` reads of the texts together, special tokens and the document prompt included."""
        return self._inner.count_tokens(texts)

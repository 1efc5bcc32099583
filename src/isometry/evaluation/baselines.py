"""Encoders that know nothing: what a trained one has to beat, and something to compare where there is no network.

Each follows the encoder protocol. `Lsa` learns from texts alone, task by task: `for_texts` gives the encoder of a
task's texts (never of its labels), as a TF-IDF index would be built over a corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from isometry.errors import InputError
from isometry.types import Encoder, EncoderDescription


@runtime_checkable
class FittedOnTexts(Protocol):
    """An encoder that has to see the texts of a task first."""

    def for_texts(self, texts: Iterable[str]) -> Encoder: ...


class RandomVectors:
    """A random vector of length one for every different text: chance level.

    Args:
        dimension: length of a vector.
        seed: another seed gives another chance.
    """

    def __init__(self, dimension: int = 384, seed: int = 0) -> None:
        self.dimension, self.seed = _positive(dimension), seed

    def describe(self) -> EncoderDescription:
        return _description("random", self.dimension, self.seed)

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Texts to float32 `(n, d)`."""
        found = np.empty((len(inputs), self.dimension), np.float32)
        for row, text in enumerate(inputs):
            digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest, "little")])
            found[row] = rng.standard_normal(self.dimension)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class HashedWords:
    """Words or character n-grams, hashed with random signs into `dimension` places (Weinberger et al., ICML 2009):
    a random projection of bag-of-words counts.

    Args:
        dimension: length of a vector.
        of: 'words', or 'characters' for n-grams of 3 to 5 inside words.
    """

    def __init__(self, dimension: int = 384, of: Literal["words", "characters"] = "words") -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.dimension, self.of = _positive(dimension), of
        what: dict[str, Any] = (
            {"analyzer": "char_wb", "ngram_range": (3, 5)} if of == "characters" else {"token_pattern": r"(?u)\b\w+\b"}
        )
        self._counts = HashingVectorizer(n_features=dimension, norm="l2", dtype=np.float32, **what)

    def describe(self) -> EncoderDescription:
        return _description(self.of, self.dimension)

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Texts to float32 `(n, d)`; a text without words is a zero row."""
        return np.ascontiguousarray(self._counts.transform(inputs).toarray(), dtype=np.float32)


class Lsa:
    """TF-IDF and a truncated SVD (Deerwester et al., 1990), fitted on the texts of a task.

    Args:
        dimension: largest length of a vector; small tasks have shorter ones.
    """

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = _positive(dimension)

    def describe(self) -> EncoderDescription:
        return _description("lsa", self.dimension)

    def for_texts(self, texts: Iterable[str]) -> Encoder:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        unique = sorted(set(texts))
        weigh = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
        table = weigh.fit_transform(unique)
        size = min(self.dimension, min(table.shape) - 1)
        if size < 1:
            raise InputError("the texts have too few different words for an LSA baseline")
        reduce = TruncatedSVD(size, random_state=0).fit(table)
        digest = hashlib.blake2b("\0".join(unique).encode("utf-8", "backslashreplace"), digest_size=16)
        about = _description("lsa", size, self.dimension, digest.hexdigest())
        return _Fitted(lambda inputs: reduce.transform(weigh.transform(inputs)), about)

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Fitted on the very texts given."""
        return self.for_texts(inputs).encode(inputs)


class _Fitted:
    def __init__(self, transform: Callable[[Sequence[str]], Any], description: EncoderDescription) -> None:
        self._transform, self._description = transform, description

    def describe(self) -> EncoderDescription:
        return self._description

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        return np.ascontiguousarray(self._transform(inputs), dtype=np.float32)


def _positive(dimension: int) -> int:
    if dimension < 1:
        raise InputError(f"a vector needs at least one dimension, not {dimension}")
    return dimension


def _description(name: str, dimension: int, *more: object) -> EncoderDescription:
    content = repr((name, dimension, *more)).encode()
    return EncoderDescription(
        f"{name}#dimensions={dimension}",
        hashlib.blake2b(content, digest_size=16).hexdigest(),
        dimension,
        normalized=name == "random",
    )

"""Which sentences of a text are closest to a query, by the encoder that made the collection's vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.types import VectorSets

MOST_SENTENCES = 60  # of a longer text the first ones are compared
MOST_CHARACTERS = 1000  # of a longer sentence the beginning is compared
_END = re.compile(
    r"""((?<![.!?…])[.!?…]+)["'”’»)\]]*\s+(?=["'“‘«(\[]*[^\sa-z])|[。！？]+\s*|\n\s*"""  # the look-behind keeps it linear
)
_SHORT = re.compile(r"\b(?:[A-Za-z]|e\.g|i\.e|cf|et al|etc|vs|resp|approx|Figs?|Eqs?|Secs?|Refs?|No|Dr|Prof|St)\.$")


@dataclass(frozen=True)
class Sentence:
    """A stretch of a text with the white space behind it; `relevant` where it is closest to the query."""

    text: str
    relevant: bool


def split_sentences(text: str) -> list[str]:
    """Consecutive parts that joined are the text; a part shorter than 12 characters stays with the one before it."""
    parts: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if end[1] == "." and _SHORT.search(text[max(start, end.start() - 8) : end.start() + 1]):
            continue
        part = text[start : end.end()]
        if parts and len(part.strip()) < 12:
            parts[-1] += part
        else:
            parts.append(part)
        start = end.end()
    if start < len(text):
        if parts and len(text[start:].strip()) < 12:
            parts[-1] += text[start:]
        else:
            parts.append(text[start:])
    return parts


def relevant_sentences(encoder: Any, query: str, texts: Sequence[str], *, most: int = 2) -> list[list[Sentence]]:
    """Each text as sentences, the closest of them marked.

    The best sentence is marked, and further ones, up to `most`, that come within a tenth of its cosine. Where a text is
    one sentence, or none points the query's way (a cosine of 0.1 or less), none is marked.

    Args:
        encoder: with `encode`, and `encode_queries` where it has one; one vector or several for a text.
    """
    split = [split_sentences(text) for text in texts]
    compared = [parts[:MOST_SENTENCES] if len(parts) > 1 else [] for parts in split]
    wanted = list(dict.fromkeys(part.strip()[:MOST_CHARACTERS] for parts in compared for part in parts if part.strip()))
    scores = dict(zip(wanted, _scores(encoder, query, wanted), strict=True)) if wanted else {}
    marked = []
    for parts, some in zip(split, compared, strict=True):
        own = np.array([scores.get(part.strip()[:MOST_CHARACTERS], -1.0) for part in some])
        best = np.argsort(-own, kind="stable")[:most]
        chosen = {int(place) for place in best if own[place] > 0.1 and own[place] >= 0.9 * own[best[0]]}
        marked.append([Sentence(part, place in chosen) for place, part in enumerate(parts)])
    return marked


def _scores(encoder: Any, query: str, sentences: list[str]) -> list[float]:
    """Cosine of the query and each sentence; for several vectors the mean over the query's of the best cosine."""
    ask = getattr(encoder, "encode_queries", None) or encoder.encode
    (asked,) = _units(ask([query]))
    return [float((asked @ held.T).max(axis=1).mean()) for held in _units(encoder.encode(sentences))]


def _units(vectors: Any) -> list[np.ndarray]:
    """One float32 `(t, d)` of unit vectors per text."""
    if isinstance(vectors, VectorSets):
        sets = [
            vectors.values[first:last] for first, last in zip(vectors.offsets[:-1], vectors.offsets[1:], strict=True)
        ]
    else:
        sets = list(np.asarray(vectors, np.float32)[:, None, :])
    return [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in sets]

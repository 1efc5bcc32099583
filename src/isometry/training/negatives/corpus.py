"""Texts to find negatives among, and a model that is asked for their vectors, each text once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.records import open_source

_COLUMNS = ("document", "positive", "text", "passage", "answer")


class Judge:
    """A miner's or teacher's vectors, float32 of length one; it remembers them, because filter, miner and loss ask for
    the same texts.

    Args:
        encoder: a SentenceTransformer, or an encoder of this project.
        batch_size: texts embedded at a time by a SentenceTransformer.
    """

    def __init__(self, encoder: Any, batch_size: int = 64) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self._known: dict[tuple[bool, str], np.ndarray] = {}

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Texts, with the model's prompt for queries, to `(n, d)`."""
        return self._vectors(texts, True)

    def documents(self, texts: Sequence[str]) -> np.ndarray:
        """Texts, with the model's prompt for documents, to `(n, d)`."""
        return self._vectors(texts, False)

    def remember(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Documents whose vectors `(n, d)` are there already."""
        self._known.update(((False, text), row) for text, row in zip(texts, _unit(vectors), strict=True))

    def _vectors(self, texts: Sequence[str], query: bool) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if (query, text) not in self._known]
        if new:
            found = _unit(self._encode(new, query))
            self._known.update(((query, text), row) for text, row in zip(new, found, strict=True))
        return np.stack([self._known[query, text] for text in texts])

    def _encode(self, texts: list[str], query: bool) -> np.ndarray:
        name = "encode_query" if query else "encode_document"
        if hasattr(self.encoder, name):
            found = getattr(self.encoder, name)(texts, batch_size=self.batch_size, show_progress_bar=False)
        else:
            found = (self.encoder.encode_queries if query else self.encoder.encode)(texts)
        return np.asarray(found)


@dataclass(frozen=True)
class Corpus:
    """Documents beside the positives of the training data; `encoder` and `vectors` `(n, d)` where a collection has them."""

    texts: list[str] = field(default_factory=list)
    vectors: np.ndarray | None = None
    encoder: Any = None


def read_corpus(path: str | Path) -> Corpus:
    """A file with a column of documents (document, positive, text, passage or answer), or a collection's folder.

    Of a collection the text is what its encoder read of a record, and the vectors are those it holds.

    Raises:
        NotFoundError: nothing there. InputError: no such column, no documents, or a collection without one vector of an
            encoder per record.
    """
    from isometry.search.store.database import DATABASE

    if (Path(path) / DATABASE).is_file():
        return _of_collection(path)
    opened = open_source(path, table=True)
    name = next((name for name in _COLUMNS if name in opened.schema.names), None)
    if name is None:
        there = ", ".join(key for key in opened.schema.names if key != "id")
        raise InputError(f"{opened.name} has the columns {there}; a corpus has one of {', '.join(_COLUMNS)}")
    texts = [text for batch in opened.batches() for text in batch.column(name).to_pylist()]
    found = [text for text in texts if isinstance(text, str) and text.strip()]
    if not found:
        raise InputError(f"{opened.name}, column '{name}': no texts")
    return Corpus(found)


def _of_collection(path: str | Path) -> Corpus:
    from isometry.search import Collection
    from isometry.search.collection import document_text

    with Collection.open(path) as collection:
        if collection.multi_vector or collection.encoder_description is None:
            raise InputError(f"'{path}' is mined only if an encoder gave each of its records one vector")
        ids, vectors = collection.vectors()
        row_of = {identity: row for row, identity in enumerate(ids)}
        texts, rows = [], []
        for batch in collection.iter_records():
            columns = [batch.column(name).to_pylist() for name in collection.text_columns]
            for identity, *values in zip(batch.column("id").to_pylist(), *columns, strict=True):
                text = document_text(values)
                if text:
                    texts.append(text)
                    rows.append(row_of[identity])
        if not texts:
            raise NotFoundError(f"'{path}' holds no texts to mine")
        return Corpus(texts, np.asarray(vectors, dtype=np.float32)[rows], collection.encoder)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

"""What every task shares: how vectors are asked for, and what a result holds.

A result has one value per item, so that systems can be compared item by item. Where the metric is a mean over items
(nDCG, accuracy), the value of an item is its own. Where it is not (Spearman, average precision, V-measure), it is the
infinitesimal jackknife's pseudo-value (Jaeckel 1972; Efron, "The Jackknife, the Bootstrap and Other Resampling Plans",
1982, section 6): the metric plus n times its derivative by the item's weight. For a mean both are the same number; in
all cases their mean is the metric, and their spread over the root of n is its standard error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from isometry.errors import InputError, ShapeError
from isometry.types import Encoder

KINDS = (
    "STS",
    "PairClassification",
    "Retrieval",
    "Reranking",
    "Clustering",
    "Classification",
    "BitextMining",
)  # mteb's names


@dataclass(frozen=True)
class SubsetResult:
    """One language (or pair of languages) of a task.

    Attributes:
        value: the main metric.
        per_item: `(n,)` float64, whose mean is `value`.
        metrics: others, by mteb's names.
    """

    value: float
    per_item: np.ndarray
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One encoder on one task.

    Attributes:
        task, kind, metric: names.
        subsets: by name, in the order of the task.
        value: mean over the subsets, whatever their sizes.
    """

    task: str
    kind: str
    metric: str
    subsets: dict[str, SubsetResult]

    @property
    def value(self) -> float:
        return float(np.mean([one.value for one in self.subsets.values()]))

    @property
    def per_item(self) -> np.ndarray:
        """`(n,)` over the items of all subsets; mean = `value`, and the spread is that of a stratified mean."""
        total, count = sum(len(one.per_item) for one in self.subsets.values()), len(self.subsets)
        parts = [
            self.value + (one.per_item - one.value) * (total / (count * len(one.per_item)))
            for one in self.subsets.values()
        ]
        return self.subsets[next(iter(self.subsets))].per_item if count == 1 else np.concatenate(parts)


class Task(Protocol):
    """Judges an encoder on data of its own."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        ...

    @property
    def metric(self) -> str: ...

    @property
    def data(self) -> Mapping[str, Any]:
        """Subset name (a language code, or two joined by '-') to its texts and labels."""
        ...

    def texts(self) -> Iterator[str]:
        """Every text that will be encoded, repetitions included."""
        ...

    def evaluate(self, encoder: Encoder) -> Result: ...


def evaluate_subsets(task: Any, judge: Callable[[Any], SubsetResult]) -> Result:
    """Judge subset by subset; a degenerate one is named."""
    if not task.data:
        raise InputError(f"task '{task.name}' has no data")
    found = {}
    for name, data in task.data.items():
        try:
            found[name] = judge(data)
        except InputError as error:
            raise InputError(f"task '{task.name}', subset '{name}': {error}") from error
    return Result(task.name, task.kind, task.metric, found)


def document_vectors(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Texts to float32 `(n, d)`, finite.

    Raises:
        ShapeError: the encoder gave another number of rows, or numbers that are none.
    """
    return _checked(encoder.encode(list(texts)), len(texts))


def query_vectors(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """As `document_vectors`, with the encoder's own way for queries (`encode_queries`, `encode_query`) where it has one."""
    encode = getattr(encoder, "encode_queries", None) or getattr(encoder, "encode_query", None) or encoder.encode
    return _checked(encode(list(texts)), len(texts))


def _checked(vectors: Any, rows: int) -> np.ndarray:
    found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2 or len(found) != rows:
        raise ShapeError(f"the encoder gave an array of shape {found.shape} for {rows} texts")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise ShapeError(f"the encoder gave NaN or infinity for text {row + 1} of {rows}")
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def check_lengths(**columns: Sequence[Any]) -> None:
    """Columns of one length, not empty."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"columns must be of one length and not empty ({told})")


def fingerprint(task: Any) -> str:
    """16 hex characters over the task's settings and data: other texts or labels give another one."""
    content = json.dumps(asdict(task), sort_keys=False, ensure_ascii=False, default=_plain)
    return hashlib.blake2b(
        f"{type(task).__name__}{content}".encode("utf-8", "backslashreplace"), digest_size=8
    ).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

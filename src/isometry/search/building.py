"""From a plan and the sealed segments to an index file beside them, and from the file to an index that searches.

A file is a cache: the manifest names it with its digest, its plan and the digests of the segments it was built from.
What is missing, damaged, of another plan or of other segments is not used; searches are exact until it is built again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from isometry.errors import CorruptionError
from isometry.search.indexes import AdaptiveIndex, CodeIndex
from isometry.search.memory import watched
from isometry.search.plan import SearchPlan
from isometry.search.store.arrays import read_arrays, write_arrays
from isometry.search.store.segments import Segment

FOLDER = "indexes"
_FORMAT = "isometry-index@1"


@dataclass(frozen=True)
class Built:
    """What the manifest keeps of an index file: name, digest, plan, the segments it covers, and their rows.

    build_seconds: processor time. build_mb: 10^6 bytes by which the process grew at most while it was built.
    """

    file: str
    digest: str
    plan: SearchPlan
    segments: tuple[str, ...]
    rows: int
    build_seconds: float | None = None
    build_mb: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "plan": self.plan.to_dict(), "segments": list(self.segments)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Built:
        """Raises: CorruptionError."""
        try:
            return cls(
                **{**content, "plan": SearchPlan.from_dict(content["plan"]), "segments": tuple(content["segments"])}
            )
        except (KeyError, TypeError) as error:
            raise CorruptionError(f"the manifest's note of the index is not readable ({error})") from error

    def covers(self, digests: Sequence[str]) -> bool:
        """Whether these segments, in the order of their rows, begin with the ones that were built from."""
        return len(self.segments) > 0 and tuple(digests[: len(self.segments)]) == self.segments


def build_index(folder: Path, plan: SearchPlan, segments: Sequence[Segment]) -> Built:
    """Fit, code and write the file `folder/indexes/...`.

    Memory is bounded by the codes and `fit_rows` vectors; a graph also takes the float32 vectors while its links are made.
    Raises: StorageError; what the code raises when it is fitted.
    """
    vectors = [segment.vectors for segment in segments]
    digests = tuple(segment.info.digest for segment in segments)
    began = time.process_time()
    with watched() as growth:
        index = _made(plan, vectors)
    spent = round(time.process_time() - began, 3)
    arrays = dict(index.arrays())
    if isinstance(index, CodeIndex):
        learnt = index.compressor.learnt_arrays()
        arrays |= {f"learnt/{name}": array for name, array in learnt.items()}
    source = hashlib.blake2b(repr((_FORMAT, plan.key, digests)).encode(), digest_size=12).hexdigest()
    name = f"{source}.idx"
    head = {"format": _FORMAT, "plan": plan.to_dict(), "segments": list(digests), "dimension": vectors[0].shape[1]}
    digest = write_arrays(folder / FOLDER / name, head, arrays)
    return Built(name, digest, plan, digests, len(index), spent, growth.mb)


def open_index(folder: Path, built: Built, segments: Sequence[Segment]) -> CodeIndex | AdaptiveIndex:
    """The index of a file, after every byte was compared with its checksum; its arrays stay memory-mapped.

    Raises: CorruptionError where the file is not the one that the manifest names.
    """
    from isometry.compression import restore_compressor

    head, arrays = read_arrays(folder / FOLDER / built.file, built.digest)
    if head["format"] != _FORMAT or tuple(head["segments"]) != built.segments or head["plan"] != built.plan.to_dict():
        raise CorruptionError(f"'{folder / FOLDER / built.file}' was built for another plan or other segments")
    vectors, part = [segment.vectors for segment in segments], head["plan"]["code"]
    if part is None:
        return _adaptive(built.plan).restore(vectors, arrays)
    learnt = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith("learnt/")}
    code = restore_compressor(part["part"], part["parameters"], head["dimension"], learnt)
    return CodeIndex(code, shortlist=built.plan.shortlist).restore(vectors, arrays)


def _made(plan: SearchPlan, vectors: list[np.ndarray]) -> CodeIndex | AdaptiveIndex:
    if plan.code is None:
        return _adaptive(plan).build(vectors)
    code = clone(plan.code).fit(fit_sample(vectors, plan.fit_rows))
    return CodeIndex(code, shortlist=plan.shortlist).build(vectors)


def _adaptive(plan: SearchPlan) -> AdaptiveIndex:
    links = plan.links if plan.index == "graph" else 0
    return AdaptiveIndex(links=links, build_breadth=plan.build_breadth, cells=plan.cells, recall=plan.recall)


def remove_others(folder: Path, keep: str | None) -> None:
    """Delete index files that the manifest does not name; whoever has one open keeps it until it is let go."""
    for file in (folder / FOLDER).glob("*"):
        if file.name != keep:
            file.unlink(missing_ok=True)


def fit_sample(vectors: Sequence[np.ndarray], most: int) -> np.ndarray:
    """At most `most` rows of the arrays, in order, drawn with a fixed seed."""
    total = sum(len(part) for part in vectors)
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    parts, start = [], 0
    for part in vectors:
        low, high = np.searchsorted(chosen, (start, start + len(part)))
        parts.append(part[chosen[low:high] - start])
        start += len(part)
    return np.concatenate(parts)

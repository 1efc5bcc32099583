"""What the faiss indexes share: a built part, an exact tail, filters, and a saved form that is never trusted unchecked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isometry.errors import CorruptionError, MissingExtraError, NotFoundError, ShapeError
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.indexes.flat import FlatIndex
from isometry.search.kernels.exact import exact_scorer, top_k

_CHECKED_ROWS = 16384
_FORMAT = "isometry-faiss@1"
Self = TypeVar("Self", bound="FaissIndex")


def load_faiss() -> Any:
    """The faiss module, with batched flat search through BLAS as its own documentation recommends (8x in 1.15)."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("An approximate index", "search") from error
    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss


class FaissIndex:
    """Base of `HNSWIndex` and `IVFIndex`: approximate over a built part, exact over the rows behind it.

    `build_prefix(vectors, built)` indexes the first `built` rows only; the rest are searched exactly, so that an index
    can answer while it is being built or after rows were added. Candidates are scored again by `kernels.exact`.

    Attributes:
        last_plan: stage, rows in the built part and behind it, candidates scored exactly.
    """

    def __init__(self, *, over_fetch: int = 4) -> None:
        self.over_fetch = over_fetch
        self.last_plan: dict[str, Any] = {}
        self._index: Any = None
        self._built = 0
        self._vectors = np.empty((0, 0), np.float32)
        self._tail: FlatIndex | None = None

    def build(self: Self, vectors: np.ndarray) -> Self:
        """Index float32 vectors (n, d), which are kept for exact scores and may be memory-mapped."""
        return self.build_prefix(vectors, len(vectors))

    def build_prefix(self: Self, vectors: np.ndarray, built: int) -> Self:
        """As `build`, with rows from `built` on left to exact search. Raises: ShapeError."""
        vectors = _checked(vectors)
        if not 0 <= built <= len(vectors):
            raise ShapeError(f"built is {built}; there are {len(vectors)} vectors.")
        self._index = self._made(vectors[:built])
        return self._attach(vectors, built)

    def save(self, path: str | Path, *, source: Sequence[str]) -> None:
        """Write the built part with a checksum, keyed by the checksums `source` of the segments it was built from."""
        faiss = load_faiss()
        path = Path(path)
        body = faiss.serialize_index(self._index).tobytes()
        head = {"format": _FORMAT, "part": type(self).__name__, "built": self._built, "source": list(source)}
        head |= {"dimension": self._vectors.shape[1], "digest": hashlib.blake2b(body, digest_size=16).hexdigest()}
        line = json.dumps(head, sort_keys=True).encode() + b"\n"
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as file:
            file.write(hashlib.blake2b(line, digest_size=16).hexdigest().encode() + b"\n" + line + body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self: Self, path: str | Path, vectors: np.ndarray, *, source: Sequence[str]) -> Self:
        """Read what `save` wrote for vectors (n, d) whose first rows are the built part; it is mapped to be checked.

        Raises: NotFoundError; CorruptionError for a damaged file or one built from other segments: build again.
        """
        faiss = load_faiss()
        path = Path(path)
        if not path.exists():
            raise NotFoundError(f"there is no index at '{path}'; build it.")
        vectors = _checked(vectors)
        mapped = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        start = bytes(mapped[: 1 << 20])
        first = start.find(b"\n")
        second = start.find(b"\n", first + 1)
        line = start[first + 1 : second + 1]
        if first != 32 or second < 0 or hashlib.blake2b(line, digest_size=16).hexdigest().encode() != start[:32]:
            raise CorruptionError(f"'{path}' does not begin as an index does; build it again.")
        head = json.loads(line)
        if head["format"] != _FORMAT or head["part"] != type(self).__name__ or head["source"] != list(source):
            raise CorruptionError(f"'{path}' was built from other segments or by another part; build it again.")
        body = mapped[second + 1 :]
        if hashlib.blake2b(body.data, digest_size=16).hexdigest() != head["digest"]:
            raise CorruptionError(f"'{path}' differs from its checksum; build it again.")
        if head["dimension"] != vectors.shape[1] or head["built"] > len(vectors):
            raise CorruptionError(f"'{path}' does not fit {len(vectors)} vectors of dimension {vectors.shape[1]}.")
        self._index = faiss.deserialize_index(body)
        return self._attach(vectors, head["built"])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        queries = check_queries(queries, self._vectors.shape[1], k)
        allowed = check_allowed(allowed, len(self))
        faiss = load_faiss()
        wanted = min(self.over_fetch * k, self._built)
        found = np.full((len(queries), max(wanted, 1)), -1, np.int64)
        if wanted and len(queries):
            selector = None
            if allowed is not None:
                bitmap = np.packbits(allowed[: self._built], bitorder="little")
                selector = faiss.IDSelectorBitmap(self._built, faiss.swig_ptr(bitmap))
            _, found = self._index.search(queries, wanted, params=self._parameters(selector, wanted))
        tail_rows = np.full((len(queries), k), -1, np.int64)
        if self._tail is not None:
            _, tail_rows = self._tail.search(queries, k, None if allowed is None else allowed[self._built :])
            tail_rows = np.where(tail_rows >= 0, tail_rows + self._built, -1)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        score, candidates = exact_scorer(), 0
        for i, query in enumerate(queries):
            chosen = np.concatenate([found[i], tail_rows[i]])
            chosen = np.sort(chosen[chosen >= 0])
            exact = np.empty(len(chosen), np.float32)
            score(self._vectors, chosen, query, exact)
            scores[i], rows[i] = top_k(exact, chosen, k)
            candidates += len(chosen)
        behind = len(self) - self._built
        self.last_plan = {"stage": type(self).__name__, "built": self._built, "tail": behind, "candidates": candidates}
        return scores, rows

    def _attach(self: Self, vectors: np.ndarray, built: int) -> Self:
        self._vectors, self._built = vectors, built
        self._tail = FlatIndex().build(vectors[built:]) if built < len(vectors) else None
        return self

    def _made(self, vectors: np.ndarray) -> Any:
        raise AttributeError(f"{type(self).__name__} does not say how it is built.")

    def _parameters(self, selector: Any, wanted: int) -> Any:
        raise AttributeError(f"{type(self).__name__} does not say how it is searched.")


def _checked(vectors: np.ndarray) -> np.ndarray:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise ShapeError(f"vectors are {vectors.dtype} of shape {vectors.shape}; give C-contiguous float32 (n, d).")
    for start in range(0, len(vectors), _CHECKED_ROWS):
        bad = ~np.isfinite(vectors[start : start + _CHECKED_ROWS]).all(axis=1)
        if bad.any():
            raise ShapeError(f"vector {start + int(np.flatnonzero(bad)[0])} holds NaN or infinity; leave it out.")
    return vectors

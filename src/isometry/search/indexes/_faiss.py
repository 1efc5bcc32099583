"""What the faiss indexes share: a built part, an exact tail, filters, and a saved form that is never trusted unchecked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import numpy as np

from isometry.compression import CodeEstimator, ProductQuantizer, ScalarQuantizer
from isometry.errors import CorruptionError, InputError, MissingExtraError, NotFoundError, ShapeError
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


class _State(NamedTuple):
    """What a search reads, exchanged as a whole: faiss' index of the first `built` vectors, exact search of the rest."""

    index: Any
    vectors: np.ndarray
    built: int
    tail: FlatIndex | None
    mapped: np.ndarray | None


class FaissIndex:
    """Base of `HNSWIndex` and `IVFIndex`: approximate over a built part, exact over the rows behind it.

    `build_prefix(vectors, built)` indexes the first `built` rows only; the rest are searched exactly, so that an index
    can answer while it is being built or after rows were added; `build_in_background(vectors)` does that by itself.
    Rows are deleted by the bitmap of `search`. Candidates are scored again by `kernels.exact`.

    Args:
        over_fetch: candidates scored exactly, as a multiple of k.
        code: what the index holds instead of float32 vectors: settings of a `ScalarQuantizer` (8 or 4 bits) or an
            unrotated `ProductQuantizer`, trained by faiss on the built part.

    Attributes:
        last_plan: stage, rows in the built part and behind it, candidates scored exactly.
    """

    def __init__(self, *, over_fetch: int = 4, code: CodeEstimator | None = None) -> None:
        if not isinstance(code, (ScalarQuantizer, ProductQuantizer, type(None))) or getattr(code, "rotate", False):
            raise InputError(f"the code is {code!r}; give a ScalarQuantizer, an unrotated ProductQuantizer, or None.")
        self.over_fetch = over_fetch
        self.code = code
        self.last_plan: dict[str, Any] = {}
        self._state = _State(None, np.empty((0, 0), np.float32), 0, None, None)

    def build(self: Self, vectors: np.ndarray) -> Self:
        """Index float32 vectors (n, d), which are kept for exact scores and may be memory-mapped."""
        return self.build_prefix(vectors, len(vectors))

    def build_prefix(self: Self, vectors: np.ndarray, built: int) -> Self:
        """As `build`, with rows from `built` on left to exact search. Raises: ShapeError."""
        vectors = _checked(vectors)
        if not 0 <= built <= len(vectors):
            raise ShapeError(f"built is {built}; there are {len(vectors)} vectors.")
        return self._attach(self._made(vectors[:built]), vectors, built)

    def build_in_background(self: Self, vectors: np.ndarray) -> Future[Self]:
        """As `build` in a thread of its own; searches see all vectors at once, and are exact until the index is whole.

        What was built before, of vectors that these begin with, is used meanwhile. The future is done with the index.
        """
        vectors, before = _checked(vectors), self._state
        known = before.index is not None and before.built <= len(vectors)
        known = known and np.array_equal(before.vectors[: before.built], vectors[: before.built])
        self._attach(before.index if known else None, vectors, before.built if known else 0, before.mapped)
        future: Future[Self] = Future()

        def work() -> None:
            try:
                future.set_result(self.build(vectors))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the built part as it would be saved; 0 for one that was loaded and is mapped."""
        state = self._state
        if state.index is None or state.mapped is not None:
            return 0
        return int(load_faiss().serialize_index(state.index).nbytes)

    def save(self, path: str | Path, *, source: Sequence[str]) -> None:
        """Write the built part with a checksum, keyed by the checksums `source` of the segments it was built from."""
        faiss = load_faiss()
        path = Path(path)
        state = self._state
        if state.index is None:
            raise InputError("there is no built part to save; build the index, or wait until it is whole.")
        body = faiss.serialize_index(state.index).tobytes()
        head = {"format": _FORMAT, "part": type(self).__name__, "built": state.built, "source": list(source)}
        head |= {
            "dimension": state.vectors.shape[1],
            "code": repr(self.code),
            "digest": hashlib.blake2b(body, digest_size=16).hexdigest(),
        }
        line = json.dumps(head, sort_keys=True).encode() + b"\n"
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as file:
            file.write(hashlib.blake2b(line, digest_size=16).hexdigest().encode() + b"\n" + line + body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self: Self, path: str | Path, vectors: np.ndarray, *, source: Sequence[str]) -> Self:
        """Read what `save` wrote for vectors (n, d) whose first rows are the built part; it is compared with its
        checksum and stays memory-mapped.

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
        made = (head["format"], head["part"], head.get("code", "None"), head["source"])
        if made != (_FORMAT, type(self).__name__, repr(self.code), list(source)):
            raise CorruptionError(f"'{path}' was built from other segments or by another part; build it again.")
        body = mapped[second + 1 :]
        if hashlib.blake2b(body.data, digest_size=16).hexdigest() != head["digest"]:
            raise CorruptionError(f"'{path}' differs from its checksum; build it again.")
        if head["dimension"] != vectors.shape[1] or head["built"] > len(vectors):
            raise CorruptionError(f"'{path}' does not fit {len(vectors)} vectors of dimension {vectors.shape[1]}.")
        index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(body), len(body)))
        return self._attach(index, vectors, head["built"], mapped)

    def __len__(self) -> int:
        return len(self._state.vectors)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1."""
        index, vectors, built, tail, _ = self._state
        queries = check_queries(queries, vectors.shape[1], k)
        allowed = check_allowed(allowed, len(vectors))
        faiss = load_faiss()
        wanted = min(self.over_fetch * k, built)
        found = np.full((len(queries), max(wanted, 1)), -1, np.int64)
        if wanted and len(queries):
            selector = None
            if allowed is not None:
                bitmap = np.packbits(allowed[:built], bitorder="little")
                selector = faiss.IDSelectorBitmap(built, faiss.swig_ptr(bitmap))
            _, found = index.search(queries, wanted, params=self._parameters(selector, wanted))
        tail_rows = np.full((len(queries), k), -1, np.int64)
        if tail is not None:
            _, tail_rows = tail.search(queries, k, None if allowed is None else allowed[built:])
            tail_rows = np.where(tail_rows >= 0, tail_rows + built, -1)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        score, candidates = exact_scorer(), 0
        for i, query in enumerate(queries):
            chosen = np.concatenate([found[i], tail_rows[i]])
            chosen = np.sort(chosen[chosen >= 0])
            exact = np.empty(len(chosen), np.float32)
            score(vectors, chosen, query, exact)
            scores[i], rows[i] = top_k(exact, chosen, k)
            candidates += len(chosen)
        behind = len(vectors) - built
        self.last_plan = {"stage": type(self).__name__, "built": built, "tail": behind, "candidates": candidates}
        return scores, rows

    def _attach(self: Self, index: Any, vectors: np.ndarray, built: int, mapped: np.ndarray | None = None) -> Self:
        tail = FlatIndex().build(vectors[built:]) if built < len(vectors) else None
        self._state = _State(index, vectors, built, tail, mapped)
        return self

    def _made(self, vectors: np.ndarray) -> Any:
        raise AttributeError(f"{type(self).__name__} does not say how it is built.")

    def _parameters(self, selector: Any, wanted: int) -> Any:
        raise AttributeError(f"{type(self).__name__} does not say how it is searched.")


def scalar_type(code: ScalarQuantizer) -> int:
    """faiss' name of a scalar code."""
    faiss = load_faiss()
    return int(getattr(faiss.ScalarQuantizer, f"QT_{code.bits}bit" + ("" if code.per_dimension else "_uniform")))


def parts_of(code: ProductQuantizer, dimension: int) -> int:
    """Parts of a product code of vectors of that dimension. Raises: InputError."""
    parts = max(1, dimension // 8) if code.subvectors is None else code.subvectors
    if dimension % parts:
        raise InputError(f"{parts} subvectors do not divide {dimension} coordinates; choose a divisor.")
    return parts


def check_enough(code: CodeEstimator | None, count: int) -> None:
    """Raises: InputError where so few vectors cannot train a product code."""
    if isinstance(code, ProductQuantizer) and 0 < count < 2**code.bits:
        raise InputError(f"{count} vectors are too few for product codes of {code.bits} bits; give {2**code.bits}.")


def _checked(vectors: np.ndarray) -> np.ndarray:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise ShapeError(f"vectors are {vectors.dtype} of shape {vectors.shape}; give C-contiguous float32 (n, d).")
    for start in range(0, len(vectors), _CHECKED_ROWS):
        bad = ~np.isfinite(vectors[start : start + _CHECKED_ROWS]).all(axis=1)
        if bad.any():
            raise ShapeError(f"vector {start + int(np.flatnonzero(bad)[0])} holds NaN or infinity; leave it out.")
    return vectors

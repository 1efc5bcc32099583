"""Several vectors for each item: exact MaxSim, or candidates by one-vector encodings and exact scores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from isometry.compression import FixedDimensionalEncoding
from isometry.compression.fixed_dimensional import check_tokens
from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.search.indexes._inputs import check_allowed
from isometry.search.indexes.encodings import EncodingScan
from isometry.search.kernels.exact import top_k
from isometry.search.kernels.maxsim import carve
from isometry.types import VectorSets

_TOKENS = 16384
_INT8_BYTES = 1 << 30


class SetPart(Protocol):
    """Consecutive items of an index, possibly on disk: a `Segment` of a multi-vector collection, or `HeldSets`."""

    vectors: np.ndarray
    offsets: Any

    def sets(self, chosen: np.ndarray) -> VectorSets: ...


class HeldSets:
    """Sets in memory as a part of an index."""

    def __init__(self, sets: VectorSets) -> None:
        self._sets = sets
        self.vectors, self.offsets = sets.values, sets.offsets

    def sets(self, chosen: np.ndarray) -> VectorSets:
        """Those of chosen items `(m,)`."""
        return self._sets if len(chosen) == self._sets.items else self._sets.take(chosen)


class MultiVectorIndex:
    """Top-k items by the sum over query vectors of the best inner product with the item's vectors.

    A score is what `kernels.sets.exact_maxsim` defines, equal scores are ordered by lower row. Without an encoding
    every allowed item is looked at: an int8 copy of the vectors in memory (d + 12 bytes each) bounds every score, and
    items whose upper bound reaches the k-th largest lower bound are scored from float32, so the answer is float32 brute
    force. With an encoding (paper 32) an inner product search over the items' fixed dimensional encodings gives
    `shortlist` candidates, which are scored exactly.

    Args:
        encoding: fitted FixedDimensionalEncoding, or None for exact search.
        shortlist: candidates scored exactly, at least k.
        carving: cosine above which query vectors are merged before candidates are scored (0.7 in the paper), which
            makes scores approximate; None keeps all, and keeps scores exact.
        candidates: an index over encodings; by default `EncodingScan()`, which keeps int8 codes of them only.
        first_stage: "int8", "float32" (no copy), or "auto": int8 up to a copy of 1 GiB. A shortlist goes through it too,
            from the second search on, so that one search alone does not read everything.

    Attributes:
        last_plan: what the latest search did.
    """

    def __init__(
        self,
        encoding: FixedDimensionalEncoding | None = None,
        *,
        shortlist: int = 200,
        carving: float | None = None,
        candidates: Any = None,
        first_stage: str = "auto",
    ) -> None:
        if shortlist < 1:
            raise InputError(f"shortlist is {shortlist}; give at least 1.")
        if first_stage not in ("auto", "int8", "float32"):
            raise InputError(f"first_stage is {first_stage!r}; choose 'auto', 'int8' or 'float32'.")
        if find_spec("numba") is None:
            raise MissingExtraError("Search over several vectors an item", "search")
        self.encoding = encoding
        self.shortlist = shortlist
        self.carving = carving
        self.candidates = candidates if candidates is not None else EncodingScan()
        self.first_stage = first_stage
        self.last_plan: dict[str, Any] = {}
        self._parts: list[SetPart] = []
        self._starts = np.zeros(1, np.int64)
        self._dimension = 0
        self._codes: list[tuple[np.ndarray, ...]] | None = None
        self._searches = 0

    def build(self, values: np.ndarray, offsets: np.ndarray) -> MultiVectorIndex:
        """Take vectors (sum t_i, d) float32 with offsets (n + 1). Raises: ShapeError."""
        if values.ndim != 2:
            raise ShapeError(f"token vectors have shape {values.shape}; give (tokens, dimension).")
        sets = VectorSets(*check_tokens(values, offsets, values.shape[1]))
        if self.encoding is not None:
            self.candidates.build(self.encoding.encode_documents(*sets))
        return self.attach([HeldSets(sets)], values.shape[1])

    def attach(self, parts: Sequence[SetPart], dimension: int) -> MultiVectorIndex:
        """Take parts as consecutive items; with an encoding, `candidates` holds their encodings already."""
        self._parts, self._dimension, self._codes = list(parts), dimension, None
        self._starts = np.concatenate([[0], np.cumsum([len(part.offsets) - 1 for part in parts])]).astype(np.int64)
        return self

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the encodings with their projector and tables, and of the int8 copy (the vectors themselves may be
        mapped and are not counted)."""
        held = 0
        if self.encoding is not None:
            code = getattr(self.candidates, "code", None)
            shared = self.encoding.shared_bytes + (0 if code is None else code.shared_bytes)
            held = int(getattr(self.candidates, "bytes_in_memory", 0)) + shared
        return held + sum(array.nbytes for part in self._codes or () for array in part)

    def search(
        self, values: np.ndarray, offsets: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries as (vectors, offsets (q + 1)) to (scores (q, k) float32, rows (q, k) int64), best first.

        `allowed` (n,) bool limits the items. Padded with -inf and -1. Raises: ShapeError, InputError.
        """
        scores, rows, self.last_plan = self.search_with_plan(values, offsets, k, allowed)
        return scores, rows

    def search_with_plan(
        self, values: np.ndarray, offsets: np.ndarray, k: int, allowed: np.ndarray | None = None, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """As `search`, with what ran; several threads may call it at once. `exact` leaves the encodings aside."""
        if k < 1:
            raise InputError(f"k is {k!r}; ask for at least 1 result.")
        queries = VectorSets(*check_tokens(values, offsets, self._dimension))
        allowed = check_allowed(allowed, len(self))
        everything = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        self._searches += 1
        wanted = max(k, self.shortlist)
        narrowed = self.encoding is not None and not exact and len(everything) > wanted
        found = None
        if narrowed:
            assert self.encoding is not None
            _, found = self.candidates.search(self.encoding.encode_queries(*queries), wanted, allowed)
        count = queries.items
        scores, rows = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
        plan: dict[str, Any] = {
            "stage": "encodings" if narrowed else "all items",
            "matches": len(everything),
            "candidates": 0,
            "scored": 0,
        }
        for i in range(count):
            query = queries.values[queries.offsets[i] : queries.offsets[i + 1]]
            if len(query) == 0 or len(everything) == 0:
                continue
            if found is not None:
                chosen = np.sort(found[i][found[i] >= 0])
                query = query if self.carving is None else carve(query, self.carving)
                if self._small and (self._codes is not None or self._searches > 1):
                    chosen = self._reaching(query, k, chosen)
            else:
                chosen = self._reaching(query, k, everything)
            best = self._exact(query, chosen)
            full = best > -np.inf
            scores[i], rows[i] = top_k(best[full], chosen[full], k)
            plan["candidates"] += len(everything) if found is None else int((found[i] >= 0).sum())
            plan["scored"] += len(chosen)
        return scores, rows, plan

    def _exact(self, query: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Scores of ascending items `(m,)` by the defining routine, a bounded number of vectors at a time."""
        from isometry.search.kernels.sets import exact_maxsim, turned

        out, asked = np.empty(len(chosen), np.float32), turned(query)
        for part, ids, place in self._pieces(chosen):
            values, offsets = part.sets(ids)
            exact_maxsim(values, offsets, asked, len(query), out[place : place + len(ids)])
        return out

    def _pieces(self, chosen: np.ndarray) -> Any:
        """(part, items in it, place of the first in `chosen`) of at most _TOKENS vectors, or of one item."""
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            low, high = np.searchsorted(chosen, (start, stop))
            ids = chosen[low:high] - start
            sizes = part.offsets[ids + 1] - part.offsets[ids]
            ends = np.concatenate([[0], np.cumsum(sizes)])
            first = 0
            while first < len(ids):
                last = max(first + 1, int(np.searchsorted(ends, ends[first] + _TOKENS, side="right")) - 1)
                yield part, ids[first:last], low + first
                first = last

    # ---- first stage of exact search -------------------------------------------------------------------------------

    def _reaching(self, query: np.ndarray, k: int, everything: np.ndarray) -> np.ndarray:
        """The allowed items whose score may be among the k largest."""
        if len(everything) <= 4 * k:
            return everything
        bounds = self._int8_bounds if self._small else self._float32_bounds
        lower, upper = bounds(query, everything)
        floor = np.partition(lower, -k)[-k]
        return everything[upper >= floor]

    @property
    def _small(self) -> bool:
        """Whether there is to be an int8 copy."""
        if self.first_stage == "float32" or find_spec("torch") is None:
            return False
        vectors = sum(int(part.offsets[-1]) for part in self._parts)
        return self.first_stage == "int8" or vectors * (self._dimension + 12) <= _INT8_BYTES

    def _float32_bounds(self, query: np.ndarray, everything: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocked float32 products, and the most that their rounding can change a score."""
        lower, upper = (np.full(len(everything), -np.inf, np.float32) for _ in range(2))
        norms = np.linalg.norm(query.astype(np.float64), axis=1).sum()
        for part, ids, place in self._pieces(everything):
            values, offsets = part.sets(ids)
            some = np.flatnonzero(np.diff(offsets) > 0)
            if not len(some):
                continue
            sums = np.maximum.reduceat(values @ query.T, offsets[:-1][some], axis=0).sum(axis=1, dtype=np.float64)
            longest = np.sqrt(np.einsum("td,td->t", values, values).max()) * 1.001
            spread = norms * longest * (4 * (self._dimension + 16) + len(query)) * 2.0**-24 + 1e-30
            lower[place + some], upper[place + some] = sums - spread, sums + spread
        return lower, upper

    def _int8_bounds(self, query: np.ndarray, everything: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocked int8 products with the copy in memory."""
        import torch

        from isometry.search.kernels.int8 import quantise
        from isometry.search.kernels.sets import bound_maxsim

        if self._codes is None:
            self._codes = [_coded(part) for part in self._parts]
        wide = -(-len(query) // 8) * 8  # _int_mm takes multiples of 8
        asked = np.zeros((wide, self._dimension), np.int8)
        scale, error, length = (np.zeros(wide, np.float32) for _ in range(3))
        quantise(query, asked[: len(query)], scale[: len(query)], error[: len(query)], length[: len(query)])
        size = len(query)
        norm = (np.linalg.norm(query.astype(np.float64), axis=1) * (1 + 1e-6) + 1e-37).astype(np.float32)
        side = torch.from_numpy(asked).T
        lower, upper = np.empty(len(everything), np.float32), np.empty(len(everything), np.float32)
        whole = len(everything) == len(self)
        held = dict(zip(map(id, self._parts), self._codes, strict=True))
        for part, ids, place in self._pieces(everything):
            codes, step, bound, long = held[id(part)]
            if whole:
                at: Any = slice(int(part.offsets[ids[0]]), int(part.offsets[ids[-1] + 1]))
                offsets = part.offsets[ids[0] : ids[-1] + 2] - part.offsets[ids[0]]
            else:
                picked = VectorSets(np.arange(len(codes)), part.offsets).take(ids)
                at, offsets = picked
            block = torch.from_numpy(codes[at])
            if len(block) <= 16:  # _int_mm takes more than 16 rows
                block = torch.nn.functional.pad(block, (0, 0, 0, 17 - len(block)))
            # _int_mm reads a transposed column as something else
            table = torch._int_mm(block, side) if self._dimension > 1 else block.int() * side.int()
            span = slice(place, place + len(ids))
            bound_maxsim(
                table.numpy()[:, :size], offsets, step[at], bound[at], long[at], scale[:size], norm, error[:size],
                lower[span], upper[span],
            )  # fmt: skip
        return lower, upper


def _coded(part: SetPart) -> tuple[np.ndarray, ...]:
    """A part's vectors as int8 with scale, bound and length, read block by block (and so checked)."""
    from isometry.search.kernels.int8 import quantise

    total = int(part.offsets[-1])
    codes = np.empty((total, part.vectors.shape[1]), np.int8)
    scale, bound, length = (np.empty(total, np.float32) for _ in range(3))
    for first, last in VectorSets(part.vectors, part.offsets).spans(_TOKENS):
        values, _ = part.sets(np.arange(first, last))
        at = slice(int(part.offsets[first]), int(part.offsets[last]))
        quantise(np.ascontiguousarray(values), codes[at], scale[at], bound[at], length[at])
    return codes, scale, bound, length

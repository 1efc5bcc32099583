"""Exact search: the result is always that of float32 brute force, whatever ran to find it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from isometry.errors import InputError, ShapeError
from isometry.search.indexes._inputs import check_allowed, check_queries
from isometry.search.kernels.exact import exact_scorer, top_k

_BLOCK = 4096
_FEW_ROWS = 512
_BATCH = 8
_ONE_CALL = 16_384  # above it the work outweighs the calls, and threads share it
_EVERYONE = np.ones(1, np.bool_)


@dataclass(frozen=True)
class _Part:
    """One array of vectors with its first-stage copy. `start` is its first row in the index."""

    start: int
    values: np.ndarray
    codes: np.ndarray | None
    scale: np.ndarray
    bound: np.ndarray
    length: np.ndarray

    @cached_property
    def longest(self) -> float:
        """At least the length of every row's copy."""
        return float(self.length.max(initial=0))

    @property
    def stop(self) -> int:
        return self.start + len(self.values)


class FlatIndex:
    """Exact top-k by inner product over float32 vectors that may be memory-mapped.

    A score is what `kernels.exact` defines (float32, one fixed order of additions), equal scores are ordered by lower
    row. An int8 copy in memory (d + 12 bytes a row) is scanned first, every row whose upper bound reaches the k-th
    largest lower bound is scored again from the float32 vectors, and so the answer does not depend on the first stage,
    on the batch size or on `threads`. One query reads the copy at memory speed (numba); several at once go through an
    int8 matrix product (torch). Where numba is missing, or with `first_stage="float32"`, blocked float32 products take
    the place of the copy, with the same result.

    Args:
        first_stage: "auto", "int8" or "float32".
        threads: most threads one search may use; None for as many as the process may run on.

    Attributes:
        last_plan: what the latest search did: stage, rows scanned, candidates scored again, bytes touched, threads.
    """

    def __init__(self, *, first_stage: str = "auto", threads: int | None = None) -> None:
        if first_stage not in ("auto", "int8", "float32"):
            raise InputError(f"first_stage is {first_stage!r}; choose 'auto', 'int8' or 'float32'.")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; give at least 1, or None.")
        self.first_stage = first_stage
        self.threads = threads
        self.last_plan: dict[str, Any] = {}
        self._parts: tuple[_Part, ...] = ()
        self._dimension = 0

    def build(self, vectors: np.ndarray | Sequence[np.ndarray]) -> FlatIndex:
        """Take float32 vectors (n, d), or a list of such arrays as consecutive rows; they are kept, not copied.

        Raises: ShapeError for another dtype or shape, differing dimensions, NaN or infinity.
        """
        arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
        self._parts, self._dimension = (), 0
        parts: list[_Part] = []
        for array in arrays:
            self._dimension = self._dimension or (array.shape[1] if array.ndim == 2 else 0)
            parts.append(self._part(array, parts[-1].stop if parts else 0))
        self._parts = tuple(parts)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` takes: the int8 copy with its bounds; empty where there is none."""
        if not self._parts or self._parts[0].codes is None:
            return {}
        names = ("codes", "scale", "bound", "length")
        return {name: np.concatenate([getattr(part, name) for part in self._parts]) for name in names}

    def restore(self, vectors: np.ndarray | Sequence[np.ndarray], arrays: Mapping[str, np.ndarray]) -> FlatIndex:
        """As `build` on the same vectors, with the copy it made then, which may be memory-mapped."""
        parts, start = [], 0
        for values in [vectors] if isinstance(vectors, np.ndarray) else list(vectors):
            stop = start + len(values)
            codes, scale, bound, length = (arrays[name][start:stop] for name in ("codes", "scale", "bound", "length"))
            parts.append(_Part(start, values, codes, scale, bound, length))
            self._dimension, start = values.shape[1], stop
        self._parts = tuple(parts)
        return self

    def extended(self, vectors: np.ndarray) -> FlatIndex:
        """A new index with one more array of rows at the end, sharing everything with this one, which stays."""
        longer = FlatIndex(first_stage=self.first_stage, threads=self.threads)
        longer._dimension = self._dimension or (vectors.shape[1] if vectors.ndim == 2 else 0)
        longer._parts = (*self._parts, longer._part(vectors, len(self)))
        return longer

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def parts(self) -> tuple[_Part, ...]:
        """The arrays of vectors, in the order of their rows."""
        return self._parts

    def __len__(self) -> int:
        return self._parts[-1].stop if self._parts else 0

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the first-stage copy and its bounds (the vectors themselves may be mapped and are not counted)."""
        held = 0
        for part in self._parts:
            held += sum(
                array.nbytes for array in (part.codes, part.scale, part.bound, part.length) if array is not None
            )
        return held

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Queries (q, d) to (scores (q, k) float32, rows (q, k) int64), best first, padded with -inf and -1.

        `allowed` (n,) bool limits the rows. Raises: ShapeError, InputError.
        """
        scores, rows, self.last_plan = self.search_with_plan(queries, k, allowed)
        return scores, rows

    def search_with_plan(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, *, rows_allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """As `search`, with what ran; several threads may call it at once.

        `rows_allowed` (m,) ascending spares the look for the rows where `allowed` is true.
        """
        queries = check_queries(queries, self._dimension, k) if self._parts else np.asarray(queries, np.float32)
        n = len(self)
        allowed = check_allowed(allowed, n)
        known = rows_allowed if allowed is not None else None
        matches = n if allowed is None else int(np.count_nonzero(allowed)) if known is None else len(known)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        plan: dict[str, Any] = {
            "stage": "none",
            "matches": matches,
            "scanned": 0,
            "candidates": 0,
            "bytes": 0,
            "threads": 1,
        }
        if matches == 0 or len(queries) == 0:
            return scores, rows, plan

        chosen = None
        if allowed is not None and 4 * matches < 3 * n:
            chosen = np.flatnonzero(allowed) if known is None else known
        direct = matches <= _FEW_ROWS or 2 * k >= matches
        if chosen is not None and len(queries) == 1 and self.one_call(matches):
            scores[0], rows[0], again = self.best_of(queries[0], k, chosen)
            plan.update(stage="int8 scan", scanned=matches, candidates=again)
            plan["bytes"] = matches * (self._dimension + 8) + again * self._dimension * 4
            return scores, rows, plan
        if direct:
            everything = chosen if chosen is not None else np.arange(n) if allowed is None else np.flatnonzero(allowed)
            candidates = [everything] * len(queries)
            plan["stage"] = "float32 rows"
        elif self._parts[0].codes is None:
            candidates = self._float32_stage(queries, k, allowed, chosen)
            plan.update(stage="float32 blocks", scanned=matches, bytes=matches * self._dimension * 4)
        else:
            # torch's int8 product reads a transposed column as something else
            batched = len(queries) >= _BATCH and self._dimension > 1 and find_spec("torch") is not None
            stage = self._int8_batch if batched else self._int8_single
            candidates, threads = stage(queries, k, allowed, chosen)
            passes = 1 if batched else len(queries)
            read = matches if chosen is not None else n
            plan.update(stage="int8 product" if batched else "int8 scan", scanned=read, threads=threads)
            plan["bytes"] = passes * read * (self._dimension + 8)
        for query in range(len(queries)):
            found = candidates[query]
            scores[query], rows[query] = top_k(self.scores_of(queries[query], found), found, k)
            plan["candidates"] += len(found)
        plan["bytes"] += plan["candidates"] * self._dimension * 4
        return scores, rows, plan

    def one_call(self, matches: int) -> bool:
        """Whether `best_of` answers for so many rows."""
        return matches <= _ONE_CALL and len(self._parts) == 1 and self._parts[0].codes is not None

    def best_of(self, query: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The k best of ascending `rows` (m,) for one query (d,): scores, rows, how many were scored again.

        Raises: ShapeError for NaN or infinity.
        """
        from isometry.search.kernels.matches import best_of_rows

        (part,) = self._parts
        scores, found = np.empty(k, np.float32), np.empty(k, np.int64)
        again = best_of_rows(part.values, part.codes, part.scale, part.bound, rows, query, scores, found)
        if again == 0 and len(rows):
            check_queries(query[None], self._dimension, k)
        return scores, found, again

    def _part(self, values: np.ndarray, start: int) -> _Part:
        if values.ndim != 2 or values.dtype != np.float32 or not values.flags.c_contiguous:
            raise ShapeError(f"vectors are {values.dtype} of shape {values.shape}; give C-contiguous float32 (n, d).")
        if values.shape[1] != self._dimension or self._dimension == 0:
            raise ShapeError(f"vectors have dimension {values.shape[1]}; this index holds dimension {self._dimension}.")
        n = len(values)
        scale, bound, length = (np.empty(n, np.float32) for _ in range(3))
        if self.first_stage == "float32" or (self.first_stage == "auto" and find_spec("numba") is None):
            for at in range(0, n, _BLOCK):
                norms = np.linalg.norm(values[at : at + _BLOCK].astype(np.float64), axis=1)
                if not np.isfinite(norms).all():
                    bad = start + at + int(np.flatnonzero(~np.isfinite(norms))[0])
                    raise ShapeError(f"vector {bad} holds NaN or infinity; leave it out or encode it again.")
                bound[at : at + _BLOCK] = norms * (4 * (self._dimension + 16) * 2.0**-24) * (1 + 1e-6) + 1e-37
            return _Part(start, values, None, scale[:0], bound, length[:0])
        from isometry.search.kernels.int8 import quantise

        codes = np.empty(values.shape, np.int8)
        bad = quantise(values, codes, scale, bound, length)
        if bad >= 0:
            raise ShapeError(f"vector {start + bad} holds NaN or infinity; leave it out or encode it again.")
        return _Part(start, values, codes, scale, bound, length)

    def scores_of(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Scores of ascending `rows` (m,) by the defining routine."""
        score = exact_scorer()
        out = np.empty(len(rows), np.float32)
        for part in self._parts:
            low, high = np.searchsorted(rows, (part.start, part.stop))
            if high > low:
                score(part.values, rows[low:high] - part.start, query, out[low:high])
        return out

    def _thread_count(self, rows: int) -> int:
        limit = self.threads if self.threads is not None else len(os.sched_getaffinity(0))
        return max(1, min(limit, rows // 50_000))

    def _pieces(self, workers: int) -> list[list[tuple[_Part, int, int]]]:
        """Rows split evenly into `workers` lists of (part, first, last) in the part's own numbering."""
        cuts = [len(self) * i // workers for i in range(workers + 1)]
        lists = []
        for low, high in pairwise(cuts):
            pieces = [(p, max(low, p.start) - p.start, min(high, p.stop) - p.start) for p in self._parts]
            lists.append([piece for piece in pieces if piece[2] > piece[1]])
        return lists

    def _int8_single(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, chosen: np.ndarray | None
    ) -> tuple[list[np.ndarray], int]:
        """Candidates by one pass over the codes for each query."""
        from isometry.search.kernels import int8

        workers = self._thread_count(len(self) if chosen is None else len(chosen))

        def scan(query: np.ndarray, norm: np.float32, pieces: list[tuple[_Part, int, int]]) -> tuple[np.ndarray, list]:
            heap, whole = np.full(k, -np.inf, np.float32), np.empty(len(query), np.int16)
            step, error = int8.whole_query(query, whole)
            scanned = []
            for part, first, last in pieces:
                mask, masked, slack = _EVERYONE, False, np.float32(0)
                if chosen is not None:
                    low, high = np.searchsorted(chosen, (part.start + first, part.start + last))
                    ids = chosen[low:high]
                    inside = ids - part.start
                    scores = np.empty(len(ids), np.float32)
                    int8.approximate_rows(part.codes, query, inside, scores)
                    scale, bound = part.scale[inside], part.bound[inside]
                else:
                    ids = np.arange(part.start + first, part.start + last)
                    scores = np.empty(last - first, np.float32)
                    if step > 0:
                        int8.approximate_whole(part.codes, whole, step, first, last, scores)
                        slack = np.float32(error * part.longest * 1.000001)
                    else:
                        int8.approximate(part.codes, query, first, last, scores)
                    scale, bound = part.scale[first:last], part.bound[first:last]
                    if allowed is not None:
                        mask, masked = allowed[part.start + first : part.start + last], True
                int8.raise_floor(scores, scale, bound, mask, masked, norm, slack, heap)
                scanned.append((ids, scores, bound, mask, masked, slack))
            return heap, scanned

        candidates = []
        for query in queries:
            norm = _norm_above(query)
            work = self._pieces(workers)
            if workers == 1:
                results = [scan(query, norm, work[0])]
            else:
                with ThreadPoolExecutor(workers) as pool:
                    results = list(pool.map(lambda pieces, q=query, m=norm: scan(q, m, pieces), work))
            floor = np.partition(np.concatenate([heap for heap, _ in results]), -k)[-k]
            found = []
            for _, scanned in results:
                for ids, scores, bound, mask, masked, slack in scanned:
                    kept = np.empty(len(scores), np.int64)
                    count = int8.collect(scores, bound, mask, masked, norm, slack, floor, kept)
                    found.append(ids[kept[:count]])
            candidates.append(np.concatenate(found))
        return candidates, workers

    def _int8_batch(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, chosen: np.ndarray | None
    ) -> tuple[list[np.ndarray], int]:
        """Candidates by blocked int8 matrix products with all queries at once."""
        import torch

        from isometry.search.kernels import int8

        q = len(queries)
        codes = np.empty(queries.shape, np.int8)
        scale, _, length = (np.empty(q, np.float32) for _ in range(3))
        int8.quantise(queries, codes, scale, np.empty(q, np.float32), length)
        gap = np.linalg.norm(queries.astype(np.float64) - scale[:, None].astype(np.float64) * codes, axis=1)
        error = (gap * (1 + 1e-6) + 1e-37).astype(np.float32)
        norm = np.array([_norm_above(query) for query in queries], np.float32)
        right = torch.from_numpy(codes).t()
        heaps = np.full((q, k), -np.inf, np.float32)
        room = 4 * k + 256
        rows, uppers, counts = np.empty((q, room), np.int64), np.empty((q, room), np.float32), np.zeros(q, np.int64)
        with _openmp_threads(self.threads):
            for part, picked, ids in self._blocks(chosen):
                products = torch._int_mm(torch.from_numpy(part.codes[picked]), right).numpy()  # type: ignore[index]
                masked = chosen is None and allowed is not None
                mask = allowed[ids] if masked and allowed is not None else _EVERYONE
                row_side = (part.scale[picked], part.bound[picked], part.length[picked], mask, masked)
                done = 0
                while True:
                    found = (heaps, rows, uppers, counts)
                    done = int8.filter_block(products, ids, done, *row_side, scale, norm, error, *found)
                    if done == len(ids):
                        break
                    rows = np.concatenate([rows, np.empty_like(rows)], axis=1)
                    uppers = np.concatenate([uppers, np.empty_like(uppers)], axis=1)
            threads = torch.get_num_threads()
        candidates = []
        for i in range(q):
            kept = uppers[i, : counts[i]] >= heaps[i].min()
            candidates.append(np.sort(rows[i, : counts[i]][kept]))
        return candidates, threads

    def _float32_stage(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None, chosen: np.ndarray | None
    ) -> list[np.ndarray]:
        """Candidates by blocked float32 products in numpy, whose rounding is bounded as the codes' is."""
        norms = np.array([_norm_above(query) for query in queries], np.float32)
        floors = np.full((len(queries), k), -np.inf, np.float32)
        kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in queries]
        for part, picked, ids in self._blocks(chosen):
            products = part.values[picked] @ queries.T
            spread = part.bound[picked][:, None] * norms
            if chosen is None and allowed is not None:
                products[~allowed[ids]] = -np.inf
            lower = np.concatenate([floors, (products - spread).T], axis=1)
            floors = np.partition(lower, -k, axis=1)[:, -k:]
            upper = (products + spread).T
            reached = (upper >= floors[:, :1]) & (upper > -np.inf)
            for query, row in zip(kept, range(len(queries)), strict=True):
                query.append((ids[reached[row]], upper[row, reached[row]]))
        candidates = []
        for query, floor in zip(kept, floors[:, 0], strict=True):
            ids, upper = (np.concatenate(column) for column in zip(*query, strict=True))
            candidates.append(ids[upper >= floor])
        return candidates

    def _blocks(self, chosen: np.ndarray | None) -> Iterator[tuple[_Part, slice | np.ndarray, np.ndarray]]:
        """Blocks of rows as (part, selection in the part, row ids): all rows, or the ascending `chosen` ones."""
        for part in self._parts:
            if chosen is None:
                for at in range(part.start, part.stop, _BLOCK):
                    end = min(at + _BLOCK, part.stop)
                    yield part, slice(at - part.start, end - part.start), np.arange(at, end)
            else:
                low, high = np.searchsorted(chosen, (part.start, part.stop))
                for at in range(low, high, _BLOCK):
                    ids = chosen[at : min(at + _BLOCK, high)]
                    yield part, ids - part.start, ids


def _norm_above(query: np.ndarray) -> np.float32:
    """|query| rounded up."""
    return np.float32(np.linalg.norm(query.astype(np.float64)) * (1 + 1e-6) + 1e-37)


@contextmanager
def _openmp_threads(limit: int | None) -> Iterator[None]:
    """Within it, torch's products started from this thread use at most `limit` threads."""
    if limit is None:
        yield
        return
    with _controller().limit(limits=limit, user_api="openmp"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()

"""From a collection and a budget to measured candidates, the best of them, and the one to use."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.search.building import FOLDER
from isometry.search.collection import Collection, Snapshot, document_text
from isometry.search.sets_view import SetsView
from isometry.search.store.store import SEGMENTS, read_segments, read_values
from isometry.search.tuning.budget import Budget
from isometry.search.tuning.candidates import Candidate, candidates
from isometry.search.tuning.halving import LEAST, front_of, ranked, rungs, survivors
from isometry.search.tuning.measuring import Bench, Measured, encoding_times, exact_best
from isometry.search.tuning.notebook import Notebook
from isometry.search.upkeep import file_size
from isometry.types import Progress

_FORMAT = "isometry-tune@1"
_CHUNK = 512
LEAST_RECORDS = 100


@dataclass(frozen=True)
class TuneReport:
    """What `tune` found.

    Attributes:
        asked: how the queries were had, in words.
        records: of the collection.
        rungs: (records, queries) of each step.
        measured: every candidate as it was measured last.
        final: those that were measured on all records.
        front: of the final ones, those that no other beats in recall, p95, memory and disk together.
        recommended: what fits the budget, or None.
    """

    collection: str
    asked: str
    k: int
    seed: int
    records: int
    rungs: list[tuple[int, int]]
    measured: list[Measured]
    final: list[Measured]
    front: list[Measured]
    budget: Budget
    recommended: Measured | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What `isometry tune --json` prints."""
        best = None if self.recommended is None else self.recommended.to_dict()
        return {
            "collection": self.collection, "queries": self.asked, "k": self.k, "seed": self.seed,
            "records": self.records, "truth": f"the exact float32 {self.k} best by the collection's own vectors",
            "steps": [{"records": rows, "queries": count} for rows, count in self.rungs],
            "budget": self.budget.to_dict(), "recommended": best,
            "nearest": None if best else self.budget.nearest(self.final).to_dict(),
            "front": [one.to_dict() for one in self.front],
            "measured": [{**one.to_dict(), "final": one in self.final} for one in self.measured],
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


def tune(
    collection: Collection,
    *,
    budget: Budget | None = None,
    queries: Sequence[str] | np.ndarray | None = None,
    k: int = 10,
    exits: bool = True,
    most_rows: int = 200_000,
    exit_rows: int = 5_000,
    count: int = 200,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TuneReport:
    """Measure recall of the exact k best, latency, memory and disk of many candidates by successive halving.

    Memory is bounded by `most_rows` vectors, their codes and one index. Called again, what was measured before (on the
    same records, queries and seed) is taken from `folder`.

    Args:
        queries: texts, or vectors `(q, d)`; None for records that are held out, `count` of them: the first text column
            of each where the collection encodes texts, else its vector.
        exits: also try fewer layers and dimensions of the encoder, where it can be cut; on at most `exit_rows` records,
            since every one has to be encoded by every exit.
        most_rows: records that are measured on, drawn with `seed`.
        folder: None for `cache/tune` in the collection.
    Raises: InputError for too few records, several vectors a record, a k or queries that do not fit; StorageError.
    """
    began = time.perf_counter()
    budget = budget or Budget()
    folder = collection.path / "cache" / "tune" if folder is None else folder
    lab = _Lab(collection, queries, k, exits, most_rows, exit_rows, count, seed, folder)
    steps = rungs(lab.rows, len(lab.asked))
    running = candidates(lab.dimension, lab.layers)
    total, left = 0, len(running)
    for _ in steps:
        total, left = total + left, max(min(left, LEAST), -(-left // 2))
    done = 0
    latest: dict[str, Measured] = {}
    found: list[Measured] = []
    for rows, asked in steps:
        found = []
        for _, group in groupby(sorted(running, key=lambda one: one.built), key=lambda one: one.built):
            chosen = list(group)
            found += lab.measure(chosen, rows, asked)
            done += len(chosen)
            if progress is not None and progress(done, total) is False:
                raise KeyboardInterrupt
        latest |= {one.candidate.key: one for one in found}
        if (rows, asked) != steps[-1]:
            running = [one.candidate for one in survivors(found, budget)]
    lab.close()
    final = ranked(found, budget)
    return TuneReport(
        collection.name, lab.said, k, seed, lab.records, steps, list(latest.values()), final, front_of(final), budget,
        budget.choose(final), time.perf_counter() - began,
    )  # fmt: skip


def apply(collection: Collection, chosen: Candidate, *, progress: Progress | None = None) -> None:
    """Rebuild the collection to a candidate; searches go on with what is there until the new is whole on disk."""
    if not chosen.recodes:
        with collection.read() as snapshot:
            tail = len(snapshot.view.rows) - snapshot.view.sealed_rows  # type: ignore[union-attr]
        if 20 * tail > len(collection):  # an index covers sealed rows only
            collection.compact()
        collection.set_plan(chosen.plan)
        return
    from isometry.encoders import load_encoder

    name = collection.encoder.describe().name
    encoder = load_encoder(name, layers=chosen.layers, dimensions=chosen.dimensions)
    collection.recode(encoder, plan=chosen.plan, progress=progress)


class _Lab:
    """The records and queries of a run, and the notebook of what was measured on them."""

    def __init__(
        self,
        collection: Collection,
        queries: Sequence[str] | np.ndarray | None,
        k: int,
        exits: bool,
        most_rows: int,
        exit_rows: int,
        count: int,
        seed: int,
        folder: Path,
    ) -> None:
        for name, value, least in (("k", k, 1), ("the number of queries", count, 10), ("exit_rows", exit_rows, 100)):
            if value < least:
                raise InputError(f"{name} is {value}; give at least {least}")
        self.k, self._collection, self._exit_rows = k, collection, exit_rows
        with collection.read() as snapshot:
            if isinstance(snapshot.view, SetsView):
                raise InputError(f"{collection.path} holds several vectors a record, which has its own codes")
            live = snapshot.view.rows[snapshot.view.live]
            self.records = len(live)
            if self.records < max(LEAST_RECORDS, 10 * k):
                needed = max(LEAST_RECORDS, 10 * k)
                raise InputError(
                    f"{collection.path} holds {self.records} records; at least {needed} are needed to tune"
                )
            order = live[np.random.default_rng(seed).permutation(self.records)]
            self._texts = collection.encoder_description is not None and any(
                column.role == "text" for column in snapshot.columns
            )
            held_out = order[:0]
            if queries is None:
                held_out = order[: min(count, self.records // 5)]
                order = order[len(held_out) :]
            rows = order[:most_rows]
            self.rows, self.dimension = len(rows), snapshot.view.dimension
            self.vectors = snapshot.view.vectors(rows)
            self._metric = snapshot.meta["details"]["metric"]
            self.asked: Sequence[str] | np.ndarray
            self.asked, self.said = self._queries(snapshot, queries, held_out)
            self._documents = self._read(snapshot, rows[:exit_rows]) if exits and self._texts else []
            root = collection.path
            sizes = [file_size(file) for file in root.rglob("*") if not _counted_apart(file.relative_to(root))]
            self._other_bytes = sum(sizes)
            key = self._key(snapshot, exits, most_rows, exit_rows, seed)
        self.layers: int | None = None
        if self._documents:
            self.layers = getattr(collection.encoder, "layers", None)
        self._notebook = Notebook(folder, key)
        self._truths: dict[tuple[int, int], np.ndarray] = {}
        self._cut: tuple[int | None, Any] = (None, None)
        self._own: tuple[np.ndarray, np.ndarray] | None = None
        self._timed: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}

    def measure(self, chosen: list[Candidate], rows: int, asked: int) -> list[Measured]:
        """Candidates that share what is built, on so many records and queries; from the notebook where they are in it."""
        names = {one: f"{rows} {asked} {one.key}" for one in chosen}
        new = [one for one in chosen if self._notebook.get(names[one]) is None]
        if new:
            bench = self._bench(new[0], rows, asked)
            for one in bench.measure(new):
                self._notebook.put(names[one.candidate], one.to_dict())
        return [Measured.from_dict(self._notebook.get(names[one]) or {}) for one in chosen]

    def close(self) -> None:
        """Let the vectors of exits go, which can be made again."""
        for file in self._notebook.folder.glob("exit-*.npy"):
            file.unlink(missing_ok=True)

    def _bench(self, candidate: Candidate, rows: int, asked: int) -> Bench:
        own, own_ms = self._query_vectors(None)
        own, own_ms = own[:asked], own_ms[:asked]
        vectors, queries, spent = self.vectors[:rows], own, own_ms
        if candidate.layers is not None:
            vectors = self._exit_vectors(candidate.layers, min(rows, len(self._documents)))
            queries, spent = (part[:asked] for part in self._query_vectors(candidate.layers))
        elif candidate.recodes:
            vectors = vectors[: len(self._documents)]
        if candidate.dimensions is not None:
            vectors, queries = (self._shortened(part, candidate.dimensions) for part in (vectors, queries))
        truth = self._truths.get((len(vectors), asked))
        if truth is None:
            truth = exact_best(self.vectors[: len(vectors)], own, self.k)
            self._truths[len(vectors), asked] = truth
        return Bench(vectors, queries, truth, spent, self.records, self._other_bytes)

    def _query_vectors(self, layers: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Queries `(q, d)` by an exit of the encoder, and milliseconds to encode each."""
        if layers not in self._timed:
            if isinstance(self.asked, np.ndarray):
                self._timed[layers] = self.asked, np.zeros(len(self.asked))
            else:
                encoder = self._collection.encoder if layers is None else self._encoder(layers)
                encode: Callable[[list[str]], np.ndarray] = getattr(encoder, "encode_queries", None) or encoder.encode
                vectors, spent = encoding_times(encode, self.asked)
                self._timed[layers] = self._shortened(vectors, vectors.shape[1]), spent
        return self._timed[layers]

    def _exit_vectors(self, layers: int, rows: int) -> np.ndarray:
        """The first records by an exit of the encoder, kept in a file until the end."""
        path = self._notebook.folder / f"exit-{layers}.npy"
        held = np.load(path, allow_pickle=False) if path.is_file() else np.empty((0, self.dimension), np.float32)
        while len(held) < rows:
            some = self._documents[len(held) : min(rows, len(held) + _CHUNK)]
            made = np.asarray(self._encoder(layers).encode(some), np.float32)
            held = np.concatenate([held.reshape(-1, made.shape[1]), made])
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, held)
            temporary.replace(path)
        return self._shortened(held[:rows], held.shape[1])

    def _encoder(self, layers: int) -> Any:
        if self._cut[0] != layers:
            from isometry.encoders import load_encoder

            self._cut = layers, load_encoder(self._collection.encoder.describe().name, layers=layers)
        return self._cut[1]

    def _shortened(self, vectors: np.ndarray, dimensions: int) -> np.ndarray:
        """The first coordinates, at length one where the collection's are."""
        kept = np.ascontiguousarray(vectors[:, :dimensions], np.float32)
        if self._metric == "cosine":
            kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.float32(1e-12))
        return kept

    def _queries(
        self, snapshot: Snapshot, queries: Sequence[str] | np.ndarray | None, held_out: np.ndarray
    ) -> tuple[Sequence[str] | np.ndarray, str]:
        if isinstance(queries, np.ndarray):
            vectors = self._collection._fitted_to(snapshot, queries)
            if len(vectors) < 10:
                raise InputError(f"{len(vectors)} queries were given; give at least 10")
            return vectors, f"{len(vectors)} query vectors that were given"
        if queries is not None:
            texts = [text for text in queries if text.strip()]
            if not self._texts:
                raise InputError(f"{self._collection.path} has no encoder of texts; give query vectors as an .npy file")
            if len(texts) < 10:
                raise InputError(f"{len(texts)} queries were given; give at least 10")
            return texts, f"{len(texts)} queries that were given"
        if self._texts:
            place = next(number for number, column in enumerate(snapshot.columns) if column.role == "text")
            found = {row: str(values[place] or "") for row, _, values in
                     read_values(snapshot.connection, snapshot.columns, held_out.tolist())}  # fmt: skip
            texts = [" ".join(found[row].split()) for row in held_out.tolist()]
            texts = [text for text in texts if text]
            if len(texts) >= 10:
                name = snapshot.columns[place].name
                return texts, f"no queries were given: '{name}' of {len(texts)} held-out records stands for them"
        vectors = snapshot.view.vectors(held_out)  # type: ignore[union-attr]
        return vectors, f"no queries were given: the vectors of {len(vectors)} held-out records stand for them"

    def _read(self, snapshot: Snapshot, rows: np.ndarray) -> list[str]:
        """What the encoder reads of each record, in the order of `rows`."""
        places = [number for number, column in enumerate(snapshot.columns) if column.role == "text"]
        texts: dict[int, str] = {}
        for at in range(0, len(rows), 1000):
            for row, _, values in read_values(snapshot.connection, snapshot.columns, rows[at : at + 1000].tolist()):
                texts[row] = document_text([values[place] for place in places])
        return [texts[row] for row in rows.tolist()]

    def _key(self, snapshot: Snapshot, exits: bool, most_rows: int, exit_rows: int, seed: int) -> str:
        """Over everything that the figures depend on, but for the machine."""
        meta, asked = snapshot.meta, self.asked
        given = hashlib.blake2b(asked.tobytes() if isinstance(asked, np.ndarray) else json.dumps(list(asked)).encode())
        named = (
            _FORMAT, [info.digest for info in read_segments(snapshot.connection)], meta["content_sum"],
            meta["next_row"], self.records, self._collection.fingerprint, given.hexdigest(), self.k, exits, most_rows,
            exit_rows, seed,
        )  # fmt: skip
        return hashlib.blake2b(repr(named).encode(), digest_size=8).hexdigest()


def _counted_apart(file: Path) -> bool:
    """Segments and indexes, which depend on the candidate, and what is no part of the collection."""
    return file.parts[0] in (SEGMENTS, FOLDER, "cache")

"""A durable, searchable, filterable collection of records and their vectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from isometry.errors import CorruptionError, ExistsError, FingerprintError, InputError, NotFoundError, ShapeError
from isometry.search import counting, queries
from isometry.search.attributes import AttributeCache
from isometry.search.export import export_parquet, take_snapshot
from isometry.search.filters import compile_filter
from isometry.search.inputs import as_batch, as_numbers, check_page, check_texts, checked_ids, fitted
from isometry.search.late import each, fitted_sets, tend_encodings, wants_encodings
from isometry.search.plan import SearchPlan
from isometry.search.recoding import recode
from isometry.search.sets_view import SetsCache, SetsView
from isometry.search.store import database
from isometry.search.store.commits import CommitMark
from isometry.search.store.store import Known, Store, WriteReport, load_meta, make_columns, read_segments, read_values
from isometry.search.store.values import Column, Scalar, arrow_array, content_hash
from isometry.search.store.verify import VerifyReport, verify_store
from isometry.search.upkeep import Upkeep, described, file_size, plan_of, wants_building
from isometry.search.view import SegmentCache, VectorView
from isometry.types import EncoderDescription, Progress, SearchResult, VectorSets

Mode = Literal["vector", "text", "hybrid"]
Outcome = Literal["added", "updated", "unchanged"]

_State = tuple[int, dict[str, Any], list[Column], VectorView | SetsView]


@dataclass(frozen=True)
class Snapshot:
    """One version of a collection while it is being read."""

    connection: Any
    meta: dict[str, Any]
    columns: list[Column]
    view: VectorView | SetsView
    attributes: AttributeCache


class Collection:
    """Records with vectors, in a folder.

    One process writes, any number read; a reader sees one consistent version per call and the newest at its next.
    Vectors are float32 `(n, d)`; a score is an inner product (the cosine, since vectors are kept at length one
    unless the collection was made with `metric="dot"`). With `multi_vector` every record holds several (late
    interaction): a score is the sum over the query's vectors of the best inner product with one of the record's.

    >>> with Collection.open("papers") as papers:                       # doctest: +SKIP
    ...     for hit in papers.search("graph embeddings", k=3, where="year(created) >= 2018").hits:
    ...         print(hit.id, hit.score)
    """

    def __init__(self, path: Path, store: Store | None, encoder: Any) -> None:
        self.path = path
        self._store = store
        self._encoder = encoder
        self._encoder_lock = threading.Lock()
        self._view_lock = threading.Lock()
        self._write_lock = threading.RLock()
        self._pool = database.ReaderPool(path)
        self._cache, self._sets_cache = SegmentCache(path), SetsCache(path)
        self._attributes = AttributeCache()
        self._latest: _State | None = None
        self._mark = CommitMark(path / "commits")
        self._upkeep = Upkeep(path, store, self.read, self._write_lock) if store is not None else None
        self.encoder_description: EncoderDescription | None = None
        with self.read() as snapshot:
            stale = wants_building(snapshot)
        self._encoder = encoder
        if encoder is not None:
            self._check_encoder(encoder)
        if stale and self._upkeep is not None:
            self._upkeep.start()

    # ---- opening and closing ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: Any = None,
        dimension: int | None = None,
        schema: pa.Schema | None = None,
        text_columns: Sequence[str] = (),
        image_column: str | None = None,
        metric: Literal["cosine", "dot"] = "cosine",
        multi_vector: bool = False,
    ) -> Collection:
        """Make an empty collection and open it for writing.

        Args:
            encoder: what turns texts into vectors (anything with `encode` and `describe`), an `EncoderDescription`, or
                None for a collection that is given its vectors; then `dimension` is needed.
            schema: Arrow fields of the records besides `id`; fields that come later are added.
            text_columns: what full text searches and what the encoder reads.
            multi_vector: records hold several vectors each; an encoder says so itself.
        Raises: `ExistsError` when the folder holds something, `InputError` for columns that no record can hold.
        """
        path = Path(path)
        description = encoder if isinstance(encoder, EncoderDescription) else encoder.describe() if encoder else None
        if description is not None:
            dimension, multi_vector = description.dimension, description.multi_vector
        if dimension is None or not 1 <= dimension <= 65536:
            raise InputError(f"a collection needs an encoder, or a dimension from 1 to 65536 (given: {dimension})")
        fields = pa.schema([] if schema is None else schema)
        missing = [
            name for name in [*text_columns, *([image_column] if image_column else [])] if name not in fields.names
        ]
        if missing:
            raise InputError(f"there is no column '{missing[0]}'; there are: {', '.join(fields.names)}")
        columns = make_columns(fields, text_columns, image_column)
        details = {"encoder": description.to_dict() if description else None, "metric": metric,
                   "text_columns": list(text_columns), "image_column": image_column}  # fmt: skip
        Store.create(path, columns, dimension, details, multi_vector=multi_vector)
        return cls.open(path, writable=True, encoder=None if isinstance(encoder, EncoderDescription) else encoder)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False, encoder: Any = None) -> Collection:
        """Open a collection. Raises `NotFoundError`, `LockedError` (writing), `CorruptionError`, `FingerprintError`."""
        path = Path(path)
        if not (path / database.DATABASE).is_file():
            raise NotFoundError(f"{path} is not a collection; make one with 'isometry index SOURCE --into {path}'")
        store = Store(path) if writable else None
        try:
            return cls(path, store, encoder)
        except BaseException:
            if store is not None:
                store.close()
            raise

    def close(self) -> None:
        """Let files, connections and the writer lock go; an index that is being built is finished first."""
        if self._upkeep is not None:
            self._upkeep.join()
        self._pool.close()
        self._latest = None
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- what it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def fingerprint(self) -> str | None:
        """Of the encoder; None for a collection that is given its vectors."""
        return self.encoder_description.fingerprint if self.encoder_description else None

    @property
    def writable(self) -> bool:
        return self._store is not None

    @property
    def columns(self) -> list[Column]:
        with self.read() as snapshot:
            return snapshot.columns

    @property
    def schema(self) -> pa.Schema:
        """`id` and the attributes with their Arrow types."""
        return pa.schema([pa.field("id", pa.string()), *(pa.field(one.name, one.arrow) for one in self.columns)])

    @property
    def text_columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role == "text")

    @property
    def image_column(self) -> str | None:
        return next((column.name for column in self.columns if column.role == "image"), None)

    @property
    def version(self) -> int:
        """Grows with every commit."""
        with self.read() as snapshot:
            return int(snapshot.meta["version"])

    @property
    def dimension(self) -> int:
        with self.read() as snapshot:
            return int(snapshot.meta["dimension"])

    @property
    def multi_vector(self) -> bool:
        """Whether records hold several vectors each."""
        with self.read() as snapshot:
            return bool(snapshot.meta.get("multi_vector"))

    def __len__(self) -> int:
        with self.read() as snapshot:
            return int(snapshot.meta["records"])

    @property
    def encoder(self) -> Any:
        """The encoder that made the vectors, loaded at first use. Raises `FingerprintError` when it has changed."""
        with self._encoder_lock:
            if self._encoder is None:
                if self.encoder_description is None:
                    raise InputError(f"{self.path} has no encoder; give a vector, or search with mode 'text'")
                from isometry.encoders import load_encoder

                encoder = load_encoder(self.encoder_description.name)
                self._check_encoder(encoder)
                self._encoder = encoder
            return self._encoder

    @property
    def loaded_encoder(self) -> Any:
        """The encoder if it is loaded already, else None."""
        return self._encoder

    def use(self, encoder: Any) -> None:
        """Encode with this loaded encoder from now on. Raises `FingerprintError` when it is not the collection's."""
        self._check_encoder(encoder)
        with self._encoder_lock:
            self._encoder = encoder

    def _check_encoder(self, encoder: Any) -> None:
        given = encoder.describe()
        held = self.encoder_description
        if held is None:
            raise FingerprintError(f"{self.path} is given its vectors and takes no encoder (given: {given.name})")
        if given.fingerprint != held.fingerprint:
            raise FingerprintError(
                f"{self.path} holds vectors of {held.name} ({held.fingerprint}) and the encoder is {given.name}"
                f" ({given.fingerprint}); use that encoder, or index again into another folder"
            )

    def info(self) -> dict[str, Any]:
        """What `isometry info --json` prints."""
        with self.read() as snapshot:
            meta = snapshot.meta
            sizes = [file_size(file) for file in self.path.rglob("*")]
            indexes = described(snapshot, self.path)
            return {
                "collection": self.name,
                "records": meta["records"],
                "encoder": self.encoder_description.to_dict() if self.encoder_description else None,
                "dimension": meta["dimension"],
                "metric": meta["details"]["metric"],
                "bytes_on_disk": sum(sizes),
                "bytes_in_memory": snapshot.view.rows.nbytes
                + snapshot.view.live.nbytes
                + self._attributes.nbytes
                + sum(one["bytes_in_memory"] for one in indexes),
                "format": meta["format"],
                "version": meta["version"],
                "segments": len(read_segments(snapshot.connection)),
                "ended_rows": meta["tombstones"],
                "multi_vector": bool(meta.get("multi_vector")),
                "plan": plan_of(meta).to_dict(),
                "indexes": indexes,
                "columns": [{"name": one.name, "type": str(one.arrow), "role": one.role} for one in snapshot.columns],
                "text_columns": [one.name for one in snapshot.columns if one.role == "text"],
                "last_index": meta["details"].get("last_index"),
            }

    # ---- reading ---------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """One consistent version for several reads."""
        with self._pool.snapshot() as connection:
            if held := self._held(connection):
                yield Snapshot(connection, *held[1:], self._attributes)
                return
        for attempt in range(20):
            acknowledged = self._mark.read()  # before the version it is compared with
            with self._pool.snapshot() as connection:
                try:
                    state = self._state(connection, acknowledged)
                except FileNotFoundError as error:  # compacted away between our two looks: look again
                    if attempt == 19:
                        raise NotFoundError(f"{error.filename} is gone; restore {self.path} from a snapshot") from error
                    time.sleep(0.01)
                    continue
                yield Snapshot(connection, *state[1:], self._attributes)
                return

    def _held(self, connection: Any) -> _State | None:
        """The state in memory, if it is that of the connection's version."""
        stored = _digest(connection)
        latest = self._latest
        return latest if latest is not None and latest[1]["_digest"] == stored else None

    def _state(self, connection: Any, acknowledged: int | None) -> _State:
        stored = _digest(connection)
        with self._view_lock:
            if self._latest is not None and self._latest[1]["_digest"] == stored:
                return self._latest
            meta = load_meta(connection, self.path, acknowledged)
            meta["_digest"] = stored
            columns = database.read_columns(connection)
            view: VectorView | SetsView
            if meta.get("multi_vector"):
                view = SetsView(connection, meta, self.path, self._sets_cache)
            else:
                view = VectorView(connection, meta, self.path, self._cache)
            if len(view.rows) - np.count_nonzero(~view.live) != meta["records"]:
                raise CorruptionError(
                    f"{self.path}: records and vectors do not match; run 'isometry verify {self.path}'"
                )
            state = (meta["version"], meta, columns, view)
            self._latest = state
            self._follow(meta["details"].get("encoder"))
            return state

    def _follow(self, held: dict[str, Any] | None) -> None:
        """Take the encoder of the newest version for ours: another process may have encoded everything again."""
        description = EncoderDescription.from_dict(held) if held else None
        if description != self.encoder_description:
            self.encoder_description = description
            with self._encoder_lock:
                made_by = self._encoder.describe().fingerprint if self._encoder is not None else None
                if description is None or made_by != description.fingerprint:
                    self._encoder = None

    def get(self, ids: Sequence[str] | str) -> list[dict[str, Any] | None]:
        """Records in the order of `ids`; None where there is none."""
        wanted = [ids] if isinstance(ids, str) else list(ids)
        with self.read() as snapshot:
            rows = queries.rows_of_ids(snapshot, wanted)
            records = queries.fetch(snapshot, list(rows.values()))
        return [records[rows[one]] if one in rows else None for one in wanted]

    def count(self, where: str | None = None) -> int:
        """Number of records that pass the filter."""
        with self.read() as snapshot:
            if where is None:
                return int(snapshot.meta["records"])
            compiled = compile_filter(where, snapshot.columns)
            sql = f"SELECT count(*) FROM {compiled.tables} WHERE {compiled.sql}"
            return int(snapshot.connection.execute(sql, compiled.parameters).fetchone()[0])

    def facets(
        self,
        columns: Sequence[str],
        *,
        query: str | None = None,
        like: str | None = None,
        mode: Mode = "vector",
        where: str | None = None,
        limit: int = 20,
    ) -> dict[str, list[dict[str, Any]]]:
        """For each attribute (or function of one, as `year(created)`) its most frequent values and their counts.

        Counted are the records that pass the filter. With `query` in mode 'text': those of them that hold its words. With
        `query` in the other modes, or `like`, which rank every record: the 200 most relevant of them, as sorting does.
        """
        if not 1 <= limit <= 10_000:
            raise InputError(f"limit is {limit} and may be 1 to 10,000")
        closest = None
        if like is not None or (query is not None and mode != "text"):
            found = self.search(query, like=like, k=queries.DEPTH, where=where, mode=mode)
            closest = [hit.id for hit in found.hits]
        with self.read() as snapshot:
            among = counting.among(snapshot, where, closest=closest, words=query if closest is None else None)
            return {column: counting.facet(snapshot, column, among, limit) for column in columns}

    def search(
        self,
        query: str | None = None,
        *,
        vector: Any = None,
        made_by: str | None = None,
        image: Any = None,
        like: str | None = None,
        k: int = 10,
        offset: int = 0,
        where: str | None = None,
        mode: Mode = "vector",
        explain: bool = False,
        sort: str | None = None,
        exact: bool = False,
    ) -> SearchResult:
        """The k closest records.

        Args:
            query: words.
            vector: `(d,)` instead (several vectors: `(t, d)`), with `made_by` the fingerprint of its encoder where the
                collection has one.
            image: a picture, where the encoder takes pictures.
            like: the id of a record to find others like it. None of them: every record that passes the filter, in the
                order of `sort` or as they came.
            where: a filter (see `isometry.search.filters`); it never shortens the result while records match.
            mode: 'vector', 'text' (BM25) or 'hybrid' (reciprocal rank fusion of both).
            sort: 'ATTRIBUTE' or 'ATTRIBUTE desc': order of the most relevant records in place of the score.
            exact: float32 brute force, whatever the collection's plan (slower where the plan keeps codes only).
        """
        started = time.perf_counter()
        check_page(k, offset)
        given = [name for name, value in (("query", query), ("vector", vector), ("image", image), ("like", like))
                 if value is not None]  # fmt: skip
        if len(given) > 1:
            raise InputError(f"give one of query, vector, image and like, not {' and '.join(given)}")
        if mode not in ("vector", "text", "hybrid"):
            raise InputError(f"mode is '{mode}'; choose vector, text or hybrid")
        check_texts(query=query, like=like, where=where, sort=sort)
        if query is not None and not query.strip():
            raise InputError("the query is empty; give some words")
        clock = queries.Clock()
        found = None
        while found is None:
            encoder, raw, target = None, None, None
            if query is not None and mode != "text":
                encoder = self.encoder
                raw = _encode_queries(encoder, [query])
                clock.lap("encode")
            elif image is not None:
                encoder = self.encoder
                raw = self._encode_image(encoder, image)
                clock.lap("encode")
            elif vector is not None:
                target = self._given_query(vector, made_by)
            with self.read() as snapshot:
                if encoder is not None:
                    if not _made(snapshot, encoder):
                        continue  # everything was encoded again meanwhile: so is the query
                    target = _rows(self._fitted_to(snapshot, raw))[0]
                found = queries.run(snapshot, query, target, like, k, offset, where, mode, explain, sort, exact, clock)
        shown = query if query is not None else f"like {like}" if like is not None else given[0] if given else None
        return SearchResult(shown, found.hits, found.total, found.plan, 1000 * (time.perf_counter() - started))

    def search_many(
        self,
        queries_given: Sequence[str] | np.ndarray | VectorSets,
        *,
        made_by: str | None = None,
        k: int = 10,
        where: str | None = None,
        mode: Mode = "vector",
        exact: bool = False,
    ) -> list[SearchResult]:
        """One result per query; texts are encoded together, and vectors `(q, d)` (or sets of them) scanned together."""
        check_page(k, 0)
        check_texts(where=where)
        if mode != "vector":
            if isinstance(queries_given, np.ndarray | VectorSets):
                raise InputError(f"vectors are searched with mode 'vector', not '{mode}'")
            return [self.search(query, k=k, where=where, mode=mode, exact=exact) for query in queries_given]
        started = time.perf_counter()
        clock = queries.Clock()
        vectors: Any = None
        texts: list[str | None] = []
        if isinstance(queries_given, np.ndarray | VectorSets):
            vectors = _rows(self._given_vectors(queries_given, made_by))
            texts = [None] * len(vectors)
        else:
            for query in queries_given:
                check_texts(query=query)
            empty = next((number for number, query in enumerate(queries_given, 1) if not query.strip()), None)
            if empty is not None:
                raise InputError(f"query {empty} is empty; give some words")
            texts = list(queries_given)
        if not texts:
            return []
        found = None
        while found is None:
            encoder, raw = None, None
            if not isinstance(queries_given, np.ndarray | VectorSets):
                encoder = self.encoder
                raw = _encode_queries(encoder, texts)
                clock.lap("encode")
            with self.read() as snapshot:
                if encoder is not None:
                    if not _made(snapshot, encoder):
                        continue
                    vectors = _rows(self._fitted_to(snapshot, raw))
                found = queries.run_batch(snapshot, vectors, k, where, exact, clock)
        spent = 1000 * (time.perf_counter() - started) / len(found)
        return [
            SearchResult(text, one.hits, one.total, one.plan, spent) for text, one in zip(texts, found, strict=True)
        ]

    def vectors(self, ids: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
        """Ids and their vectors float32 `(n, d)`; all of them in the order they came when `ids` is None.

        Where records hold several vectors, the mean of each record's at length one; `vector_sets` gives them all.
        """
        with self.read() as snapshot:
            if ids is None:
                pairs = snapshot.connection.execute("SELECT row, id FROM records ORDER BY row").fetchall()
                return [identity for _, identity in pairs], snapshot.view.vectors(
                    np.array([row for row, _ in pairs], np.int64)
                )
            rows = queries.rows_of_ids(snapshot, list(ids))
            missing = [one for one in ids if one not in rows]
            if missing:
                raise NotFoundError(f"no record '{missing[0]}' in {self.path}")
            return list(ids), snapshot.view.vectors(np.array([rows[one] for one in ids], np.int64))

    def vector_sets(self, ids: Sequence[str] | None = None) -> tuple[list[str], VectorSets]:
        """Ids and all their vectors, of a collection whose records hold several; they are copied into memory."""
        with self.read() as snapshot:
            if not isinstance(snapshot.view, SetsView):
                raise InputError(f"{self.path} holds one vector a record; use vectors()")
            if ids is None:
                rows = dict(snapshot.connection.execute("SELECT id, row FROM records ORDER BY row"))
            else:
                rows = queries.rows_of_ids(snapshot, list(ids))
            missing = [one for one in ids or () if one not in rows]
            if missing:
                raise NotFoundError(f"no record '{missing[0]}' in {self.path}")
            named = list(rows) if ids is None else list(ids)
            return named, snapshot.view.sets(np.array([rows[one] for one in named], np.int64))

    def blob(self, identity: str, column: str) -> bytes | None:
        """The bytes of a binary attribute, as an image column holds them."""
        with self.read() as snapshot:
            chosen = next((one for one in snapshot.columns if one.name == column and one.kind == "binary"), None)
            if chosen is None:
                raise InputError(f"'{column}' holds no bytes in {self.path}")
            found = snapshot.connection.execute(
                f"SELECT d.{chosen.sql} FROM records r JOIN documents d ON d.row = r.row WHERE r.id = ?", (identity,)
            ).fetchone()
        return found[0] if found else None

    def iter_records(self, batch_rows: int = 1024, *, where: str | None = None) -> Iterator[pa.RecordBatch]:
        """All records (of one version) as Arrow batches with their types; memory is bounded by `batch_rows`."""
        with self.read() as snapshot:
            rows = queries.matching_rows(snapshot, where)
            schema = None
            for start in range(0, len(rows), batch_rows):
                found = list(
                    read_values(snapshot.connection, snapshot.columns, rows[start : start + batch_rows].tolist())
                )
                arrays = [pa.array([identity for _, identity, _ in found], pa.string())]
                for number, column in enumerate(snapshot.columns):
                    arrays.append(arrow_array([values[number] for _, _, values in found], column))
                schema = pa.schema(
                    list(zip(["id", *(one.name for one in snapshot.columns)], [a.type for a in arrays], strict=True))
                )
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def verify(self) -> VerifyReport:
        """Read every stored byte and compare it with its checksum."""
        return verify_store(self.path)

    def export(self, target: str | Path) -> int:
        """Write ids, attributes and vectors to a Parquet file; returns the number of records."""
        return export_parquet(self, Path(target))

    def snapshot(self, target: str | Path) -> None:
        """Copy one consistent version into another folder, while writing goes on."""
        take_snapshot(self, Path(target))

    # ---- writing ---------------------------------------------------------------------------------------------------

    def add(self, records: Any, vectors: Any = None, *, made_by: str | None = None) -> WriteReport:
        """Put new records. Raises `ExistsError` when one is there already; then none is put."""
        with self._write_lock:
            return _counted(self._put(records, vectors, made_by, new_only=True))

    def upsert(self, records: Any, vectors: Any = None, *, made_by: str | None = None) -> WriteReport:
        """Put records: new ids are added, known ids replaced; what did not change is left as it is.

        Args:
            records: an Arrow batch or table, or a list of dicts, with a text column `id`.
            vectors: float32 `(n, d)` made by the encoder with fingerprint `made_by`; None to encode the text columns.
                A text that did not change is not encoded again. Several vectors a record: `VectorSets`, that is (values
                `(sum t_i, d)`, offsets `(n + 1)`), or a list of arrays `(t_i, d)`.
        """
        with self._write_lock:
            return _counted(self._put(records, vectors, made_by, new_only=False))

    def upsert_together(self, parts: Sequence[Any]) -> list[WriteReport]:
        """Put several lists of records, of different ids, in one commit: they wait for the disk once.

        Returns: what became of each list. Raises: as `upsert`, also where their columns differ; then none is put.
        """
        tables = [
            pa.Table.from_batches([one]) if isinstance(one, pa.RecordBatch) else one for one in map(as_batch, parts)
        ]
        if any(not table.schema.equals(tables[0].schema) for table in tables):
            raise InputError("the lists have different columns; put one after the other")
        with self._write_lock:
            outcomes = self._put(pa.concat_tables(tables), None, None, new_only=False)
        ends = np.cumsum([table.num_rows for table in tables])
        return [_counted(outcomes[end - table.num_rows : end]) for table, end in zip(tables, ends, strict=True)]

    def delete(self, ids: Sequence[str] | str | None = None, *, where: str | None = None) -> int:
        """End records by id or by filter; returns how many there were."""
        store = self._writer()
        if (ids is None) == (where is None):
            raise InputError("say which records to delete: ids, or a filter (where)")
        wanted = [ids] if isinstance(ids, str) else list(ids or [])
        with self._write_lock:
            with self.read() as snapshot:
                if where is not None:
                    rows = queries.matching_rows(snapshot, where).tolist()
                else:
                    rows = sorted(queries.rows_of_ids(snapshot, wanted).values())
            store.delete(rows)
        return len(rows)

    def compact(self) -> None:
        """Give the space of ended records back to the disk; readers go on meanwhile."""
        with self._write_lock:
            self._writer().compact()
            self._tend_encodings()
        self._tend()

    @property
    def plan(self) -> SearchPlan:
        """How this collection is to be searched; `info()["indexes"]` says whether its index is built."""
        with self.read() as snapshot:
            return plan_of(snapshot.meta)

    def set_plan(self, plan: SearchPlan, *, wait: bool = True) -> None:
        """Choose how this collection is searched from now on, and build what that needs.

        The plan is committed first; its index is built beside the segments, searches going on with the index that is
        there, and committed when it is whole on disk. Records that come later are searched exactly until there are
        half as many of them as the index holds; then it is built again by itself. Deleted records are left out at once.

        Args:
            wait: return when the index is built; else it is built in the background (`build_index()` waits for it).
        Raises: InputError, StorageError; what fitting the code raises. The plan then stays, and searches are exact.
        """
        upkeep = self._keeper()
        with self._write_lock:
            upkeep.set_plan(plan)
        self.build_index(wait=wait)

    def build_index(self, *, wait: bool = True) -> None:
        """Build the plan's index again where it is missing, damaged or stale; do nothing where it is not."""
        upkeep = self._keeper()
        upkeep.start()
        if wait:
            upkeep.wait()

    def recode(
        self, encoder: Any, *, plan: SearchPlan | None = None, wait: bool = True, progress: Progress | None = None
    ) -> None:
        """Encode every record again with another encoder, and search by its vectors from then on.

        Searches go on with the old vectors until the new ones are whole on disk; one commit then changes vectors,
        encoder and plan together, for all readers. What was encoded before a break is kept beside the collection, so
        that the same call goes on there.

        Args:
            encoder: of texts, one vector each.
            plan: from then on; None keeps the plan there is.
            wait: for its index.
        Raises: InputError for a collection without texts, or with several vectors a record. StorageError.
        """
        store = self._writer()
        with self._write_lock:
            recode(self, store, encoder, plan, progress)
            self._follow(store.meta["details"]["encoder"])
            self.use(encoder)
        self.build_index(wait=wait)

    def _keeper(self) -> Upkeep:
        self._writer()
        assert self._upkeep is not None
        return self._upkeep

    def _tend(self) -> None:
        with self.read() as snapshot:
            stale = wants_building(snapshot)
        if stale and self._upkeep is not None:
            self._upkeep.start()

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value under a name in the manifest, as the last indexing run does."""
        self._writer().set_detail(key, value)

    def _writer(self) -> Store:
        if self._store is None:
            raise InputError(f"{self.path} is open for reading; open it with writable=True")
        return self._store

    def _put(self, records: Any, vectors: Any, made_by: str | None, *, new_only: bool) -> list[Outcome]:
        store = self._writer()
        table = as_batch(records)
        ids = checked_ids(table)
        given = None if vectors is None else self._given_vectors(vectors, made_by)
        count = 0 if given is None else len(_rows(given))
        if given is not None and count != len(ids):
            raise ShapeError(f"{len(ids)} records and {count} vectors were given; give one vector per record")
        with store.admitting(table.schema):
            outcomes = self._write(store, table, ids, given, new_only)
        store.merge_small()
        self._tend_encodings()
        return outcomes

    def _tend_encodings(self) -> None:
        with self.read() as snapshot:
            if wants_encodings(snapshot):
                tend_encodings(self._writer(), snapshot)

    def _write(
        self, store: Store, table: pa.Table | pa.RecordBatch, ids: list[str], given: Any, new_only: bool
    ) -> list[Outcome]:
        values = store.prepare(table)
        contents = [content_hash((identity, *record)) for identity, record in zip(ids, values, strict=True)]
        encoded = self._encoded_hashes(store, values, given)
        known = store.known(ids)
        if new_only and known:
            raise ExistsError(f"record '{next(iter(known))}' is in {self.path} already; use upsert to replace it")
        chosen = [
            number
            for number, identity in enumerate(ids)
            if identity not in known
            or known[identity].content != contents[number]
            or known[identity].encoded != encoded[number]
        ]
        if given is None:
            fresh = self._vectors_for(store, ids, values, encoded, known, chosen)
        else:
            fresh = given.take(np.array(chosen, np.int64)) if isinstance(given, VectorSets) else given[chosen]
        store.write(
            [ids[number] for number in chosen],
            [values[number] for number in chosen],
            [contents[number] for number in chosen],
            [encoded[number] for number in chosen],
            fresh,
            {ids[number]: known[ids[number]] for number in chosen if ids[number] in known},
        )
        self._tend()
        outcomes: list[Outcome] = ["unchanged"] * len(ids)
        for number in chosen:
            outcomes[number] = "updated" if ids[number] in known else "added"
        return outcomes

    def _encoded_hashes(self, store: Store, values: list[tuple[Scalar, ...]], given: Any) -> list[bytes]:
        if given is not None:
            return [content_hash((vector.tobytes(),)) for vector in _rows(given)]
        roles = [number for number, column in enumerate(store.columns) if column.role in ("text", "image")]
        return [content_hash(tuple(record[number] for number in roles)) for record in values]

    def _vectors_for(
        self,
        store: Store,
        ids: list[str],
        values: list[tuple[Scalar, ...]],
        encoded: list[bytes],
        known: Mapping[str, Known],
        chosen: list[int],
    ) -> Any:
        """Vectors of the chosen records: kept where what they were made of is unchanged, else encoded."""
        vectors: list[Any] = [None] * len(chosen)
        keep = [place for place, number in enumerate(chosen)
                if ids[number] in known and known[ids[number]].encoded == encoded[number]]  # fmt: skip
        if keep:
            rows = np.array([known[ids[chosen[place]]].row for place in keep], np.int64)
            with self.read() as snapshot:
                view = snapshot.view
                held = each(view.sets(rows)) if isinstance(view, SetsView) else view.vectors(rows)
            for place, one in zip(keep, held, strict=True):
                vectors[place] = one
        kept = set(keep)
        todo = [place for place in range(len(chosen)) if place not in kept]
        if todo:
            made = _rows(self._encode_records(store, [values[chosen[place]] for place in todo]))
            for place, one in zip(todo, made, strict=True):
                vectors[place] = one
        if store.multi_vector:
            return fitted_sets(vectors, int(store.meta["dimension"]), "dot", self.path)
        return np.stack(vectors) if vectors else np.empty((0, int(store.meta["dimension"])), np.float32)

    def _encode_records(self, store: Store, values: list[tuple[Scalar, ...]]) -> Any:
        texts = [number for number, column in enumerate(store.columns) if column.role == "text"]
        images = [number for number, column in enumerate(store.columns) if column.role == "image"]
        if self.encoder_description is None:
            raise InputError(f"{self.path} has no encoder; give a vector with every record")
        if images:
            return self._fitted(self.encoder.encode_images([record[images[0]] for record in values]))
        if not texts:
            raise InputError(f"{self.path} has no text columns to encode; give a vector with every record")
        return self._fitted(
            self.encoder.encode([document_text([record[number] for number in texts]) for record in values])
        )

    # ---- vectors ---------------------------------------------------------------------------------------------------

    def _encode_image(self, encoder: Any, image: Any) -> Any:
        if self.encoder_description is None or "image" not in self.encoder_description.modalities:
            raise InputError(f"the encoder of {self.path} takes no pictures; search with words")
        return encoder.encode_images([image])

    def _given_query(self, vector: Any, made_by: str | None) -> np.ndarray:
        """One query: `(d,)`, or `(t, d)` where records hold several vectors."""
        array = as_numbers(vector)
        array = array[None, :] if array.ndim == 1 else array
        if self.multi_vector:
            return _rows(self._given_vectors([array], made_by))[0]
        if array.ndim == 2 and len(array) != 1:
            raise ShapeError(f"{len(array)} vectors were given for one query; give one, or use search_many")
        return _rows(self._given_vectors(array, made_by))[0]

    def _given_vectors(self, vectors: Any, made_by: str | None) -> Any:
        if self.fingerprint is not None and made_by != self.fingerprint:
            raise FingerprintError(
                f"{self.path} holds vectors of {self.encoder_description.name} ({self.fingerprint})"  # type: ignore[union-attr]
                f" and these are from {made_by or 'an unnamed encoder'}; give made_by='{self.fingerprint}' if they are its own"
            )
        return self._fitted(vectors)

    def _fitted(self, vectors: Any) -> Any:
        """Checked float32 `(n, d)`, or sets, at length one where the metric is the cosine."""
        with self.read() as snapshot:
            return self._fitted_to(snapshot, vectors)

    def _fitted_to(self, snapshot: Snapshot, vectors: Any, dimension: int | None = None) -> Any:
        dimension, metric = dimension or int(snapshot.meta["dimension"]), snapshot.meta["details"]["metric"]
        if snapshot.meta.get("multi_vector"):
            return fitted_sets(vectors, dimension, metric, self.path)
        return fitted(vectors, dimension, metric, self.path)


def document_text(texts: Sequence[Scalar]) -> str:
    """What the encoder reads of a record: its text columns that hold something, a line each."""
    return "\n".join(str(text) for text in texts if text is not None and str(text).strip())


def _made(snapshot: Snapshot, encoder: Any) -> bool:
    """Whether this encoder made the vectors of this version."""
    held = snapshot.meta["details"].get("encoder")
    return held is not None and EncoderDescription.from_dict(held).fingerprint == encoder.describe().fingerprint


def _encode_queries(encoder: Any, texts: Sequence[Any]) -> Any:
    return (getattr(encoder, "encode_queries", None) or encoder.encode)(list(texts))


def _rows(vectors: Any) -> Any:
    """What each record or query has: a row `(d,)`, or an array `(t, d)` of a set."""
    return each(vectors) if isinstance(vectors, VectorSets) else vectors


def _digest(connection: Any) -> str | None:
    (stored,) = connection.execute("SELECT value FROM meta WHERE key = 'digest'").fetchone() or (None,)
    return stored


def _counted(outcomes: Sequence[Outcome]) -> WriteReport:
    return WriteReport(outcomes.count("added"), outcomes.count("updated"), outcomes.count("unchanged"))


__all__ = ["Collection", "Snapshot", "document_text"]

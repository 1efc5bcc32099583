"""The SQLite side of a collection: schema, connections, and what a damaged or busy file raises."""

from __future__ import annotations

import base64
import hashlib
import queue
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from isometry.errors import CorruptionError, FilterError, InputError, LockedError, StorageError
from isometry.search.store.values import Column, kind_of

FORMAT = 2  # of collections with several vectors a record; those with one are still written as 1
DATABASE = "collection.sqlite"

_TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE columns(position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
    " role TEXT NOT NULL, arrow TEXT NOT NULL)",
    "CREATE TABLE segments(position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, digest TEXT NOT NULL)",
    "CREATE TABLE pending(row INTEGER PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE tombstones(row INTEGER PRIMARY KEY)",
    "CREATE TABLE members(column INTEGER NOT NULL, value NOT NULL, row INTEGER NOT NULL,"
    " PRIMARY KEY(column, value, row)) WITHOUT ROWID",
    "CREATE INDEX members_by_row ON members(row)",
)
_RECORDS = (
    "CREATE TABLE records(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content BLOB NOT NULL,"
    " encoded BLOB NOT NULL"
)
TOKENIZER = "porter unicode61 remove_diacritics 2"


def create_tables(connection: sqlite3.Connection, columns: list[Column]) -> None:
    """Lay an empty collection with these columns."""
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema_statements(columns):
        connection.execute(statement)
    for position, column in enumerate(columns):
        insert_column(connection, position, column)
    connection.execute("COMMIT")


def schema_statements(columns: list[Column]) -> list[str]:
    """Every CREATE statement of a fresh collection with these columns."""
    records = "".join(f", {column.sql}" for column in columns if column.table == "records")
    documents = "".join(f", {column.sql}" for column in columns if column.table == "documents")
    statements = [*_TABLES, f"{_RECORDS}{records})", f"CREATE TABLE documents(row INTEGER PRIMARY KEY{documents})"]
    texts = text_columns(columns)
    if texts:
        names = ", ".join(column.sql for column in texts)
        statements.append(
            f"CREATE VIRTUAL TABLE fulltext USING fts5({names}, content='documents', content_rowid='row',"
            f" tokenize='{TOKENIZER}')"
        )
    return statements


def text_columns(columns: list[Column]) -> list[Column]:
    return [column for column in columns if column.role == "text"]


def insert_column(connection: sqlite3.Connection, position: int, column: Column) -> None:
    arrow = base64.b64encode(pa.schema([pa.field(column.name, column.arrow)]).serialize().to_pybytes()).decode()
    connection.execute(
        "INSERT INTO columns VALUES (?, ?, ?, ?, ?)", (position, column.name, column.kind, column.role, arrow)
    )


def read_columns(connection: sqlite3.Connection) -> list[Column]:
    """The columns in order; what cannot be decoded is corruption."""
    found = []
    for position, name, kind, role, arrow in connection.execute(
        "SELECT position, name, kind, role, arrow FROM columns ORDER BY position"
    ):
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(arrow)))
            ok = schema.names == [name] and kind_of(schema.types[0], name) == kind
        except (ValueError, pa.ArrowException):
            ok = False
        if not ok:
            raise CorruptionError(f"the description of column {position} is damaged; restore the collection")
        found.append(Column(name, kind, role, f"c{position}", schema.types[0]))
    return found


def schema_digest(connection: sqlite3.Connection) -> str:
    """Hash over every CREATE statement that the file holds."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name, type").fetchall()
    return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the collection's name in the sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise LockedError(f"{path} stayed locked by another process; try again") from error
        if "disk I/O" in text or "full" in text or "unable to open" in text or "readonly" in text:
            raise StorageError(
                f"{path}: {text}; check free space, the disk itself and the permissions, then try again"
            ) from error
        if "parser stack" in text or "Expression tree" in text:
            raise FilterError("the filter nests too deeply; write it flatter") from error
        if "no such table" in text or "malformed" in text or "no such column" in text:
            raise CorruptionError(f"{path} is damaged ({text}); restore it from a snapshot") from error
        raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
            raise
        raise CorruptionError(f"{path} is damaged ({error}); restore it from a snapshot") from error
    except UnicodeEncodeError as error:
        raise InputError("a text holds half of a surrogate pair, which is no Unicode; leave it out") from error
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{path} holds damaged text; restore it from a snapshot") from error


def connect(folder: Path, *, writable: bool) -> sqlite3.Connection:
    """A connection with the store's settings; transactions are explicit."""
    mode = "rw" if writable else "ro"
    path = (folder / DATABASE).resolve().as_uri()
    connection = sqlite3.connect(
        f"{path}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=30,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA cache_size = -32000")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


class ReaderPool:
    """Read connections for any number of threads; each hands out one consistent snapshot at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._closed = False

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: all that is read in the block is of one version."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            with translated(self._folder):
                connection = connect(self._folder, writable=False)
        healthy = False
        try:
            with translated(self._folder):
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            healthy = True
        finally:
            if healthy and not self._closed:
                self._idle.put(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

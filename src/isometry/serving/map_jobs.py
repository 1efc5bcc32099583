"""Makes maps behind the requests: PCA at once, UMAP in a process of its own, one at a time for each collection."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isometry.errors import IsometryError
from isometry.search import Collection
from isometry.search.maps import CollectionMap, make_map, map_key, read_map, write_map
from isometry.search.projection import Method, best_method

State = Literal["working", "ready"]
PAUSE = 60.0  # seconds between two maps of a collection that keeps changing; at least ten times what the last one took
PROCESS = "isometry.search.maps"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapStanding:
    """What there is to show now (None in the first moments) and whether a newer or better one is on its way.

    `percent` is of the one on its way, `problem` why it could not be made.
    """

    held: CollectionMap | None
    state: State
    method: Method
    percent: int
    current: bool
    problem: str | None


class MapJob:
    """The map of one collection. Safe to ask from many threads; no question waits for a layout."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._lock = threading.Lock()
        self._held: CollectionMap | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._percent, self._failed_key = 0, ""
        self._problem: str | None = None
        self._rest_until = 0.0
        self._closed = False

    @property
    def held(self) -> CollectionMap | None:
        return self._held

    def ask(self) -> MapStanding:
        """How things stand; starts the work where it is needed."""
        with self._collection.read() as snapshot:
            method = best_method(int(snapshot.meta["records"]))
            key, version = map_key(snapshot, method), int(snapshot.meta["version"])
        with self._lock:
            done = self._held is not None and self._held.key == key
            running = self._thread is not None and self._thread.is_alive()
            wanted = not done and key != self._failed_key and time.monotonic() >= self._rest_until
            if wanted and not running and not self._closed:
                self._percent, self._problem = 0, None
                self._thread = threading.Thread(target=self._work, args=(method, key), name="map", daemon=True)
                self._thread.start()
                running = True
            held, state = self._held, "working" if running and not done else "ready"
            current = held is not None and held.version == version
            return MapStanding(held, state, method, self._percent, current, self._problem)  # type: ignore[arg-type]

    def close(self) -> None:
        """End a layout that is running."""
        with self._lock:
            self._closed = True
            child = self._child
        if child is not None:
            child.terminate()
        if self._thread is not None:
            self._thread.join(10)

    def _work(self, method: Method, key: str) -> None:
        started = time.monotonic()
        try:
            self._make(method, key)
        except (IsometryError, OSError, MemoryError) as error:
            _log.warning("the map of %s could not be made: %s", self._collection.path, error)
            self._problem, self._failed_key = " ".join(str(error).split()), key
        finally:
            now = time.monotonic()
            self._rest_until = now + max(PAUSE, 10 * (now - started))

    def _make(self, method: Method, key: str) -> None:
        kept = read_map(self._collection.path)
        if kept is not None and (kept.key == key or self._held is None):
            self._held = kept
        if self._held is not None and self._held.key == key:
            return
        if method == "pca" or self._held is None:
            self._held = make_map(self._collection, method="pca")
        if method == "pca":
            self._keep(self._held)
            return
        with tempfile.TemporaryDirectory(prefix="isometry-map-") as folder:
            made = self._umap(Path(folder))
        if made is not None:
            self._held = made
            self._keep(made)

    def _umap(self, folder: Path) -> CollectionMap | None:
        command = [sys.executable, "-m", PROCESS, str(self._collection.path.absolute()), str(folder)]
        with self._lock:
            if self._closed:
                return None
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        with self._child as child:
            assert child.stdout is not None and child.stderr is not None
            for line in child.stdout:
                self._percent = int(line) if line.strip().isdigit() else self._percent
            complaint = child.stderr.read()
        if child.returncode != 0 and not self._closed:
            last = (complaint.strip().splitlines() or ["no reason was given"])[-1]
            raise OSError(f"the UMAP layout ended with code {child.returncode}: {last}")
        return read_map(folder)

    def _keep(self, made: CollectionMap) -> None:
        try:
            write_map(self._collection.path, made)
        except OSError as error:  # a folder that only reads: the map lives as long as the server
            _log.info("the map of %s is not kept: %s", self._collection.path, error)

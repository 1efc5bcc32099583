"""Keeps the index of a collection's plan built: in the background, while searches go on with what is there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.errors import InputError
from isometry.search.building import FOLDER, build_index, remove_others
from isometry.search.encoded import FOLDER as ENCODINGS
from isometry.search.plan import SearchPlan
from isometry.search.sets_view import SetsView
from isometry.search.store.store import Store

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot

_log = logging.getLogger(__name__)
_TAIL = 4096
_ATTEMPTS = 5


def plan_of(meta: dict[str, Any]) -> SearchPlan:
    """The plan in a manifest; exact where none was set."""
    held = meta["details"].get("plan")
    return SearchPlan() if held is None else SearchPlan.from_dict(held)


def wants_building(snapshot: Snapshot) -> bool:
    """Whether the plan's index is missing, of another plan, not usable, or has a long exact tail behind it."""
    plan, view = plan_of(snapshot.meta), snapshot.view
    if isinstance(view, SetsView):
        return False
    sealed = view.sealed_rows
    if plan.index == "exact":
        return snapshot.meta["details"].get("built") is not None
    if view.built is None or view.built.plan != plan:
        return sealed > 0
    return sealed - view.built.rows > max(_TAIL, view.built.rows // 2)


class Upkeep:
    """Builds in one thread at a time; each build ends in a commit, unless what it was built from is gone by then.

    Args:
        read: gives one consistent version.
        lock: held while a commit is made.
    """

    def __init__(
        self, path: Path, store: Store, read: Callable[[], AbstractContextManager[Snapshot]], lock: threading.RLock
    ) -> None:
        self._path, self._store, self._read, self._lock = path, store, read, lock
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._guard = threading.Lock()

    def set_plan(self, plan: SearchPlan) -> None:
        """Commit the plan; searches keep to the index that is there until the new one is built. Raises: InputError."""
        if self._store.multi_vector:
            raise InputError(f"{self._path} holds several vectors a record, which has its own codes and takes no plan")
        self._store.set_detail("plan", None if plan == SearchPlan() else plan.to_dict())

    def start(self) -> None:
        """Build in the background if something is wanting and nothing is being built."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._error = None
                self._thread = threading.Thread(target=self._run, name="isometry-index", daemon=False)
                self._thread.start()

    def wait(self) -> None:
        """Until the build is done. Raises what it raised."""
        thread = self._thread
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def join(self) -> None:
        """Until the build is done, whatever came of it."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for _ in range(_ATTEMPTS):
                if not self._step():
                    return
        except BaseException as error:
            self._error = error
            _log.warning("the index of %s was not built: %s", self._path, error)

    def _step(self) -> bool:
        """One build; whether there may be more to do."""
        with self._read() as snapshot:
            if not wants_building(snapshot):
                return False
            plan, segments = plan_of(snapshot.meta), snapshot.view.segments
        built = None if plan.index == "exact" else build_index(self._path, plan, segments)
        with self._lock:
            with self._read() as snapshot:
                digests = [segment.info.digest for segment in snapshot.view.segments]
                same = plan_of(snapshot.meta) == plan and (built is None or built.covers(digests))
            if same:
                self._store.set_detail("built", None if built is None else built.to_dict())
                remove_others(self._path, built.file if built is not None else None)
        return True


def described(snapshot: Snapshot, folder: Path) -> list[dict[str, Any]]:
    """What `isometry info` says of the indexes of a version."""
    view, records = snapshot.view, max(1, int(snapshot.meta["records"]))
    if isinstance(view, SetsView):
        memory, disk = view.index_bytes, sum(file_size(file) for file in (folder / ENCODINGS).glob("*"))
        return [
            {**view.described(), "rows": len(view.rows), "bytes_in_memory": memory, "bytes_on_disk": disk,
             "bytes_in_memory_per_record": memory / records, "bytes_on_disk_per_record": disk / records}
        ]  # fmt: skip
    listed = []
    plan = plan_of(snapshot.meta)
    built = view.built
    if plan.index != "exact" or built is not None:
        kind = built.plan if built is not None else plan
        memory = view.built_bytes
        disk = file_size(folder / FOLDER / built.file) if built is not None else 0
        listed.append(
            {"kind": kind.index, "exact": False, "complete": built is not None and built.plan == plan,
             "rows": built.rows if built is not None else 0, "plan": kind.to_dict(), "problem": view.problem,
             "bytes_in_memory": memory, "bytes_on_disk": disk, "bytes_in_memory_per_record": memory / records,
             "bytes_on_disk_per_record": disk / records,
             "build_seconds": built.build_seconds if built is not None else None,
             "build_mb": built.build_mb if built is not None else None}
        )  # fmt: skip
    rows, memory = view.flat_rows, view.flat_bytes
    if rows or not listed:
        listed.append(
            {"kind": "flat", "exact": True, "complete": True, "rows": rows, "bytes_in_memory": memory,
             "bytes_on_disk": 0, "bytes_in_memory_per_record": memory / records, "bytes_on_disk_per_record": 0.0}
        )  # fmt: skip
    return listed


def file_size(path: Path) -> int:
    """Bytes of a file; 0 for a folder, and for what was removed meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0

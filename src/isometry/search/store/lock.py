"""One writing process per collection."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from isometry.errors import LockedError, StorageError


class WriterLock:
    """Advisory lock on a file, held until `release` or the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Raises `LockedError` when another process (or another open collection) holds it."""
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"{path.parent} cannot be opened for writing: {error.strerror}") from error
        try:
            _lock(self._handle)
        except OSError as error:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise LockedError(
                f"{path.parent} is being written by process {holder}; wait for it, or open the collection for reading"
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _lock(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

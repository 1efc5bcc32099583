"""The last acknowledged commit, beside the database.

SQLite takes a damaged frame of its write-ahead log for the end of the log, and so drops acknowledged transactions in
silence. The number of the last acknowledged commit, kept in a second file, makes that loss visible.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

_SLOT = struct.Struct("<QI")
_SLOT_SIZE = 64


class CommitMark:
    """Two checksummed slots written in turn, so that a torn write leaves the other one whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, version: int) -> None:
        """Durably note that `version` is acknowledged."""
        body = struct.pack("<Q", version)
        slot = (body + struct.pack("<I", zlib.crc32(body))).ljust(_SLOT_SIZE, b"\0")
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(handle, slot, (version % 2) * _SLOT_SIZE)
            os.fdatasync(handle) if hasattr(os, "fdatasync") else os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> int | None:
        """The highest version noted in a whole slot; None where there is none."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        versions = []
        for start in (0, _SLOT_SIZE):
            if len(data) >= start + _SLOT.size:
                version, crc = _SLOT.unpack_from(data, start)
                if crc == zlib.crc32(data[start : start + 8]):
                    versions.append(version)
        return max(versions, default=None)

"""Immutable files of vectors: written once, checksummed block by block, read through the memory map.

Layout, little-endian:

    0     64 bytes   header: magic, format, rows n, dimension d, offset of the vectors, CRC-32 of the header
    64    8 n        row numbers, int64, strictly ascending; zero-padded to a multiple of 4096
    ...   4 n d      vectors, float32, row after row
    end   4 m + 4    CRC-32 of each 64 KiB block between header and footer, then the CRC-32 of these
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isometry.errors import CorruptionError

MAGIC = b"ISOSEG\x00\x01"
BLOCK = 64 * 1024
_HEADER = struct.Struct("<8sIIQQQ20xI")
_PAGE = 4096
_FORMAT = 1


@dataclass(frozen=True)
class SegmentInfo:
    """What the manifest keeps of a segment: file name, number of rows, bytes and the digest of header and footer."""

    name: str
    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class _Plan:
    rows: int
    dimension: int

    @property
    def vectors_at(self) -> int:
        return -(-(_HEADER.size + 8 * self.rows) // _PAGE) * _PAGE

    @property
    def footer_at(self) -> int:
        return self.vectors_at + 4 * self.rows * self.dimension

    @property
    def blocks(self) -> int:
        return -(-(self.footer_at - _HEADER.size) // BLOCK)

    @property
    def total(self) -> int:
        return self.footer_at + 4 * self.blocks + 4

    def header(self) -> bytes:
        body = _HEADER.pack(MAGIC, _FORMAT, 0, self.rows, self.dimension, self.vectors_at, 0)[:-4]
        return body + struct.pack("<I", zlib.crc32(body))


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _BlockSums:
    """Cuts a byte stream into blocks and keeps the CRC of each."""

    def __init__(self) -> None:
        self.sums: list[int] = []
        self._crc = 0
        self._filled = 0

    def update(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while len(view):
            part = view[: BLOCK - self._filled]
            self._crc = zlib.crc32(part, self._crc)
            self._filled += len(part)
            if self._filled == BLOCK:
                self._close()
            view = view[len(part) :]

    def _close(self) -> None:
        self.sums.append(self._crc)
        self._crc, self._filled = 0, 0

    def footer(self) -> bytes:
        if self._filled:
            self._close()
        body = np.array(self.sums, "<u4").tobytes()
        return body + struct.pack("<I", zlib.crc32(body))


def write_segment(
    folder: Path, name: str, rows: np.ndarray, blocks: Iterable[np.ndarray], dimension: int
) -> SegmentInfo:
    """Write a segment durably: temporary file, fsync, rename, fsync of the folder.

    Args:
        rows: int64 `(n,)`, strictly ascending row numbers.
        blocks: float32 arrays `(m_i, d)` that together hold n vectors in the order of `rows`; read once, one at a time.
    """
    plan = _Plan(len(rows), dimension)
    header, sums = plan.header(), _BlockSums()
    temporary = folder / f"{name}.tmp"
    with temporary.open("wb", buffering=1 << 20) as out:

        def put(data: memoryview | bytes) -> None:
            sums.update(data)
            out.write(data)

        out.write(header)
        put(np.ascontiguousarray(rows, "<i8").tobytes())
        put(bytes(plan.vectors_at - _HEADER.size - 8 * plan.rows))
        written = 0
        for block in blocks:
            if not len(block):
                continue
            put(np.ascontiguousarray(block, "<f4").data.cast("B"))
            written += len(block)
        if written != plan.rows:
            raise AssertionError(f"{written} vectors for {plan.rows} rows")
        footer = sums.footer()
        out.write(footer)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(folder / name)
    fsync_folder(folder)
    return SegmentInfo(name, plan.rows, plan.total, _digest(header, footer))


def _digest(header: bytes, footer: bytes) -> str:
    return hashlib.blake2b(header + footer, digest_size=16).hexdigest()


class Segment:
    """A memory-mapped segment.

    Attributes:
        info: what the manifest says. rows: int64 `(n,)` ascending. vectors: float32 `(n, d)`, read from disk on touch.
    """

    def __init__(self, folder: Path, info: SegmentInfo) -> None:
        """Raises `FileNotFoundError` when the file is gone and `CorruptionError` when its frame is not as written."""
        self.info, self.path = info, folder / info.name
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != info.bytes or size < _HEADER.size:
                raise CorruptionError(f"{self.path}: {size} bytes instead of {info.bytes}; restore it from a snapshot")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _, _, _, rows, dimension, vectors_at, _ = _HEADER.unpack_from(self._map)
        plan = _Plan(rows, dimension)
        if plan.vectors_at != vectors_at or plan.total != size or plan.header() != self._map[: _HEADER.size]:
            raise CorruptionError(f"{self.path}: damaged header; restore it from a snapshot")
        self._plan = plan
        footer = self._map[plan.footer_at :]
        if _digest(plan.header(), footer) != info.digest:
            raise CorruptionError(f"{self.path}: its checksums are damaged; restore it from a snapshot")
        self._sums = np.frombuffer(footer[:-4], "<u4")
        self.rows: np.ndarray = np.frombuffer(self._map, "<i8", rows, _HEADER.size)
        self.vectors: np.ndarray = np.frombuffer(self._map, "<f4", rows * dimension, vectors_at).reshape(
            rows, dimension
        )

    def damaged_blocks(self) -> list[tuple[int, int]]:
        """(offset, length) of every block whose bytes are not what was written; reads the whole file."""
        found = []
        view = memoryview(self._map)
        for number, expected in enumerate(self._sums):
            start = _HEADER.size + number * BLOCK
            end = min(start + BLOCK, self._plan.footer_at)
            if zlib.crc32(view[start:end]) != expected:
                found.append((start, end - start))
        return found

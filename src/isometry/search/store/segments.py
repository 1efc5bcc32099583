"""Immutable files of vectors: written once, checksummed block by block, read through the memory map.

Layout, little-endian:

    0     64 bytes   header: magic, format, rows n, dimension d, offset of the vectors, vectors t, CRC-32 of the header
    64    8 n        row numbers, int64, strictly ascending
    ...   8 (n + 1)  format 2 only: the vectors of row i are those from offset i to offset i + 1, int64
    ...              zeros up to a multiple of 4096
    ...   4 t d      vectors, float32, one after the other (format 1: t = n, one for each row, and its field is zero)
    end   4 m + 4    CRC-32 of each 64 KiB block between header and footer, then the CRC-32 of these

Format 1 holds one vector for a row, format 2 several (late interaction).
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
from isometry.types import VectorSets

MAGIC = b"ISOSEG\x00\x01"
BLOCK = 64 * 1024
_HEADER = struct.Struct("<8sIIQQQQ12xI")
_PAGE = 4096
_ONE, _SEVERAL = 1, 2


@dataclass(frozen=True)
class SegmentInfo:
    """What the manifest keeps of a segment: file name, number of rows, bytes and the digest of header and footer."""

    name: str
    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class _Plan:
    """Where everything lies; `vectors` is None where every row has one."""

    rows: int
    dimension: int
    vectors: int | None

    @property
    def offsets_at(self) -> int:
        return _HEADER.size + 8 * self.rows

    @property
    def vectors_at(self) -> int:
        end = self.offsets_at + (0 if self.vectors is None else 8 * (self.rows + 1))
        return -(-end // _PAGE) * _PAGE

    @property
    def count(self) -> int:
        return self.rows if self.vectors is None else self.vectors

    @property
    def footer_at(self) -> int:
        return self.vectors_at + 4 * self.count * self.dimension

    @property
    def blocks(self) -> int:
        return -(-(self.footer_at - _HEADER.size) // BLOCK)

    @property
    def total(self) -> int:
        return self.footer_at + 4 * self.blocks + 4

    def header(self) -> bytes:
        form = _ONE if self.vectors is None else _SEVERAL
        body = _HEADER.pack(MAGIC, form, 0, self.rows, self.dimension, self.vectors_at, self.vectors or 0, 0)[:-4]
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
    folder: Path,
    name: str,
    rows: np.ndarray,
    blocks: Iterable[np.ndarray],
    dimension: int,
    sizes: np.ndarray | None = None,
) -> SegmentInfo:
    """Write a segment durably: temporary file, fsync, rename, fsync of the folder.

    Args:
        rows: int64 `(n,)`, strictly ascending row numbers.
        blocks: float32 arrays `(m_i, d)` that together hold the vectors in the order of `rows`; read once, one at a time.
        sizes: int64 `(n,)`, how many vectors each row has; None for one each.
    """
    plan = _Plan(len(rows), dimension, None if sizes is None else int(sizes.sum()))
    header, sums = plan.header(), _BlockSums()
    temporary = folder / f"{name}.tmp"
    with temporary.open("wb", buffering=1 << 20) as out:

        def put(data: memoryview | bytes) -> None:
            sums.update(data)
            out.write(data)

        out.write(header)
        put(np.ascontiguousarray(rows, "<i8").tobytes())
        if sizes is not None:
            put(np.concatenate([[0], np.cumsum(sizes)]).astype("<i8").tobytes())
        put(bytes(plan.vectors_at - out.tell()))
        written = 0
        for block in blocks:
            if not len(block):
                continue
            put(np.ascontiguousarray(block, "<f4").data.cast("B"))
            written += len(block)
        if written != plan.count:
            raise AssertionError(f"{written} vectors instead of {plan.count}")
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
        info: what the manifest says.
        rows: int64 `(n,)` ascending.
        vectors: float32 `(t, d)`, read from disk on touch.
        offsets: int64 `(n + 1)` where a row has several vectors, None where t = n.
    """

    def __init__(self, folder: Path, info: SegmentInfo) -> None:
        """Raises `FileNotFoundError` when the file is gone and `CorruptionError` when its frame is not as written."""
        self.info, self.path = info, folder / info.name
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != info.bytes or size < _HEADER.size:
                raise CorruptionError(f"{self.path}: {size} bytes instead of {info.bytes}; restore it from a snapshot")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _, form, _, rows, dimension, vectors_at, count, _ = _HEADER.unpack_from(self._map)
        plan = _Plan(rows, dimension, count if form == _SEVERAL else None)
        if plan.vectors_at != vectors_at or plan.total != size or plan.header() != self._map[: _HEADER.size]:
            raise CorruptionError(f"{self.path}: damaged header; restore it from a snapshot")
        self._plan = plan
        footer = self._map[plan.footer_at :]
        if _digest(plan.header(), footer) != info.digest:
            raise CorruptionError(f"{self.path}: its checksums are damaged; restore it from a snapshot")
        self._sums = np.frombuffer(footer[:-4], "<u4")
        self.rows: np.ndarray = np.frombuffer(self._map, "<i8", rows, _HEADER.size)
        self.vectors: np.ndarray = np.frombuffer(self._map, "<f4", plan.count * dimension, vectors_at).reshape(
            plan.count, dimension
        )
        self.offsets: np.ndarray | None = None
        self._seen = np.zeros(len(self._sums), bool)
        if form == _SEVERAL:
            self._check(_HEADER.size, vectors_at)
            self.offsets = np.frombuffer(self._map, "<i8", rows + 1, plan.offsets_at)
            if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 1).any():
                raise CorruptionError(f"{self.path}: its offsets are damaged; restore it from a snapshot")

    def damaged_blocks(self) -> list[tuple[int, int]]:
        """(offset, length) of every block whose bytes are not what was written; reads the whole file."""
        return [self._block(number) for number in range(len(self._sums)) if not self._whole(number)]

    def sets(self, chosen: np.ndarray) -> VectorSets:
        """The vectors of chosen places `(m,)` of a segment with several vectors a row; what is read is checked first.

        A whole late-interaction segment is too large to be read at every opening: each block is compared with its
        checksum when it is first needed. Raises `CorruptionError`.
        """
        assert self.offsets is not None
        width = 4 * self._plan.dimension
        starts, stops = self.offsets[chosen], self.offsets[chosen + 1]
        if not self._seen.all():
            base = self._plan.vectors_at - _HEADER.size
            first, last = (base + starts * width) // BLOCK, (base + stops * width - 1) // BLOCK
            for low, high in zip(first.tolist(), last.tolist(), strict=True):
                if not self._seen[low : high + 1].all():
                    self._check(_HEADER.size + low * BLOCK, _HEADER.size + high * BLOCK + 1)
        return VectorSets(self.vectors, self.offsets).take(chosen)

    def check(self) -> None:
        """Compare every block that was not read yet with its checksum. Raises `CorruptionError`."""
        self._check(_HEADER.size, self._plan.footer_at)

    def _check(self, start: int, stop: int) -> None:
        """The blocks over the bytes [start, stop) of the file, each once."""
        for number in range((start - _HEADER.size) // BLOCK, -(-(stop - _HEADER.size) // BLOCK)):
            if not self._seen[number]:
                if not self._whole(number):
                    raise CorruptionError(
                        f"{self.path} is damaged at byte {self._block(number)[0]}; run 'isometry verify"
                        f" {self.path.parent.parent}'"
                    )
                self._seen[number] = True

    def _block(self, number: int) -> tuple[int, int]:
        start = _HEADER.size + number * BLOCK
        return start, min(BLOCK, self._plan.footer_at - start)

    def _whole(self, number: int) -> bool:
        start, length = self._block(number)
        return zlib.crc32(memoryview(self._map)[start : start + length]) == self._sums[number]

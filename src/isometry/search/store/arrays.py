"""Files of named arrays that can be built again: a checked head, then arrays that are read through the memory map.

Layout: 8 bytes magic, 8 bytes length of the head (little-endian), 16 bytes digest of the head, the head as JSON, then
each array at a multiple of 64 bytes. The head names every array with its type, shape, place and digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError, StorageError
from isometry.search.store.segments import fsync_folder

_MAGIC = b"ISOARR\x00\x01"
_START = struct.Struct("<8sQ16s")
_ALIGN = 64
_TYPES = {"|u1", "|i1", "<u2", "<u4", "<u8", "<i4", "<i8", "<f2", "<f4", "<f8", "|b1"}


def write_arrays(path: Path, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Write the file whole or not at all; returns the digest of its head, which holds those of the arrays.

    Raises: StorageError where the disk refuses.
    """
    entries: dict[str, dict[str, Any]] = {}
    at = 0
    held = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in held.items():
        kind = array.dtype.newbyteorder("<").str
        if kind not in _TYPES:
            raise AssertionError(f"{name} is {array.dtype}, which such a file does not hold")
        entries[name] = {"type": kind, "shape": list(array.shape), "at": at, "digest": _digest(_bytes(array))}
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    text = json.dumps({**head, "arrays": entries}, sort_keys=True).encode()
    digest = hashlib.blake2b(text, digest_size=16)
    try:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_START.pack(_MAGIC, len(text), digest.digest()) + text)
            for name, array in held.items():
                out.seek(_first(len(text)) + entries[name]["at"])
                out.write(_bytes(array))
            out.truncate(_first(len(text)) + at)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o644)
        temporary.rename(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def read_arrays(path: Path, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Head and memory-mapped arrays of the file that `write_arrays` gave this digest for; every byte is checked.

    Raises: CorruptionError for a file that is missing, damaged, or another one.
    """
    try:
        mapped = np.memmap(path, np.uint8, "c")  # pages are private: torch refuses read-only ones
    except (OSError, ValueError) as error:
        raise CorruptionError(f"'{path}' is missing or empty") from error
    if len(mapped) < _START.size:
        raise CorruptionError(f"'{path}' is cut short")
    magic, length, own = _START.unpack(bytes(mapped[: _START.size]))
    text = bytes(mapped[_START.size : _START.size + length]) if length <= len(mapped) else b""
    if magic != _MAGIC or hashlib.blake2b(text, digest_size=16).digest() != own:
        raise CorruptionError(f"'{path}' does not begin as such a file does")
    if own.hex() != digest:
        raise CorruptionError(f"'{path}' is of another build")
    head = json.loads(text)
    arrays, first = {}, _first(length)
    for name, entry in head.pop("arrays").items():
        kind = np.dtype(entry["type"])
        start = first + entry["at"]
        size = int(np.prod(entry["shape"], dtype=np.int64)) * kind.itemsize
        if start + size > len(mapped) or _digest(mapped[start : start + size].data) != entry["digest"]:
            raise CorruptionError(f"'{path}' is damaged in '{name}'")
        arrays[name] = np.frombuffer(mapped[start : start + size].data, kind).reshape(entry["shape"])
    return head, arrays


def _first(length: int) -> int:
    return -(-(_START.size + length) // _ALIGN) * _ALIGN


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _digest(data: memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()

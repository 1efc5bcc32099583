"""SPZ: positions on a 24-bit grid, everything else in bytes, about 16 to 64 bytes a splat.

Reads versions 1 to 3 (one gzip stream) and 4 (one zstd stream per attribute); writes version 3, which every reader
of the format takes. Axes are taken as they are: the format's default says nothing about them.
Quantisation: position 2^-fractional_bits / 2, log-scale 1/32, opacity 1/510, colour 1/510 / 0.15, quaternion 1/1022
times 0.71, harmonics 1/256 (within -1..1) at 8 bits.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.limits import check_room
from isometry.scenes.gaussians import SH_C0, Gaussians

_MAGIC = 0x5053474E
_COLOUR = 0.15
_HARMONICS = (0, 3, 8, 15, 24)


def read_spz(path: str | Path) -> Gaussians:
    """Gaussians of an SPZ file.

    Raises:
        InputError: not an SPZ file, an unknown version, cut off, or sizes that contradict each other.
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(path, data)
    if len(data) < 16 or struct.unpack_from("<I", data)[0] != _MAGIC:
        raise InputError(f"{path}: this is not an SPZ file (no 'NGSP' at its start)")
    version, count, degree, fraction, _, streams = struct.unpack_from("<IIBBBB", data, 4)
    if not 1 <= version <= 4:
        raise InputError(f"{path}: SPZ version {version} is unknown; 1 to 4 can be read")
    if degree >= len(_HARMONICS):
        raise InputError(f"{path}: harmonic degree {degree}; 0 to 4 can be read")
    rest = _HARMONICS[degree]
    check_room(count, str(path), harmonics=rest + 1)
    sizes = [6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3, 3 * rest]
    parts = _streams(path, data, count, sizes, streams) if version == 4 else _slices(path, data, count, sizes)
    position, alpha, colour, scale, rotation, harmonic = parts
    if version == 1:
        means = position.reshape(count, 6).view("<f2").astype(np.float64)
    else:
        b = position.reshape(count, 3, 3).astype(np.int32)
        fixed = b[..., 0] | (b[..., 1] << 8) | (b[..., 2] << 16)
        means = ((fixed ^ 0x800000) - 0x800000).astype(np.float64) / float(1 << min(fraction, 23))
    opacity = np.clip(alpha.astype(np.float64) / 255.0, 1e-6, 1 - 1e-6)
    harmonics = np.empty((count, rest + 1, 3), np.float32)
    harmonics[:, 0] = (colour.reshape(count, 3) / 255.0 - 0.5) / _COLOUR
    harmonics[:, 1:] = (harmonic.reshape(count, rest, 3).astype(np.float32) - 128.0) / 128.0
    quaternions = _smallest_three(rotation) if version >= 3 else _first_three(rotation.reshape(count, 3))
    return Gaussians(
        means,
        scale.reshape(count, 3) / 16.0 - 10.0,
        quaternions,
        np.log(opacity / (1 - opacity)),
        harmonics,
    ).check(str(path))


def spz_bytes(gaussians: Gaussians, *, fractional_bits: int | None = None, harmonic_bits: int = 8) -> bytes:
    """An SPZ file, version 3.

    Args:
        fractional_bits: of a coordinate; the finest that the scene's size allows when None (at most 20).
        harmonic_bits: 8 keeps all that the format holds; the format's own tools keep 5 and 4 for smaller files.
    """
    if gaussians.degree > 4:
        raise InputError(f"SPZ holds harmonics up to degree 4 and these have {gaussians.degree}")
    reach = float(np.abs(gaussians.means).max(initial=0.0))
    if fractional_bits is None:
        fractional_bits = min(20, 23 - max(0, math.ceil(math.log2(reach + 1e-9) + 1e-6)))
    if not 0 <= fractional_bits <= 23 or reach * 2**fractional_bits > 2**23 - 1:
        raise InputError(f"coordinates up to {reach:g} do not fit 24 bits with {fractional_bits} after the point")
    n = len(gaussians)
    fixed = np.rint(gaussians.means.astype(np.float64) * 2**fractional_bits).astype(np.int32)
    position = np.stack([fixed & 255, (fixed >> 8) & 255, (fixed >> 16) & 255], axis=-1).astype(np.uint8)
    alpha = _byte(gaussians.opacities * 255.0)
    colour = _byte((gaussians.harmonics[:, 0] * _COLOUR + 0.5) * 255.0)
    scale = _byte((gaussians.log_scales + 10.0) * 16.0)
    bucket = 1 << (8 - harmonic_bits)
    steps = np.rint(gaussians.harmonics[:, 1:] * 128.0) + 128.0
    harmonic = np.clip((steps + bucket // 2) // bucket * bucket, 0, 255).astype(np.uint8)
    header = struct.pack("<IIIBBBB", _MAGIC, 3, n, gaussians.degree, fractional_bits, 0, 0)
    body = b"".join(a.tobytes() for a in (position, alpha, colour, scale, _pack_rotation(gaussians), harmonic))
    return gzip.compress(header + body, compresslevel=6, mtime=0)


def colour_limits() -> tuple[float, float]:
    """Lowest and highest base colour that SPZ can hold, as a shade where 0 is black and 1 white."""
    return 0.5 - 0.5 / _COLOUR * SH_C0, 0.5 + 0.5 / _COLOUR * SH_C0


def _byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _gunzip(path: Path, data: bytes) -> bytes:
    # The first 16 bytes say how much there may be, so that a bomb is never blown up.
    try:
        inflater = zlib.decompressobj(31)
        head = inflater.decompress(data, 16)
        if len(head) < 16:
            raise InputError(f"{path}: cut off inside the header")
        _, version, count, degree = struct.unpack_from("<IIIB", head)
        rest = _HARMONICS[degree] if degree < len(_HARMONICS) else 0
        check_room(count, str(path), harmonics=rest + 1)
        limit = count * ((6 if version == 1 else 9) + 7 + (4 if version >= 3 else 3) + 3 * rest)
        body = inflater.decompress(inflater.unconsumed_tail, limit + 4096)
    except zlib.error as error:
        raise InputError(f"{path}: the compressed bytes are damaged ({error})") from error
    if not inflater.eof and not inflater.unconsumed_tail:
        raise InputError(f"{path}: the compressed bytes are cut off")
    return head + body


def _slices(path: Path, data: bytes, count: int, sizes: list[int]) -> list[np.ndarray]:
    if len(data) < 16 + count * sum(sizes):
        raise InputError(
            f"{path}: the header promises {count} splats ({16 + count * sum(sizes)} bytes) and {len(data)} are there"
        )
    parts = []
    at = 16
    for size in sizes:
        parts.append(np.frombuffer(data, np.uint8, count * size, at))
        at += count * size
    return parts


def _streams(path: Path, data: bytes, count: int, sizes: list[int], streams: int) -> list[np.ndarray]:
    import zstandard

    table = struct.unpack_from("<I", data, 16)[0] if len(data) >= 32 else 0
    wanted = [size for size in sizes if size * count]
    if table < 32 or streams != len(wanted) or table + 16 * streams > len(data):
        raise InputError(f"{path}: {streams} attribute streams where {len(wanted)} belong, or the file is cut off")
    at = table + 16 * streams
    parts = []
    index = 0
    for size in sizes:
        if not size * count:
            parts.append(np.zeros(0, np.uint8))
            continue
        packed, plain = struct.unpack_from("<QQ", data, table + 16 * index)
        index += 1
        if at + packed > len(data) or plain != size * count:
            raise InputError(f"{path}: attribute stream {index} is cut off or of the wrong size")
        try:
            raw = zstandard.ZstdDecompressor().decompress(data[at : at + packed], max_output_size=plain)
        except zstandard.ZstdError as error:
            raise InputError(f"{path}: attribute stream {index} is damaged ({error})") from error
        if len(raw) != plain:
            raise InputError(f"{path}: attribute stream {index} holds {len(raw)} bytes instead of {plain}")
        parts.append(np.frombuffer(raw, np.uint8))
        at += packed
    return parts


def _first_three(rotation: np.ndarray) -> np.ndarray:
    xyz = rotation.astype(np.float32) / 127.5 - 1.0
    w = np.sqrt(np.maximum(0.0, 1.0 - (xyz**2).sum(axis=1, keepdims=True)))
    return np.concatenate([w, xyz], axis=1)


def _smallest_three(rotation: np.ndarray) -> np.ndarray:
    words = rotation.view("<u4").astype(np.int64)
    n = len(words)
    largest = words >> 30
    xyzw = np.zeros((n, 4), np.float64)
    shift = np.zeros(n, np.int64)
    for axis in (3, 2, 1, 0):
        stored = largest != axis
        field = words >> shift
        value = (field & 511) / 511.0 * math.sqrt(0.5) * np.where(field & 512, -1.0, 1.0)
        xyzw[:, axis] = np.where(stored, value, 0.0)
        shift += np.where(stored, 10, 0)
    missing = np.sqrt(np.maximum(0.0, 1.0 - (xyzw**2).sum(axis=1)))
    xyzw[np.arange(n), largest] = missing
    return xyzw[:, [3, 0, 1, 2]].astype(np.float32)


def _pack_rotation(gaussians: Gaussians) -> np.ndarray:
    q = gaussians.quaternions / np.linalg.norm(gaussians.quaternions, axis=1, keepdims=True).clip(1e-30)
    xyzw = q[:, [1, 2, 3, 0]].astype(np.float64)
    largest = np.abs(xyzw).argmax(axis=1)
    xyzw *= np.where(np.take_along_axis(xyzw, largest[:, None], axis=1) < 0, -1.0, 1.0)
    words = largest.astype(np.uint32)
    for axis in range(4):
        magnitude = np.minimum(511, np.rint(np.abs(xyzw[:, axis]) / math.sqrt(0.5) * 511.0)).astype(np.uint32)
        field = magnitude | np.where(xyzw[:, axis] < 0, np.uint32(512), np.uint32(0)).astype(np.uint32)
        words = np.where(largest != axis, (words << np.uint32(10)) | field, words).astype(np.uint32)
    return words.astype("<u4")

"""PLY: any scalar property by its name, in text or either byte order; 3DGS splats, packed splats, points and meshes.

The packed layout (256 splats a chunk, 4 words a splat) is the one that PlayCanvas tools write.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.limits import check_room
from isometry.scenes.gaussians import SH_C0, Gaussians

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_HEADER_LIMIT = 1 << 16
_SPLAT = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2")


@dataclass(frozen=True)
class PlyFile:
    """A parsed file: `elements[name]` is a structured array; `faces` are polygons cut into triangles `(m, 3)` int64."""

    path: Path
    elements: dict[str, np.ndarray]
    faces: np.ndarray | None

    def columns(self, element: str, names: tuple[str, ...]) -> np.ndarray:
        """Some properties of an element as `(n, len(names))` float32; a missing one is an InputError."""
        table = self.elements.get(element)
        if table is None:
            raise InputError(f"{self.path}: there is no '{element}' in this PLY; it holds {', '.join(self.elements)}")
        missing = [name for name in names if name not in (table.dtype.names or ())]
        if missing:
            raise InputError(f"{self.path}: '{element}' lacks {', '.join(missing)}; is this a file of Gaussian splats?")
        return np.stack([table[name].astype(np.float32) for name in names], axis=1)


def read_ply(path: str | Path) -> PlyFile:
    """Parse a PLY file; the header's counts are checked against the file's size before anything is allocated.

    Raises:
        InputError: not a PLY, an unknown type, or fewer bytes than the header promises.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_HEADER_LIMIT)
        end = start.find(b"end_header")
        newline = start.find(b"\n", end)
        if not start.startswith(b"ply") or end < 0 or newline < 0:
            raise InputError(f"{path}: this is not a PLY file (no 'ply' at the start or no 'end_header')")
        encoding, layout = _parse_header(path, start[:end].decode("ascii", "replace"))
        stream.seek(newline + 1)
        if encoding == "ascii":
            return _read_text(path, stream.read().decode("ascii", "replace"), layout)
        order = "<" if encoding == "binary_little_endian" else ">"
        elements: dict[str, np.ndarray] = {}
        faces = None
        for name, count, properties in layout:
            left = size - stream.tell()
            if any(kind == "list" for _, kind, _ in properties):
                faces = _read_lists(path, stream.read(), name, count, properties, order)
                break  # lists have no fixed size: whatever follows them is not needed by anyone here
            dtype = np.dtype([(prop, order + kind) for prop, kind, _ in properties])
            if count * dtype.itemsize > left:
                raise InputError(
                    f"{path}: the header promises {count} of '{name}' ({count * dtype.itemsize} bytes) and {left} "
                    "bytes are left; the file is cut off"
                )
            elements[name] = np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype)
    return PlyFile(path, elements, faces)


def read_splat_ply(path: str | Path) -> Gaussians:
    """Gaussians of a PLY in the reference layout (any harmonic degree) or the packed one, by property names."""
    ply = read_ply(path)
    vertex = ply.elements.get("vertex")
    if vertex is None:
        raise InputError(f"{path}: there is no 'vertex' in this PLY")
    names = vertex.dtype.names or ()
    if "packed_position" in names:
        return _unpack(ply).check(str(path))
    missing = [name for name in _SPLAT if name not in names]
    if missing:
        raise InputError(f"{path}: 'vertex' lacks {', '.join(missing)}; is this a file of Gaussian splats?")
    check_room(len(vertex), str(path), harmonics=_rest_count(path, names) // 3 + 1)
    rest = _rest_count(path, names)
    harmonics = np.empty((len(vertex), rest // 3 + 1, 3), np.float32)
    harmonics[:, 0] = ply.columns("vertex", ("f_dc_0", "f_dc_1", "f_dc_2"))
    if rest:
        channels = ply.columns("vertex", tuple(f"f_rest_{i}" for i in range(rest)))
        harmonics[:, 1:] = channels.reshape(len(vertex), 3, rest // 3).transpose(0, 2, 1)
    return Gaussians(
        ply.columns("vertex", ("x", "y", "z")),
        ply.columns("vertex", ("scale_0", "scale_1", "scale_2")),
        ply.columns("vertex", ("rot_0", "rot_1", "rot_2", "rot_3")),
        vertex["opacity"].astype(np.float32),
        harmonics,
    ).check(str(path))


def splat_ply_bytes(gaussians: Gaussians) -> bytes:
    """The reference layout: float32, normals of zero, harmonics channel by channel. Reading it back is exact."""
    rest = (gaussians.harmonics.shape[1] - 1) * 3
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(rest)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    n = len(gaussians)
    table = np.concatenate(
        [
            gaussians.means,
            np.zeros((n, 3), np.float32),
            gaussians.harmonics[:, 0],
            gaussians.harmonics[:, 1:].transpose(0, 2, 1).reshape(n, rest),
            gaussians.logits[:, None],
            gaussians.log_scales,
            gaussians.quaternions,
        ],
        axis=1,
    ).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    header += [f"property float {name}" for name in names]
    return ("\n".join([*header, "end_header"]) + "\n").encode() + table.tobytes()


def _parse_header(path: Path, text: str) -> tuple[str, list[tuple[str, int, list[tuple[str, str, str]]]]]:
    encoding = ""
    layout: list[tuple[str, int, list[tuple[str, str, str]]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0] in {"ply", "comment", "obj_info"}:
            continue
        if words[0] == "format" and len(words) == 3:
            encoding = words[1]
        elif words[0] == "element" and len(words) == 3 and words[2].isdigit():
            layout.append((words[1], int(words[2]), []))
        elif words[0] == "property" and layout and len(words) == 3 and words[1] in _TYPES:
            layout[-1][2].append((words[2], _TYPES[words[1]], ""))
        elif words[0] == "property" and layout and len(words) == 5 and words[1] == "list":
            if words[2] not in _TYPES or words[3] not in _TYPES:
                raise InputError(f"{path}, header line {number}: unknown type in '{line.strip()}'")
            layout[-1][2].append((words[4], "list", _TYPES[words[2]] + _TYPES[words[3]]))
        else:
            raise InputError(f"{path}, header line {number}: cannot be understood: '{line.strip()[:80]}'")
    if encoding not in {"ascii", "binary_little_endian", "binary_big_endian"}:
        raise InputError(f"{path}: unknown PLY format '{encoding}'")
    for name, _, properties in layout:
        seen = [prop for prop, _, _ in properties]
        if len(set(seen)) != len(seen):
            raise InputError(f"{path}: '{name}' has a property twice in the header")
    return encoding, layout


def _read_text(path: Path, text: str, layout: list) -> PlyFile:
    lines = text.split("\n")
    elements: dict[str, np.ndarray] = {}
    faces = None
    at = 0
    for name, count, properties in layout:
        rows = [line.split() for line in lines[at : at + count]]
        at += count
        if len(rows) < count or (rows and not rows[-1]):
            raise InputError(f"{path}: the header promises {count} of '{name}' and the file is cut off")
        try:
            if any(kind == "list" for _, kind, _ in properties):
                faces = _fan([[int(value) for value in row[1 : 1 + int(row[0])]] for row in rows])
                continue
            dtype = np.dtype([(prop, kind) for prop, kind, _ in properties])
            elements[name] = np.array([tuple(map(float, row)) for row in rows], dtype=dtype)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}: a row of '{name}' is not what the header promises: {error}") from error
    return PlyFile(path, elements, faces)


def _read_lists(path: Path, data: bytes, name: str, count: int, properties: list, order: str) -> np.ndarray | None:
    if name != "face" or properties[0][1] != "list":
        return None
    kinds = properties[0][2]
    size_type, value_type = np.dtype(order + kinds[:2]), np.dtype(order + kinds[2:])
    tail = sum(np.dtype(kind).itemsize for _, kind, _ in properties[1:] if kind != "list")
    polygons = []
    at = 0
    for _ in range(count):
        if at + size_type.itemsize > len(data):
            raise InputError(f"{path}: the header promises {count} faces and the file is cut off")
        length = int(np.frombuffer(data, size_type, 1, at)[0])
        at += size_type.itemsize
        if length < 0 or at + length * value_type.itemsize > len(data):
            raise InputError(f"{path}: the header promises {count} faces and the file is cut off")
        polygons.append(np.frombuffer(data, value_type, length, at).tolist())
        at += length * value_type.itemsize + tail
    return _fan(polygons)


def _fan(polygons: list[list[int]]) -> np.ndarray:
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _rest_count(path: str | Path, names: tuple[str, ...]) -> int:
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest % 3 or math.isqrt(rest // 3 + 1) ** 2 != rest // 3 + 1:
        raise InputError(f"{path}: {rest} values of f_rest are no whole harmonic degree (0, 9, 24, 45 or 72 are)")
    return rest


def _bits(words: np.ndarray, shift: int, count: int) -> np.ndarray:
    mask = (1 << count) - 1
    return ((words >> np.uint32(shift)) & np.uint32(mask)).astype(np.float32) / np.float32(mask)


def _unpack(ply: PlyFile) -> Gaussians:
    vertex = ply.elements["vertex"]
    n = len(vertex)
    chunk_of = np.arange(n) // 256
    chunks = ply.elements.get("chunk")
    if chunks is None or len(chunks) * 256 < n:
        raise InputError(
            f"{ply.path}: {n} packed splats need {-(-n // 256)} chunks and "
            f"{0 if chunks is None else len(chunks)} are there"
        )
    check_room(n, str(ply.path), harmonics=16)

    def lerp(packed: np.ndarray, what: str, axes: str) -> np.ndarray:
        low = ply.columns("chunk", tuple(f"min_{what}{axis}" for axis in axes))[chunk_of]
        high = ply.columns("chunk", tuple(f"max_{what}{axis}" for axis in axes))[chunk_of]
        return low + packed * (high - low)

    def three(words: np.ndarray) -> np.ndarray:
        return np.stack([_bits(words, 21, 11), _bits(words, 11, 10), _bits(words, 0, 11)], axis=1)

    position, rotation, scale, colour = (
        vertex[f"packed_{name}"].astype(np.uint32) for name in ("position", "rotation", "scale", "color")
    )
    small = (np.stack([_bits(rotation, s, 10) for s in (20, 10, 0)], axis=1) - 0.5) * math.sqrt(2)
    largest = (rotation >> np.uint32(30)).astype(np.int64)
    quaternions = np.empty((n, 4), np.float32)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    np.put_along_axis(quaternions, others, small, axis=1)
    root = np.sqrt(np.maximum(0.0, 1.0 - (small**2).sum(axis=1, dtype=np.float32)))
    np.put_along_axis(quaternions, largest[:, None], root[:, None], axis=1)
    rgb = np.stack([_bits(colour, s, 8) for s in (24, 16, 8)], axis=1)
    if "min_r" in (chunks.dtype.names or ()):
        rgb = lerp(rgb, "", "rgb")
    alpha = np.clip(_bits(colour, 0, 8).astype(np.float64), 1e-6, 1 - 1e-6)
    harmonics = ((rgb - 0.5) / SH_C0)[:, None, :]
    extra = ply.elements.get("sh")
    if extra is not None:
        rest = _rest_count(ply.path, extra.dtype.names or ())
        if len(extra) != n:
            raise InputError(f"{ply.path}: {n} splats and {len(extra)} rows of harmonics")
        values = ply.columns("sh", tuple(f"f_rest_{i}" for i in range(rest)))
        unit = np.where(values == 0, 0.0, np.where(values == 255, 1.0, (values + 0.5) / 256.0))
        rest_harmonics = ((unit - 0.5) * 8.0).reshape(n, 3, rest // 3).transpose(0, 2, 1)
        harmonics = np.concatenate([harmonics, rest_harmonics], axis=1)
    return Gaussians(
        lerp(three(position), "", "xyz"),
        lerp(three(scale), "scale_", "xyz"),
        quaternions,
        np.log(alpha / (1 - alpha)),
        harmonics,
    )

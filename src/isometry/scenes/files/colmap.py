"""COLMAP models, text or binary: cameras, poses and sparse points."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.cameras import Camera, Capture
from isometry.scenes.gaussians import rotation_matrices

# model number -> (name, number of parameters)
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12),
}  # fmt: skip
_USABLE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")


def read_colmap(folder: str | Path, images: str | Path) -> Capture:
    """Cameras and points of a COLMAP model folder; `images` is the folder that the picture names start from.

    Raises:
        InputError: a cut-off file, an unknown or fish-eye camera model, a picture that is not there, no pictures.
    """
    folder, images = Path(folder), Path(images)
    binary = (folder / "cameras.bin").is_file()
    kinds = _binary_cameras(folder / "cameras.bin") if binary else _text_cameras(folder / "cameras.txt")
    poses = _binary_images(folder / "images.bin") if binary else _text_images(folder / "images.txt")
    if not poses:
        raise InputError(f"{folder}: the model has no pictures")
    cameras = []
    for name, camera_id, quaternion, translation in poses:
        where = f"{folder}, picture '{name}'"
        if camera_id not in kinds:
            raise InputError(f"{where}: it names camera {camera_id}, which the model does not have")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{where}: the name leads out of the picture folder")
        if not (images / name).is_file():
            raise InputError(f"{where}: there is no such file in '{images}'")
        if not np.linalg.norm(quaternion) > 0:
            raise InputError(f"{where}: its rotation is a zero quaternion")
        model, width, height, p = kinds[camera_id]
        rotation = rotation_matrices(np.array([quaternion]))[0]
        focal, centre, distortion = _parameters(model, p)
        cameras.append(
            Camera(width, height, *focal, *centre, rotation, np.array(translation), distortion, images / name, name)
        )
    points = _binary_points(folder / "points3D.bin") if binary else _text_points(folder / "points3D.txt")
    xyz, rgb = points if points is not None else (None, None)
    return Capture(sorted(cameras, key=lambda camera: camera.name), xyz, rgb)


def _parameters(
    model: str, p: list[float]
) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float, float, float]]:
    if model == "SIMPLE_PINHOLE":
        return (p[0], p[0]), (p[1], p[2]), (0.0, 0.0, 0.0, 0.0)
    if model == "PINHOLE":
        return (p[0], p[1]), (p[2], p[3]), (0.0, 0.0, 0.0, 0.0)
    if model == "SIMPLE_RADIAL":
        return (p[0], p[0]), (p[1], p[2]), (p[3], 0.0, 0.0, 0.0)
    if model == "RADIAL":
        return (p[0], p[0]), (p[1], p[2]), (p[3], p[4], 0.0, 0.0)
    return (p[0], p[1]), (p[2], p[3]), (p[4], p[5], p[6], p[7])


def _check_model(path: Path, model: str) -> None:
    if model not in _USABLE:
        raise InputError(
            f"{path}: camera model {model} is not a pinhole; undistort the pictures first "
            f"({', '.join(_USABLE)} can be read)"
        )


class _Bytes:
    """A cursor over a file that says where it ran out."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"there is no '{path}'")
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.data):
            raise InputError(f"{self.path}: cut off at byte {self.at} of {len(self.data)}")
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += size
        return values

    def skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise InputError(f"{self.path}: cut off at byte {self.at} of {len(self.data)}")
        self.at += size

    def count(self, smallest: int) -> int:
        (count,) = self.take("Q")
        if count * smallest > len(self.data) - self.at:
            raise InputError(f"{self.path}: it promises {count} entries and has {len(self.data) - self.at} bytes left")
        return count

    def name(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise InputError(f"{self.path}: cut off inside a name at byte {self.at}")
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text


def _binary_cameras(path: Path) -> dict:
    data = _Bytes(path)
    found = {}
    for _ in range(data.count(24)):
        camera_id, number, width, height = data.take("iiQQ")
        if number not in _MODELS:
            raise InputError(f"{path}: camera {camera_id} has the unknown model number {number}")
        model, size = _MODELS[number]
        _check_model(path, model)
        found[camera_id] = (model, width, height, list(data.take("d" * size)))
    return found


def _binary_images(path: Path) -> list:
    data = _Bytes(path)
    found = []
    for _ in range(data.count(73)):
        values = data.take("i7di")
        name = data.name()
        (points,) = data.take("Q")
        data.skip(24 * points)
        found.append((name, values[8], values[1:5], values[5:8]))
    return found


def _binary_points(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    if not path.is_file():
        return None
    data = _Bytes(path)
    xyz, rgb = [], []
    for _ in range(data.count(51)):
        values = data.take("Q3d3Bd")
        (track,) = data.take("Q")
        data.skip(8 * track)
        xyz.append(values[1:4])
        rgb.append(values[4:7])
    return np.array(xyz, np.float64).reshape(-1, 3), np.array(rgb, np.float64).reshape(-1, 3) / 255.0


def _lines(path: Path) -> list[tuple[int, str]]:
    if not path.is_file():
        raise InputError(f"there is no '{path}'")
    text = path.read_text(encoding="utf-8", errors="replace")
    return [(n, line) for n, line in enumerate(text.splitlines(), start=1) if not line.startswith("#")]


def _text_cameras(path: Path) -> dict:
    found = {}
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            camera_id, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            parameters = [float(word) for word in words[4:]]
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}, line {number}: not a camera: {error}") from error
        _check_model(path, model)
        size = next(size for name, size in _MODELS.values() if name == model)
        if len(parameters) != size:
            raise InputError(f"{path}, line {number}: {model} has {size} parameters and {len(parameters)} are given")
        found[camera_id] = (model, width, height, parameters)
    return found


def _text_images(path: Path) -> list:
    found = []
    lines = _lines(path)
    while lines and not lines[-1][1].strip():
        lines.pop()
    for number, line in lines[::2]:  # every second line lists the points seen, and may be empty
        words = line.split(maxsplit=9)
        try:
            values = [float(word) for word in words[1:8]]
            found.append((words[9].strip(), int(words[8]), values[:4], values[4:]))
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}, line {number}: not a picture's pose: {error}") from error
    return found


def _text_points(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    if not path.is_file():
        return None
    rows = []
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words[1:7]])
            if len(rows[-1]) != 6:
                raise ValueError("fewer than 7 values")
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not a point: {error}") from error
    table = np.array(rows, np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:] / 255.0

"""`transforms.json`, as instant-ngp and nerfstudio write it: camera to world, y up and z towards the viewer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.cameras import Camera, Capture
from isometry.scenes.files.pictures import picture_size

_LIMIT = 64 << 20


def read_transforms(path: str | Path) -> Capture:
    """Cameras of a transforms.json; a picture that is not there is an InputError that names it.

    Focal lengths come from fl_x and fl_y (per frame or for all) or from camera_angle_x; sizes from w and h or from the
    picture. Points come from `ply_file_path` where it is given.
    """
    path = Path(path)
    if path.stat().st_size > _LIMIT:
        raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a list of cameras")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: there are no 'frames' in this file")
    cameras = [_camera(path, number, frame, document) for number, frame in enumerate(frames, start=1)]
    points = colours = None
    if isinstance(document.get("ply_file_path"), str):
        from isometry.scenes.files.points import read_points

        points, colours = read_points(path.parent / document["ply_file_path"])
    return Capture(sorted(cameras, key=lambda camera: camera.name), points, colours)


def _camera(path: Path, number: int, frame: Any, document: dict) -> Camera:
    where = f"{path}, frame {number}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise InputError(f"{where}: it has no 'file_path'")
    image = path.parent / frame["file_path"]
    if not image.is_file():
        image = next((image.with_name(image.name + end) for end in (".png", ".jpg", ".jpeg")
                      if image.with_name(image.name + end).is_file()), image)  # fmt: skip
    if not image.is_file():
        raise InputError(f"{where}: there is no picture '{image}'")
    try:
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape not in {(4, 4), (3, 4)} or not np.isfinite(matrix).all():
        raise InputError(f"{where}: 'transform_matrix' must be 4 rows of 4 finite numbers")

    def value(key: str, otherwise: float) -> float:
        found = frame.get(key, document.get(key, otherwise))
        if not isinstance(found, (int, float)):
            raise InputError(f"{where}: '{key}' must be a number and is {found!r}")
        return float(found)

    width, height = value("w", 0), value("h", 0)
    if not width or not height:
        width, height = picture_size(image)
    fx, angle = value("fl_x", 0), value("camera_angle_x", 0)
    if not fx:
        if not 0 < angle < math.pi:
            raise InputError(f"{where}: neither 'fl_x' nor a usable 'camera_angle_x' is given")
        fx = width / 2 / math.tan(angle / 2)
    fy = value("fl_y", fx)
    rotation = matrix[:3, :3].copy()
    rotation /= np.linalg.norm(rotation, axis=0).clip(1e-12)
    rotation[:, 1:] *= -1
    rotation = rotation.T
    terms = (value("k1", 0), value("k2", 0), value("p1", 0), value("p2", 0))
    centre = (value("cx", width / 2), value("cy", height / 2))
    translation = -rotation @ matrix[:3, 3]
    name = Path(frame["file_path"]).name
    return Camera(int(width), int(height), fx, fy, *centre, rotation, translation, terms, image, name)

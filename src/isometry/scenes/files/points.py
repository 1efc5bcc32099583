"""Coloured points and triangle meshes: PLY and Wavefront OBJ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.scenes.files.ply import read_ply


def read_points(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Points `(n, 3)` and colours `(n, 3)` within 0..1 (mid grey where the file has none) of a PLY."""
    vertices, colours, _ = read_mesh(path)
    return vertices, colours


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices `(n, 3)`, colours `(n, 3)` within 0..1 and triangles `(m, 3)` int64 of a PLY or OBJ.

    Raises:
        InputError: NaN coordinates, or triangles that name vertices which are not there.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"there is no file '{path}'")
    vertices, colours, triangles = _read_obj(path) if path.suffix.lower() == ".obj" else _read_ply(path)
    if not len(vertices):
        raise InputError(f"{path}: there are no points in this file")
    if not np.isfinite(vertices).all():
        row = int(np.argmin(np.isfinite(vertices).all(axis=1)))
        raise InputError(f"{path}, point {row + 1}: its coordinates are not finite")
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise InputError(f"{path}: a triangle names vertex {int(triangles.max())} of {len(vertices)}")
    return vertices, colours, triangles


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ply = read_ply(path)
    vertices = ply.columns("vertex", ("x", "y", "z"))
    names = ply.elements["vertex"].dtype.names or ()
    colours = np.full((len(vertices), 3), 0.5, np.float32)
    for names_of in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if all(name in names for name in names_of):
            colours = ply.columns("vertex", names_of)
            if ply.elements["vertex"].dtype[names_of[0]].kind in "iu":
                colours = colours / 255.0
    return vertices, np.clip(colours, 0, 1), ply.faces if ply.faces is not None else np.zeros((0, 3), np.int64)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            words = line.split()
            try:
                if words[:1] == ["v"]:
                    values = [float(word) for word in words[1:7]]
                    if len(values) < 3:
                        raise ValueError("fewer than three coordinates")
                    vertices.append(values + [0.5] * (6 - len(values)) if len(values) != 6 else values)
                elif words[:1] == ["f"]:
                    corner = [int(word.split("/")[0]) for word in words[1:]]
                    corner = [c - 1 if c > 0 else len(vertices) + c for c in corner]
                    triangles += [(corner[0], corner[i], corner[i + 1]) for i in range(1, len(corner) - 1)]
            except ValueError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    table = np.array(vertices, np.float32).reshape(-1, 6)
    return table[:, :3], np.clip(table[:, 3:], 0, 1), np.array(triangles, np.int64).reshape(-1, 3)

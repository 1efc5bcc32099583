"""The 32-byte `.splat` layout: position and scale as float32, colour and rotation as bytes, no harmonics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isometry.errors import InputError
from isometry.scenes.files.limits import check_room
from isometry.scenes.gaussians import SH_C0, Gaussians

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("rotation", "u1", 4)])


def read_splat(path: str | Path) -> Gaussians:
    """Gaussians of a .splat file: scales are linear, bytes 128 mean 0 in rotations (w first).

    Raises:
        InputError: where the size is no multiple of 32 bytes, or a scale is not positive.
    """
    path = Path(path)
    size = path.stat().st_size
    if size % _ROW.itemsize:
        raise InputError(f"{path}: {size} bytes are no whole number of 32-byte splats; the file is cut off")
    check_room(size // _ROW.itemsize, str(path), harmonics=1)
    rows = np.fromfile(path, dtype=_ROW)
    if not (rows["scale"] > 0).all():
        row = int(np.argmin((rows["scale"] > 0).all(axis=1)))
        raise InputError(f"{path}, splat {row + 1}: scale {rows['scale'][row].tolist()} is not positive")
    alpha = np.clip(rows["colour"][:, 3] / 255.0, 1e-6, 1 - 1e-6)
    return Gaussians(
        rows["mean"],
        np.log(rows["scale"]),
        (rows["rotation"].astype(np.float32) - 128.0) / 128.0,
        np.log(alpha / (1 - alpha)),
        ((rows["colour"][:, :3] / 255.0 - 0.5) / SH_C0)[:, None, :],
    ).check(str(path))

"""Any splat file by its contents."""

from __future__ import annotations

from pathlib import Path

from isometry.errors import InputError, NotFoundError
from isometry.scenes.files.atomic import write_atomic
from isometry.scenes.files.ply import read_splat_ply, splat_ply_bytes
from isometry.scenes.files.splat import read_splat
from isometry.scenes.files.spz import read_spz, spz_bytes
from isometry.scenes.gaussians import Gaussians


def read_splats(path: str | Path) -> Gaussians:
    """Gaussians of a PLY, packed PLY, SPZ or .splat file: the first bytes decide, then the name.

    Raises:
        NotFoundError: there is no such file. InputError: none of these formats, or a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"there is no splat file '{path}'")
    with path.open("rb") as stream:
        start = stream.read(4)
    if start[:3] == b"ply":
        return read_splat_ply(path)
    if start[:2] == b"\x1f\x8b" or start == b"NGSP":
        return read_spz(path)
    if path.suffix.lower() == ".splat":
        return read_splat(path)
    raise InputError(f"{path}: not a splat file; .ply, .compressed.ply, .spz and .splat can be read")


def write_splats(path: str | Path, gaussians: Gaussians) -> None:
    """Write .ply (exact) or .spz (quantised), by the name, whole or not at all."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".ply", ".spz"}:
        raise InputError(f"{path}: splats are written as .ply or .spz")
    write_atomic(path, splat_ply_bytes(gaussians) if suffix == ".ply" else spz_bytes(gaussians))

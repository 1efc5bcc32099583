"""Poses for photographs that have none, by pycolmap."""

from __future__ import annotations

import tempfile
from pathlib import Path

from isometry.errors import InputError, MissingExtraError
from isometry.scenes.files.cameras import Capture
from isometry.scenes.files.colmap import read_colmap

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def photographs(folder: Path) -> list[Path]:
    """Picture files directly in a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def find_poses(folder: Path) -> Capture:
    """Features, exhaustive matching and incremental mapping; the largest model counts.

    Raises:
        MissingExtraError: pycolmap is not installed. InputError: fewer than three photographs find their places.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise MissingExtraError(f"finding the poses of the photographs in '{folder}'", "recon") from error
    names = [path.name for path in photographs(folder)]
    with tempfile.TemporaryDirectory() as work:
        database = Path(work) / "database.db"
        model = Path(work) / "model"
        model.mkdir()
        options = pycolmap.ImageReaderOptions(camera_model="OPENCV")
        pycolmap.extract_features(database, folder, image_names=names, camera_mode=pycolmap.CameraMode.SINGLE,
                                  reader_options=options)  # fmt: skip
        pycolmap.match_exhaustive(database)
        found = pycolmap.incremental_mapping(database, folder, model)
        if not found:
            raise InputError(
                f"none of the {len(names)} photographs in '{folder}' could be placed: take more, closer together"
            )
        best = max(found.values(), key=lambda one: one.num_reg_images())
        if best.num_reg_images() < 3:
            raise InputError(
                f"only {best.num_reg_images()} of the {len(names)} photographs in '{folder}' could be placed: take more, "
                "closer together"
            )
        best.write_binary(str(model))
        return read_colmap(model, folder)

"""Poses for photographs that have none, by pycolmap."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isometry.errors import InputError, MissingExtraError
from isometry.scenes.files.cameras import Capture
from isometry.scenes.files.colmap import read_colmap
from isometry.scenes.files.pictures import read_picture

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
FOLDER = "poses"
_FEWEST = 3


def photographs(folder: Path) -> list[Path]:
    """Picture files directly in a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def find_poses(
    folder: Path, *, keep: Path | None = None, seed: int = 0, say: Callable[[str], None] | None = None
) -> Capture:
    """Features, exhaustive matching and incremental mapping; the largest model counts.

    Args:
        keep: a folder that receives the model, and gives it back for the same photographs and seed: an interrupted
            build has to go on with the poses it began with.
        say: gets a sentence at the end.

    Raises:
        MissingExtraError: pycolmap is not installed. InputError: a file that is no picture, or fewer than three
            photographs find their places.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise MissingExtraError(f"finding the poses of the photographs in '{folder}'", "recon") from error
    say = say or (lambda sentence: None)
    paths = photographs(folder)
    asked = _fingerprint(paths, seed)
    if keep is not None and (kept := keep / asked).is_dir():
        return read_colmap(kept, folder)
    sizes = {read_picture(path).shape for path in paths}  # damaged ones are named before minutes go into the others
    with tempfile.TemporaryDirectory() as work:
        best = _largest_model(pycolmap, folder, [path.name for path in paths], Path(work), len(sizes) == 1, seed)
        placed = 0 if best is None else best.num_reg_images()
        if best is None or placed < _FEWEST:
            raise InputError(
                f"only {placed} of the {len(paths)} photographs in '{folder}' could be placed: take more, closer together"
            )
        model = Path(work) / "model"
        model.mkdir()
        best.write_binary(str(model))
        capture = read_colmap(model, folder)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            half = Path(tempfile.mkdtemp(dir=keep, prefix="."))
            shutil.copytree(model, half, dirs_exist_ok=True)
            half.rename(keep / asked)
    left = sorted({path.name for path in paths} - {camera.name for camera in capture.cameras})
    without = f"; without {', '.join(left[:5])}{' and others' if len(left) > 5 else ''}" if left else ""
    say(f"{placed} of {len(paths)} photographs are placed, with {best.num_points3D():,} points{without}")
    return capture


def _largest_model(pycolmap: Any, folder: Path, names: list[str], work: Path, one_camera: bool, seed: int) -> Any:
    """The reconstruction with most photographs, or None; `one_camera` where all have the same size."""
    logging, level = pycolmap.logging, pycolmap.logging.minloglevel
    logging.minloglevel = int(logging.Level.FATAL)  # hundreds of lines, and what matters is told by the result
    try:
        pycolmap.set_random_seed(seed)
        database, models = work / "database.db", work / "models"
        models.mkdir()
        mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.AUTO
        pycolmap.extract_features(
            database, folder, image_names=names, camera_mode=mode,
            reader_options=pycolmap.ImageReaderOptions(camera_model="OPENCV"),
        )  # fmt: skip
        pycolmap.match_exhaustive(database)
        found = pycolmap.incremental_mapping(
            database, folder, models, options=pycolmap.IncrementalPipelineOptions(random_seed=seed)
        )
    finally:
        logging.minloglevel = level
    return max(found.values(), key=lambda one: one.num_reg_images(), default=None)


def _fingerprint(paths: list[Path], seed: int) -> str:
    digest = hashlib.sha256(str(seed).encode())
    for path in paths:
        digest.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]

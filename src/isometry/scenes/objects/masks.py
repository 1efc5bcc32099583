"""Masks of objects for the photographs of a scene: a picture of label numbers per photograph, or a folder per object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.scenes.capture.photos import straighten
from isometry.scenes.files.cameras import Camera
from isometry.scenes.files.pictures import read_labels

_ENDINGS = (".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_MOST = 250


def read_masks(folder: str | Path, cameras: tuple[Camera, ...]) -> tuple[list[tuple[Camera, np.ndarray]], list[str]]:
    """Views with labels `(h, w)` int32 (0 is the background) at the cameras' size, and the names of labels 1, 2, ….

    Two layouts: `folder/PHOTO.png` with a number per object in every picture and, where wanted, `names.json`
    ({"1": "red chair"}); or `folder/NAME/PHOTO.png`, white where the object NAME is. PHOTO is the photograph's name
    without its ending; photographs without a mask are left out.

    Raises:
        NotFoundError: no such folder. InputError: no mask fits a photograph, a mask of another shape than its
            photograph, only background, more than 250 objects.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder of masks '{folder}'")
    if not cameras:
        raise InputError("this scene was not built from photographs, so masks have no cameras to fit; select by clicks")
    by_stem = {Path(camera.name).stem: camera for camera in cameras}
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if inner:
        found: dict[str, np.ndarray] = {}
        for number, part in enumerate(inner, start=1):
            for stem, path in _pictures(part, by_stem):
                labels = _fitted(path, by_stem[stem])
                whole = found.setdefault(stem, np.zeros(labels.shape, np.int32))
                whole[labels > 0] = number
        names = [part.name for part in inner]
    else:
        found = {stem: _fitted(path, by_stem[stem]) for stem, path in _pictures(folder, by_stem)}
        values = np.unique(np.concatenate([np.unique(labels) for labels in found.values()])) if found else np.zeros(0)
        values = values[values > 0]
        if len(values) > _MOST:
            raise InputError(
                f"{folder}: {len(values)} different labels are more than {_MOST} objects; are these masks?"
            )
        found = {
            stem: np.searchsorted(values, labels).astype(np.int32) + (labels > 0) for stem, labels in found.items()
        }
        told = _names(folder)
        names = [told.get(str(int(value)), f"object {int(value)}") for value in values]
    if not found:
        raise InputError(
            f"{folder}: no mask is named like a photograph of the scene (as '{next(iter(by_stem))}.png'), in this folder or "
            "in a folder per object"
        )
    if not any(labels.any() for labels in found.values()):
        raise InputError(f"{folder}: all {len(found)} masks are empty: nothing to lift")
    return [(by_stem[stem], labels.astype(np.int32)) for stem, labels in sorted(found.items())], names


def _pictures(folder: Path, by_stem: dict[str, Camera]) -> list[tuple[str, Path]]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    return [(path.stem, path) for path in paths if path.stem in by_stem]


def _fitted(path: Path, camera: Camera) -> np.ndarray:
    labels = read_labels(path)
    height, width = labels.shape
    if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
        raise InputError(
            f"{path}: this mask has {width} x {height} pixels and its photograph the shape of {camera.width} x "
            f"{camera.height}; make masks at the photographs' own size"
        )
    rows = ((np.arange(camera.height) + 0.5) * height / camera.height).astype(np.int64)
    columns = ((np.arange(camera.width) + 0.5) * width / camera.width).astype(np.int64)
    return straighten(labels[np.ix_(rows, columns)], camera, order=0)


def _names(folder: Path) -> dict[str, str]:
    path = folder / "names.json"
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(value)[:200] for key, value in document.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise InputError(f'{path}: names are written as {{"1": "red chair"}}: {error}') from error

"""The objects of a scene as an Isometry collection: name, picture and embedding, found by `isometry search SCENE WORDS`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from isometry.scenes.files.cameras import Camera, look_at
from isometry.scenes.files.pictures import png_bytes
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import render
from isometry.scenes.scene import Scene

FOLDER = "objects"
_SIDE = 224


def object_views(scene: Scene, number: int, *, count: int = 4, side: int = _SIDE) -> list[np.ndarray]:
    """Pictures of one object alone from around it, `(side, side, 3)` float32, the first from where the scene is seen."""
    part = scene.part(scene.objects[number].label)
    low, high = np.percentile(part.means.astype(np.float64), [1, 99], axis=0)
    centre, size = (low + high) / 2, float(np.linalg.norm(high - low)) or 1.0
    up = np.asarray(scene.up, np.float64)
    toward = np.asarray(scene.view[0], np.float64) - centre
    flat = toward - (toward @ up) * up / (up @ up)
    if np.linalg.norm(flat) < 1e-9:
        flat = np.cross(up, [1.0, 0.3, 0.2])
    flat /= np.linalg.norm(flat)
    across = np.cross(up / np.linalg.norm(up), flat)
    pictures = []
    for turn in range(count):
        angle = 2 * np.pi * turn / count
        way = np.cos(angle) * flat + np.sin(angle) * across + 0.4 * up / np.linalg.norm(up)
        camera = _around(centre, way, size, up, side)
        pictures.append(np.clip(render(part, camera, background=(1.0, 1.0, 1.0), near=1e-3 * size).colour, 0, 1))
    return pictures


def _around(centre: np.ndarray, way: np.ndarray, size: float, up: np.ndarray, side: int) -> Camera:
    distance = 0.62 * size / np.tan(np.radians(20)) * way / np.linalg.norm(way)
    return look_at(centre + distance, centre, up=up, width=side, height=side, field_of_view=40)


def index_objects(scene: Scene, folder: str | Path, *, encoder: Any = None) -> Path | None:
    """Write the collection `objects` into a scene's folder, in place of an older one; None where there are no objects.

    Args:
        encoder: takes texts or pictures; None loads the bundled text encoder. One that takes pictures gets the mean of
            its vectors of the object's views, any other the object's name.

    Raises:
        MissingExtraError: no encoder is installed.
    """
    import pyarrow as pa

    from isometry.encoders import load_encoder
    from isometry.search import Collection

    folder = Path(folder)
    final = folder / FOLDER
    if not scene.objects:
        return None
    if encoder is None:
        encoder = load_encoder()
    description = encoder.describe()
    names = [item.name for item in scene.objects]
    views = [object_views(scene, number) for number in range(len(names))]
    records = pa.table(
        {
            "id": [str(item.label) for item in scene.objects],
            "name": names,
            "splats": [int((scene.labels == item.label).sum()) for item in scene.objects],
            "picture": pa.array([png_bytes(pictures[0]) for pictures in views], pa.binary()),
        }
    )
    schema = pa.schema([field for field in records.schema if field.name != "id"])
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{FOLDER}."))
    try:
        made = temporary / FOLDER
        with Collection.create(made, encoder=encoder, schema=schema, text_columns=["name"]) as collection:
            if "image" in description.modalities:
                encoded = np.stack([_mean(encoder, pictures) for pictures in views])
                collection.add(records, vectors=encoded, made_by=description.fingerprint)
            else:
                collection.add(records)
        if final.exists():
            final.rename(temporary / "old")
        made.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _mean(encoder: Any, pictures: list[np.ndarray]) -> np.ndarray:
    vectors = np.asarray(encoder.encode_images([png_bytes(picture) for picture in pictures]), np.float32)
    mean: np.ndarray = vectors.mean(axis=0)
    return mean


def part_name(gaussians: Gaussians) -> str:
    """A plain name by colour for an object that nobody named."""
    red, green, blue = (
        float(v) for v in np.average(gaussians.base_colours, axis=0, weights=gaussians.opacities + 1e-6)
    )
    bright, dark = max(red, green, blue), min(red, green, blue)
    if bright - dark < 0.12:
        return "dark thing" if bright < 0.25 else "white thing" if dark > 0.75 else "grey thing"
    if red == bright:
        return "yellow thing" if green > 0.75 * red else "red thing"
    return "green thing" if green == bright else "blue thing"

"""A scene on disk: splats, which object each belongs to, and what physics needs to know. Lengths are metres.

Folder: `scene.json` (format 1), `splats.ply` or `splats.spz`, `labels.npy`, and `cameras.json` where the scene comes from
photographs. Checksums of the files stand in the JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError, ExistsError, InputError, NotFoundError
from isometry.scenes.files.cameras import Camera
from isometry.scenes.files.ply import splat_ply_bytes
from isometry.scenes.files.splats import read_splats
from isometry.scenes.files.spz import spz_bytes
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.physics.materials import PRESETS, Material

FORMAT = 1
_OBJECTS = 250  # the page keeps an object's number in a byte


@dataclass(frozen=True)
class SceneObject:
    """Something that can be grabbed.

    Args:
        name: shown and searched.
        label: the number its Gaussians carry in `labels`, from 1.
        material: what it is made of.
        vertices: about how many its cage shall have.
        mesher: of the cage, as in `object_cage`.
    """

    name: str
    label: int
    material: Material = PRESETS["jelly"]
    vertices: int = 700
    mesher: str = "lattice"


@dataclass(frozen=True)
class Scene:
    """Splats and their meaning.

    Args:
        name: of the scene.
        gaussians: everything, in metres, y up unless `up` says otherwise.
        labels: `(n,)` uint16, 0 for what stands still, else the label of an object.
        up: direction against gravity.
        plane: floor (normal, offset) or None.
        light: where the light stands.
        view: position, target (3 each) and vertical field of view in degrees, to start with.
        collision_cell: spacing of the grid of distances to what stands still, metres.
        notes: where it comes from.
        cameras: of the photographs it was built from, in the scene's frame.
    """

    name: str
    gaussians: Gaussians
    labels: np.ndarray
    objects: tuple[SceneObject, ...] = ()
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    plane: tuple[float, float, float, float] | None = None
    light: tuple[float, float, float] = (1.0, 4.0, 1.5)
    view: tuple[tuple[float, float, float], tuple[float, float, float], float] = ((0, 1, 3), (0, 0.5, 0), 45.0)
    collision_cell: float = 0.02
    notes: tuple[str, ...] = field(default=())
    cameras: tuple[Camera, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        labels = np.ascontiguousarray(self.labels, np.uint16)
        object.__setattr__(self, "labels", labels)
        if labels.shape != (len(self.gaussians),):
            raise InputError(
                f"scene '{self.name}': {len(self.gaussians)} splats need as many labels, not {labels.shape}"
            )
        if len(self.objects) > _OBJECTS:
            raise InputError(f"scene '{self.name}': {len(self.objects)} objects are more than the {_OBJECTS} allowed")
        numbers = [*self.up, *self.light, *self.view[0], *self.view[1], self.view[2], self.collision_cell]
        numbers += self.plane or ()
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
            raise InputError(f"scene '{self.name}': up, light, view, plane and collision_cell must be finite numbers")
        if not self.collision_cell > 0 or not np.linalg.norm(self.up) > 0:
            raise InputError(f"scene '{self.name}': collision_cell must be above 0 and up a direction, not all zero")
        names = [item.name for item in self.objects]
        if len(set(names)) != len(names):
            raise InputError(f"scene '{self.name}': two objects have the same name")
        for item in self.objects:
            if not (labels == item.label).any() or item.label == 0:
                raise InputError(f"scene '{self.name}': object '{item.name}' has no splats (label {item.label})")

    def part(self, label: int) -> Gaussians:
        """The Gaussians of a label."""
        return self.gaussians.select(self.labels == label)

    def number(self, name: str) -> int:
        """Position of an object in `objects` by its name."""
        for number, item in enumerate(self.objects):
            if item.name == name:
                return number
        raise NotFoundError(f"scene '{self.name}' has no object '{name}'; it has {[o.name for o in self.objects]}")

    def with_objects(self, objects: tuple[SceneObject, ...], labels: np.ndarray) -> Scene:
        return replace(self, objects=objects, labels=labels)


def save_scene(scene: Scene, path: str | Path, *, compact: bool = False) -> Path:
    """Write a scene folder, whole or not at all. `compact` stores SPZ (quantised, small) instead of exact PLY.

    Raises:
        ExistsError: something is there already.
    """
    path = Path(path)
    if path.exists():
        raise ExistsError(f"'{path}' exists already: choose another folder or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    splats = "splats.spz" if compact else "splats.ply"
    labels = io.BytesIO()
    np.save(labels, scene.labels, allow_pickle=False)
    files = {
        splats: spz_bytes(scene.gaussians) if compact else splat_ply_bytes(scene.gaussians),
        "labels.npy": labels.getvalue(),
    }
    if scene.cameras:
        files["cameras.json"] = json.dumps([_camera_row(camera) for camera in scene.cameras], indent=1).encode()
    document = {
        "format": FORMAT,
        "name": scene.name,
        "unit": "metre",
        "up": list(scene.up),
        "plane": list(scene.plane) if scene.plane else None,
        "light": list(scene.light),
        "view": {"position": list(scene.view[0]), "target": list(scene.view[1]), "field_of_view": scene.view[2]},
        "collision_cell": scene.collision_cell,
        "notes": list(scene.notes),
        "objects": [asdict(item) for item in scene.objects],
        "splats": splats,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files["scene.json"] = (json.dumps(document, indent=1) + "\n").encode()
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, data in files.items():
            with (temporary / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def load_scene(path: str | Path) -> Scene:
    """Read a scene folder.

    Raises:
        NotFoundError: no such folder, or no scene in it. InputError: a damaged or newer description.
        CorruptionError: a file is not what was written.
    """
    path = Path(path)
    if not (path / "scene.json").is_file():
        raise NotFoundError(f"there is no scene in '{path}' (no scene.json); make one with 'isometry scene build'")
    try:
        document = json.loads((path / "scene.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InputError(
                f"{path}: format {document['format']} of scenes is unknown here; this version reads {FORMAT}"
            )
        for name in (
            document["splats"],
            "labels.npy",
            *(["cameras.json"] if "cameras.json" in document["files"] else []),
        ):
            _check_file(path, name, document["files"])
        cameras: tuple[Camera, ...] = ()
        if "cameras.json" in document["files"]:
            rows = json.loads((path / "cameras.json").read_text(encoding="utf-8"))
            cameras = tuple(_camera(row) for row in rows)
        objects = tuple(
            SceneObject(
                str(o["name"]),
                int(o["label"]),
                Material(**o["material"]),
                int(o["vertices"]),
                str(o.get("mesher", "lattice")),
            )
            for o in document["objects"]
        )
        view = document["view"]
        labels = np.load(path / "labels.npy", allow_pickle=False)
        return Scene(
            str(document["name"]),
            read_splats(path / document["splats"]),
            labels,
            objects,
            tuple(document["up"]),
            tuple(document["plane"]) if document["plane"] else None,
            tuple(document["light"]),
            (tuple(view["position"]), tuple(view["target"]), float(view["field_of_view"])),
            float(document["collision_cell"]),
            tuple(document["notes"]),
            cameras,
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: scene.json is damaged: {error!r}") from error


def _camera_row(camera: Camera) -> dict[str, Any]:
    return {
        "name": camera.name,
        "image": str(camera.image.resolve()) if camera.image else None,
        "size": [camera.width, camera.height],
        "focal": [camera.fx, camera.fy],
        "centre": [camera.cx, camera.cy],
        "distortion": list(camera.distortion),
        "rotation": camera.rotation.tolist(),
        "translation": camera.translation.tolist(),
    }


def _camera(row: dict[str, Any]) -> Camera:
    (width, height), (fx, fy), (cx, cy) = row["size"], row["focal"], row["centre"]
    image = Path(row["image"]) if row["image"] else None
    k1, k2, p1, p2 = (float(term) for term in row["distortion"])
    return Camera(
        int(width), int(height), float(fx), float(fy), float(cx), float(cy), np.array(row["rotation"], np.float64),
        np.array(row["translation"], np.float64), (k1, k2, p1, p2), image=image, name=str(row["name"]),
    )  # fmt: skip


def _check_file(path: Path, name: Any, sums: dict[str, str]) -> None:
    if name not in ("splats.ply", "splats.spz", "labels.npy", "cameras.json") or not (path / name).is_file():
        raise NotFoundError(f"{path}: the file '{name}' of this scene is missing")
    found = hashlib.sha256((path / name).read_bytes()).hexdigest()
    if found != sums.get(name):
        raise CorruptionError(
            f"{path / name}: its checksum is not the one in scene.json; the file was changed or damaged"
        )

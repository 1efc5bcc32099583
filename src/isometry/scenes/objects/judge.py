"""How well a place was filled, against a capture of it without the object.

Paper 1, section 3 of its note: masked PSNR against a held-out capture without the object.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.scenes.capture.photos import load_photo
from isometry.scenes.capture.poses import photographs
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.objects.inpaint import Removed, removal_views
from isometry.scenes.raster import render, splat
from isometry.scenes.scene import Scene, load_scene

_DRAWN = 0.05  # a pixel counts where at least this share of it was the object, its shadow or what they hid


def masked_psnr(
    scene: Scene, number: int, removed: Removed, truth: str | Path, *, size: int = 160, views: int = 8
) -> dict[str, float]:
    """PSNR in decibel where the object or its shadow was: `filled`, and `cut` with the object gone and nothing filled.

    Args:
        scene: before object `number` was `removed` from it.
        truth: a folder of photographs without the object, from the places of the scene's own and named like them; or a
            scene folder in the same frame, which is then drawn.
        size: longer side of the pictures compared, pixels.
        views: from which a scene folder is drawn.

    Raises:
        NotFoundError: no such folder. InputError: no photograph fits, or none shows the place.
    """
    truth = Path(truth)
    if not truth.is_dir():
        raise NotFoundError(f"there is no folder '{truth}' with a capture without the object")
    mine = scene.labels == scene.objects[number].label
    if (truth / "scene.json").is_file():
        other = load_scene(truth).gaussians
        cameras = removal_views(scene, scene.gaussians.select(mine), views, size)
        pictures = [(c, render(other, c).colour, np.ones((c.height, c.width), bool)) for c in cameras]
    else:
        pictures = _photographed(scene, truth, size)
    cut = scene.gaussians.select(~mine)
    squared: dict[str, list[np.ndarray]] = {"filled": [], "cut": []}
    for camera, wanted, known in pictures:
        area = known & (_share(scene.gaussians, removed.taken, camera) > _DRAWN)
        for name, gaussians in (("filled", removed.scene.gaussians), ("cut", cut)):
            drawn = np.clip(render(gaussians, camera).colour, 0, 1)
            squared[name].append(((drawn - wanted) ** 2)[area].ravel())
    pixels = sum(len(part) for part in squared["cut"]) // 3
    if not pixels:
        raise InputError(f"none of {len(pictures)} views of '{truth}' shows where '{scene.objects[number].name}' was")
    found = {f"psnr_{name}": _decibel(np.concatenate(parts)) for name, parts in squared.items()}
    return {**found, "psnr_pixels": float(pixels), "psnr_views": float(len(pictures))}


def _photographed(scene: Scene, folder: Path, size: int) -> list[tuple[Camera, np.ndarray, np.ndarray]]:
    files = {path.stem: path for path in photographs(folder)}
    fitting = [camera for camera in scene.cameras if Path(camera.name).stem in files]
    if not fitting:
        named = f" (as '{Path(scene.cameras[0].name).stem}.jpg')" if scene.cameras else ""
        raise InputError(
            f"{folder}: no photograph is named like one of the scene's{named}, nor is a scene.json there: the views to "
            "compare cannot be told"
        )
    photos = [load_photo(replace(camera, image=files[Path(camera.name).stem]), size) for camera in fitting]
    return [(photo.camera, photo.colours, photo.known) for photo in photos]


def _share(gaussians: Gaussians, chosen: np.ndarray, camera: Camera) -> np.ndarray:
    colours = np.repeat(chosen[:, None], 3, axis=1).astype(np.float32)
    return splat(gaussians.means, gaussians.covariances(), gaussians.opacities, colours, camera).colour[..., 0]


def _decibel(squared: np.ndarray) -> float:
    return float(-10 * np.log10(max(float(squared.mean()), 1e-12)))

"""A scene's objects from a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isometry.errors import InputError
from isometry.scenes.objects.identity import learn_identities
from isometry.scenes.objects.lift import claim_inside, clean_up, lift_objects
from isometry.scenes.objects.masks import read_masks
from isometry.scenes.physics.materials import material
from isometry.scenes.scene import Scene, SceneObject


def make_objects(
    scene: Scene, masks: str | Path, *, names: Sequence[str] | None = None, material_name: str = "jelly",
    how: str = "vote", vertices: int = 700, seed: int = 0,
) -> Scene:  # fmt: skip
    """The scene with the objects of the masks in place of those it had.

    Args:
        names: in the order of labels or folders; None takes the folders', `names.json`'s or numbers.
        how: 'vote' or 'learn' (identity codes).
        vertices: of each cage, about.

    Raises:
        InputError: masks that do not fit, a wrong number of names, an object without Gaussians.
    """
    if how not in ("vote", "learn"):
        raise InputError(f"masks are lifted by 'vote' or 'learn', not by '{how}'")
    made_of = material(material_name)
    views, found = read_masks(masks, scene.cameras)
    if names is not None:
        if len(names) != len(found):
            raise InputError(f"{len(names)} names are given for {len(found)} objects in the masks ({', '.join(found)})")
        found = list(names)
    if len(set(found)) != len(found) or not all(found):
        raise InputError(f"every object needs a name of its own, and these are {found}")
    if how == "vote":
        labels = lift_objects(scene.gaussians, views, found)
    else:
        learned = learn_identities(scene.gaussians, views, len(found), seed=seed).labels()
        labels = claim_inside(scene.gaussians, clean_up(scene.gaussians, learned)).astype(np.uint16)
    objects = tuple(SceneObject(name, number, made_of, vertices) for number, name in enumerate(found, start=1))
    return scene.with_objects(objects, labels)

"""What several tests of scenes stand on."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine photographs of the example, posed in a transforms.json of other units and another up."""
    pytest.importorskip("numba")
    from PIL import Image

    from isometry.scenes import example_scene, render
    from tests.scenes.captures import ring

    place = tmp_path_factory.mktemp("capture")
    (place / "images").mkdir()
    scene = example_scene(splats=4000)
    frames = []
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y up to z up
    for camera in ring(9):
        picture = np.clip(render(scene.gaussians, camera, background=(0.0, 0.0, 0.0)).colour, 0, 1)
        Image.fromarray((picture * 255).astype(np.uint8)).save(place / "images" / camera.name)
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ camera.rotation.T @ np.diag([1, -1, -1])
        matrix[:3, 3] = 2 * turn @ camera.position
        frames.append({"file_path": f"images/{camera.name}", "transform_matrix": matrix.tolist()})
    document = {"fl_x": camera.fx, "fl_y": camera.fy, "w": 40, "h": 32, "frames": frames}
    (place / "transforms.json").write_text(json.dumps(document))
    return place

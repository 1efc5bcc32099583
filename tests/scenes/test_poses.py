"""Photographs without poses, end to end with pycolmap where it is installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isometry.cli.main import main
from isometry.errors import InputError
from isometry.scenes import load_scene, read_cameras
from isometry.scenes.capture.poses import find_poses
from isometry.scenes.gaussians import quaternions_of
from tests.scenes.captures import ring


@pytest.fixture
def photographs(shared_data, tmp_path):
    """Ten of the fox's photographs, 600 pixels high."""
    pytest.importorskip("pycolmap")
    source = shared_data / "scene" / "fox"
    if not source.is_dir():
        pytest.skip("the fox capture is absent")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sorted((source / "images").iterdir())[:20:2]:
        with Image.open(path) as picture:
            picture.resize((338, 600)).save(folder / path.name, quality=95)
    return folder, source


def _aligned(mine, theirs):
    """Positions `(n, 3)` brought onto others by the best turn, scale and shift (Umeyama 1991)."""
    a, b = mine - mine.mean(axis=0), theirs - theirs.mean(axis=0)
    left, sizes, right = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (sizes * np.diag(sign)).sum() / (a * a).sum()
    return scale * a @ (left @ sign @ right).T + theirs.mean(axis=0)


def test_places_of_photographs_are_those_of_the_capture(photographs, tmp_path):
    folder, source = photographs
    said: list[str] = []
    found = find_poses(folder, keep=tmp_path / "kept", say=said.append)
    assert len(found.cameras) == 10 and said[0].startswith("10 of 10 photographs are placed")
    assert len(found.points) > 200 and found.colours.min() >= 0 and found.colours.max() <= 1
    known = {camera.name.split("/")[-1]: camera for camera in read_cameras(source).cameras}
    theirs = np.stack([known[camera.name].position for camera in found.cameras])
    off = np.linalg.norm(_aligned(np.stack([c.position for c in found.cameras]), theirs) - theirs, axis=1)
    spread = np.linalg.norm(theirs - theirs.mean(axis=0), axis=1).mean()
    assert off.max() < 0.05 * spread
    # a second call, as a resumed build makes it, takes what the first one kept
    again = find_poses(folder, keep=tmp_path / "kept", say=said.append)
    assert len(said) == 1
    for one, other in zip(found.cameras, again.cameras, strict=True):
        np.testing.assert_array_equal(one.rotation, other.rotation)
    (folder / "more.jpg").write_bytes((folder / found.cameras[0].name).read_bytes()[:9000])
    with pytest.raises(InputError, match=r"more\.jpg: the picture is damaged"):
        find_poses(folder, keep=tmp_path / "kept")


def test_a_scene_is_built_from_photographs_alone(photographs, tmp_path, capfd):
    folder, _ = photographs
    out = tmp_path / "room"
    with pytest.raises(SystemExit) as stop:
        main(["scene", "build", str(folder), "--out", str(out), "--iterations", "60", "--size", "80"])
    assert stop.value.code == 0
    printed, told = capfd.readouterr()
    assert "held-out views (2)" in printed and "10 of 10 photographs are placed" in told
    assert len(told.splitlines()) < 10 and "colmap" not in told.lower(), "its own lines stay away"
    assert len(load_scene(out).cameras) == 10
    assert not (tmp_path / ".room.build").exists()


def test_pictures_that_show_nothing_cannot_be_placed(tmp_path, capfd):
    pytest.importorskip("pycolmap")
    folder = tmp_path / "grey"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / f"{number}.png")
    with pytest.raises(SystemExit) as stop:
        main(["scene", "build", str(folder), "--out", str(tmp_path / "room")])
    told = capfd.readouterr().err
    assert stop.value.code == 2 and "only 0 of the 3 photographs" in told
    assert [path.name for path in tmp_path.iterdir()] == ["grey"]


class _Model:
    """What pycolmap finds, for machines without it: the ring of cameras, as a text model."""

    def num_reg_images(self):
        return 6

    def num_points3D(self):
        return 2

    def write_binary(self, folder):
        place, cameras = Path(folder), ring(6)
        first = cameras[0]
        (place / "cameras.txt").write_text(f"1 PINHOLE 40 32 {first.fx} {first.fy} {first.cx} {first.cy}\n")
        lines = []
        for number, camera in enumerate(cameras):
            turn = " ".join(map(str, quaternions_of(camera.rotation[None])[0]))
            lines.append(f"{number + 1} {turn} {' '.join(map(str, camera.translation))} 1 {number}.png\n\n")
        (place / "images.txt").write_text("".join(lines))
        (place / "points3D.txt").write_text("1 0 0 0 255 0 0 0.1\n2 0 1 0 0 255 0 0.1\n")


def test_an_interrupted_build_keeps_the_poses_it_began_with(tmp_path, monkeypatch):
    calls: list[str] = []
    fake = types.ModuleType("pycolmap")
    fake.logging = types.SimpleNamespace(minloglevel=0, Level=types.SimpleNamespace(FATAL=3))
    fake.CameraMode = types.SimpleNamespace(SINGLE="one", AUTO="several")
    fake.ImageReaderOptions = fake.IncrementalPipelineOptions = lambda **given: given
    fake.set_random_seed = lambda seed: None
    fake.extract_features = lambda *given, camera_mode, **rest: calls.append(camera_mode)
    fake.match_exhaustive = lambda database: None
    fake.incremental_mapping = lambda *given, **rest: {0: _Model()}
    monkeypatch.setitem(sys.modules, "pycolmap", fake)
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (40, 32), (number, 90, 90)).save(folder / f"{number}.png")
    said: list[str] = []
    first = find_poses(folder, keep=tmp_path / "k", say=said.append)
    assert said == ["6 of 7 photographs are placed, with 2 points; without 6.png"]
    assert find_poses(folder, keep=tmp_path / "k").cameras[2].name == first.cameras[2].name and calls == ["one"]
    find_poses(folder, keep=tmp_path / "k", seed=1)
    Image.new("RGB", (32, 40)).save(folder / "6.png")
    find_poses(folder, keep=tmp_path / "k")
    assert calls == ["one", "one", "several"] and fake.logging.minloglevel == 0
    assert len(list((tmp_path / "k").iterdir())) == 3, "one model for each set of photographs and seed"

"""Building scenes: the loss and its gradient, the start, the loop, files, resuming, the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from isometry.cli.main import main
from isometry.errors import CorruptionError, InputError, MissingExtraError
from isometry.scenes import example_scene, load_scene, read_splats, render, write_splats
from isometry.scenes.capture import PRESETS, Training, build_scene, find_preset, judge
from isometry.scenes.capture.checkpoint import Checkpoint
from isometry.scenes.capture.frame import capture_frame
from isometry.scenes.capture.loss import Target
from isometry.scenes.capture.photos import Photo, load_photos, split
from isometry.scenes.capture.start import first_gaussians, focus
from isometry.scenes.capture.surface import from_mesh
from isometry.scenes.files.cameras import read_cameras
from isometry.scenes.turning import harmonics_turn, moved, upright
from tests.scenes.captures import ring

TINY = replace(PRESETS["laptop"].changed(iterations=60, longest=40, most=900), degree=1, reset_every=100)


def test_loss_of_equal_pictures_is_zero_and_its_gradient_is_right():
    rng = np.random.default_rng(0)
    colours = rng.random((13, 17, 3)).astype(np.float32)
    target = Target(colours)
    loss, slope = target.compare(colours, 0.2)
    assert loss == pytest.approx(0, abs=1e-6) and np.abs(slope).max() < 1e-6
    assert target.ssim(colours) == pytest.approx(1, abs=1e-6)
    assert Target(0.5 * colours).psnr(0.5 * colours + 0.1) == pytest.approx(20, abs=1e-3)
    other = rng.random((13, 17, 3)).astype(np.float32)
    loss, slope = target.compare(other, 0.7)
    direction = rng.normal(size=other.shape).astype(np.float32)
    step = 1e-3
    up, down = (target.compare(other + s * step * direction, 0.7)[0] for s in (1, -1))
    assert (slope * direction).sum() == pytest.approx((up - down) / (2 * step), rel=2e-2)


def test_ssim_against_the_formula_in_the_middle():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 21, 21))
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(x):
        padded = np.pad(x, 5)
        return np.array([[(padded[i : i + 11, j : j + 11] * window).sum() for j in range(21)] for i in range(21)])

    ma, mb = mean(a), mean(b)
    va, vb, cab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    expected = ((2 * ma * mb + 1e-4) * (2 * cab + 9e-4)) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    target = Target(np.repeat(a[..., None], 3, axis=2).astype(np.float32))
    got = target.ssim(np.repeat(b[..., None], 3, axis=2).astype(np.float32))
    assert got == pytest.approx(expected.mean(), abs=1e-5)


def test_unknown_pixels_do_not_count():
    colours = np.zeros((8, 8, 3), np.float32)
    known = np.ones((8, 8), bool)
    known[:2] = False
    picture = np.zeros((8, 8, 3), np.float32)
    picture[:2] = 1
    target = Target(colours, known)
    loss, slope = target.compare(picture, 0.2)
    assert loss == pytest.approx(0, abs=1e-6) and target.psnr(picture) > 100 and not slope[:2].any()


def test_turned_harmonics_show_the_same_colours():
    rng = np.random.default_rng(2)
    g = example_scene(splats=1000).gaussians.select(np.arange(40)).with_degree(3)
    g = replace(g, harmonics=rng.normal(0, 0.3, g.harmonics.shape))
    rotation = upright(rng.normal(size=3))
    assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) > 0
    turn = harmonics_turn(rotation, 3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(16), atol=1e-9)
    camera = ring(3)[0]
    shift = np.array([1.0, -2, 3])
    placed = replace(
        camera,
        rotation=camera.rotation @ rotation.T,
        translation=2 * camera.translation - camera.rotation @ rotation.T @ shift,
    )
    before = render(g, camera).colour
    after = render(moved(g, rotation=rotation, scale=2, shift=shift), placed).colour
    np.testing.assert_allclose(after, before, atol=2e-4)
    np.testing.assert_allclose(upright(np.array([0, -1.0, 0])) @ [0, -1, 0], [0, 1, 0], atol=1e-12)


def test_frame_is_upright_and_metric(folder):
    capture = read_cameras(folder)
    frame = capture_frame(capture.cameras, 0.5, None)
    cameras = frame.capture(capture).cameras
    truth = ring(9)
    middle, _ = focus(truth)
    for ours, true in zip(cameras, truth, strict=True):
        # the same up to a turn about y: heights, distances and looking down agree
        assert ours.position[1] == pytest.approx((true.position - middle)[1], abs=0.06)
        assert np.linalg.norm(ours.position) == pytest.approx(np.linalg.norm(true.position - middle), rel=1e-6)
    assert "as given" in frame.note
    assumed = capture_frame(capture.cameras, None, None)
    assert not assumed.known and "--known-length" in assumed.note
    assert np.median([np.linalg.norm(assumed.camera(c).position) for c in capture.cameras]) == pytest.approx(
        1.5, rel=0.01
    )


def test_start_lies_on_what_was_photographed(folder):
    frame = capture_frame(read_cameras(folder).cameras, 0.5, None)
    photos = load_photos(frame.capture(read_cameras(folder)).cameras, 40)
    g = first_gaussians(photos, 300, 0)
    assert 250 < len(g) <= 300
    again = first_gaussians(photos, 300, 0)
    np.testing.assert_array_equal(g.means, again.means)


def test_training_learns_and_judges_what_it_has_not_seen(folder):
    frame = capture_frame(read_cameras(folder).cameras, 0.5, None)
    learn, held = split(load_photos(frame.capture(read_cameras(folder)).cameras, 40))
    assert len(learn) == 7 and [p.camera.name for p in held] == ["00.png", "08.png"]
    training = Training(first_gaussians(learn, 300, 0), learn, TINY, threads=1)
    before = judge(training.gaussians(), learn)["psnr"]
    while training.iteration < TINY.iterations:
        training.step()
    after = judge(training.gaussians(), learn)["psnr"]
    assert after > before + 3 and len(training.parameters) <= TINY.most and training.gaussians().degree == 1


def test_gaussians_split_clone_and_vanish():
    camera = ring(3)[1]
    photos = [Photo(camera, np.zeros((32, 40, 3), np.float32), np.ones((32, 40), bool))] * 2
    start = example_scene(splats=1000).gaussians.select(np.arange(6)).with_degree(0)
    training = Training(start, photos, TINY)
    training.extent = 1.0
    values = training.parameters.values
    values["log_scales"][:] = np.log(0.001)
    values["log_scales"][1] = np.log(0.05)
    values["logits"][:] = 2.0
    values["logits"][5] = np.log(0.004 / 0.996)
    training._pull[:2], training._seen[:] = 1.0, 1.0
    training._densify()
    assert len(training.parameters) == 6 + 1 + 1  # one cloned, one replaced by two
    scales = np.exp(training.parameters.values["log_scales"])
    assert np.isclose(scales, 0.05 / 1.6, rtol=1e-5).all(axis=1).sum() == 2
    training._prune(late=False)
    assert len(training.parameters) == 7


def test_build_writes_a_scene_and_reports(folder, tmp_path):
    said = []
    built = build_scene(folder, tmp_path / "s", TINY, metres_per_unit=0.5, say=said.append, threads=1)
    scene = load_scene(tmp_path / "s")
    assert len(scene.gaussians) == built.report["splats"] and len(scene.cameras) == 9
    assert built.report["held_out"]["views"] == 2 and built.report["held_out"]["psnr"] > 12
    assert 0 < built.report["held_out"]["ssim"] < 1
    assert any("PSNR" in line and "loss" in line for line in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"], "no checkpoint stays"
    # the pictures come back through the saved cameras
    camera = scene.cameras[4]
    seen = Target(load_photos([camera, camera], 40)[0].colours).psnr(render(scene.gaussians, camera).colour)
    assert seen == pytest.approx(built.report["learned"]["psnr"], abs=4)


def test_a_killed_build_goes_on_to_the_same_scene(folder, tmp_path):
    whole = build_scene(folder, tmp_path / "whole", TINY, threads=1).scene
    code = (
        "import sys, dataclasses; from isometry.scenes.capture import *;"
        "plan = dataclasses.replace(PRESETS['laptop'].changed(iterations=60, longest=40, most=900), degree=1, reset_every=100);"
        "build_scene(sys.argv[1], sys.argv[2], plan, threads=1, save_seconds=0, say=lambda s: print(s, flush=True))"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(out)], stdout=subprocess.PIPE, text=True)
    checkpoint = tmp_path / ".killed.build" / "checkpoint.safetensors"
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert checkpoint.exists() and not out.exists()
    with pytest.raises(InputError, match="unfinished build of other photographs or settings"):
        build_scene(folder, out, TINY, seed=1, threads=1)
    said = []
    again = build_scene(folder, out, TINY, threads=1, say=said.append).scene
    assert any("going on at iteration" in line for line in said)
    np.testing.assert_array_equal(again.gaussians.means, whole.gaussians.means)
    np.testing.assert_array_equal(again.gaussians.harmonics, whole.gaussians.harmonics)
    assert not checkpoint.parent.exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path / "s", {"a": 1})
    assert checkpoint.load() is None
    checkpoint.save({"x": np.arange(3.0)}, {"training": "{}"})
    arrays, words = checkpoint.load()
    assert arrays["x"].tolist() == [0, 1, 2] and words["training"] == "{}"
    checkpoint.file.write_bytes(checkpoint.file.read_bytes()[:-5])
    with pytest.raises(CorruptionError, match="remove"):
        checkpoint.load()


def test_splats_points_and_meshes(tmp_path):
    g = example_scene(splats=1000).gaussians
    write_splats(tmp_path / "a.ply", g)
    built = build_scene(tmp_path / "a.ply", tmp_path / "a", TINY, up=np.array([0, -1.0, 0]))
    assert built.report["from"] == "splats" and len(built.scene.gaussians) == len(g)
    write_splats(tmp_path / "b.spz", g)
    assert build_scene(tmp_path / "b.spz", tmp_path / "b", TINY, metres_per_unit=2).report["splats"] == len(g)
    (tmp_path / "m.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 0 0 1\nv 0 0 1 0 0 1\nf 1 3 2\nf 1 2 4\n")
    built = build_scene(tmp_path / "m.obj", tmp_path / "m", TINY)
    assert built.report["from"] == "mesh" and built.report["splats"] == TINY.most
    (tmp_path / "p.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
        "0 0 0\n1 0 0\n0 1 0\n"
    )
    assert build_scene(tmp_path / "p.ply", tmp_path / "p", TINY).report["from"] == "points"


def test_mesh_gaussians_lie_on_it_evenly():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, -3.0]])
    colours = np.array([[1, 0, 0]] * 3 + [[0, 0, 1.0]])
    g = from_mesh(vertices, colours, np.array([[0, 1, 2], [0, 3, 1]]), 400)
    first = np.abs(g.means[:, 2]) < 1e-6
    assert first.sum() == pytest.approx(400 * 1 / 4, abs=2)  # areas 1 and 3
    np.testing.assert_allclose(np.abs(g.rotations()[first][:, 2, 2]), 1, atol=1e-5)  # thin along the normal
    with pytest.raises(InputError, match="no triangle with an area"):
        from_mesh(vertices, colours, np.array([[0, 1, 1]]), 10)


def test_what_cannot_be_built_is_said_in_a_sentence(folder, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["scene", "build", *map(str, arguments)])
        told = capsys.readouterr().err
        assert told.count("\n") <= 3 and "Traceback" not in told
        return stop.value.code, told

    out = tmp_path / "s"
    assert run(tmp_path / "none", "--out", out) == (
        2,
        f"isometry: there is no '{tmp_path / 'none'}' to build a scene from\n",
    )
    (tmp_path / "empty").mkdir()
    assert "neither photographs nor poses" in run(tmp_path / "empty", "--out", out)[1]
    assert "did you mean" in run(folder, "--out", out, "--preset", "laptp")[1]
    assert "UNITS=METRES" in run(folder, "--out", out, "--known-length", "3")[1]
    assert "x,y,z" in run(folder, "--out", out, "--up", "1,2")[1]
    assert "pixels must lie within" in run(folder, "--out", out, "--size", "1")[1]
    assert "'cpu' or 'cuda'" in run(folder, "--out", out, "--device", "tpu")[1]
    (tmp_path / "a.txt").write_text("x")
    assert "photographs, a transforms.json, or" in run(tmp_path / "a.txt", "--out", out)[1]
    (tmp_path / "none.splat").write_bytes(b"")
    assert "no splats in this file" in run(tmp_path / "none.splat", "--out", out)[1]
    (tmp_path / "one.obj").write_text("v 0 0 0\n")
    assert "one.obj: a single point" in run(tmp_path / "one.obj", "--out", out)[1]
    (tmp_path / "wrong").mkdir()
    document = json.loads((folder / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["file_path"] = str(folder / frame["file_path"])
    (tmp_path / "wrong" / "transforms.json").write_text(json.dumps({**document, "w": 64}))
    assert "its camera has 64 x 32" in run(tmp_path / "wrong", "--out", out)[1]
    (tmp_path / "wrong" / "transforms.json").write_text(json.dumps({**document, "frames": document["frames"][:1]}))
    assert "at least two photographs" in run(tmp_path / "wrong", "--out", out)[1]
    same = [{**frame, "transform_matrix": document["frames"][0]["transform_matrix"]} for frame in document["frames"]]
    (tmp_path / "wrong" / "transforms.json").write_text(json.dumps({**document, "frames": same}))
    assert "stand in one place" in run(tmp_path / "wrong", "--out", out)[1]
    assert not out.exists() and not (tmp_path / ".s.build").exists()


def test_photographs_without_poses_need_the_extra(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingExtraError, match=r"finding the poses.*isometry\[recon\]"):
        build_scene(tmp_path, tmp_path / "s", TINY)


def test_presets_shrink_as_a_whole():
    plan = find_preset("full").changed(iterations=300)
    assert (plan.densify_until, plan.reset_every, plan.densify_every) == (150, 30, 10)
    assert plan.position_rate(0) == pytest.approx(1.6e-4) and plan.position_rate(300) == pytest.approx(1.6e-6)
    assert [plan.degree_at(i) for i in (0, 10, 25, 299)] == [0, 1, 2, 3]


def test_read_splats_is_what_was_written(tmp_path):
    g = example_scene(splats=1000).gaussians
    build_scene(_written(tmp_path, g), tmp_path / "s", TINY)
    again = read_splats(tmp_path / "s" / "splats.ply")
    np.testing.assert_allclose(np.ptp(again.means, axis=0), np.ptp(g.means, axis=0), atol=1e-5)


def _written(folder, g):
    write_splats(folder / "a.ply", g)
    return folder / "a.ply"

"""Scene folders, scripts and replays, shadows, and the command without a browser."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from isometry.cli.main import main
from isometry.errors import CorruptionError, ExistsError, InputError, NotFoundError
from isometry.scenes import (
    Log,
    Stage,
    apply_input,
    example_scene,
    lit_shares,
    load_scene,
    read_script,
    save_scene,
    simulate,
)
from isometry.scenes.example import SHIPPED, shipped_scene
from isometry.scenes.files.cameras import look_at
from isometry.scenes.inputs import Script

SPLATS = 1500


@pytest.fixture(scope="module")
def scene():
    return example_scene(splats=SPLATS)


@pytest.fixture
def stage(scene):
    return Stage(scene, substeps=6)


def test_example_is_repeatable_and_named(scene):
    again = example_scene(splats=SPLATS)
    np.testing.assert_array_equal(scene.gaussians.means, again.gaussians.means)
    assert [o.name for o in scene.objects] == ["red jelly", "striped rubber ring", "blue foam cushion"]
    red = scene.part(1).base_colours.mean(axis=0)
    assert red[0] > 2 * red[1]
    assert scene.part(1).means[:, 1].min() > 0.72


@pytest.mark.parametrize("compact", [False, True])
def test_folder_round_trip(scene, tmp_path, compact):
    save_scene(scene, tmp_path / "s", compact=compact)
    again = load_scene(tmp_path / "s")
    assert again.objects == scene.objects and again.view == scene.view and again.plane == scene.plane
    np.testing.assert_array_equal(again.labels, scene.labels)
    np.testing.assert_allclose(again.gaussians.means, scene.gaussians.means, atol=1e-6 if not compact else 2**-20)
    with pytest.raises(ExistsError, match="exists already"):
        save_scene(scene, tmp_path / "s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"], "nothing half-written stays"


def test_damaged_folders_are_refused(scene, tmp_path):
    with pytest.raises(NotFoundError, match="no scene in"):
        load_scene(tmp_path)
    folder = save_scene(scene, tmp_path / "s")
    data = bytearray((folder / "labels.npy").read_bytes())
    data[-1] ^= 1
    (folder / "labels.npy").write_bytes(data)
    with pytest.raises(CorruptionError, match="checksum"):
        load_scene(folder)
    data[-1] ^= 1
    (folder / "labels.npy").write_bytes(data)
    document = json.loads((folder / "scene.json").read_text())
    for change, message in (({"format": 9}, "format 9"), ({"objects": 3}, "damaged"), ({"splats": "../x"}, "missing")):
        (folder / "scene.json").write_text(json.dumps({**document, **change}))
        with pytest.raises((InputError, NotFoundError), match=message):
            load_scene(folder)


def test_objects_need_splats(scene):
    with pytest.raises(InputError, match="has no splats"):
        scene.with_objects(scene.objects, np.zeros(len(scene.labels)))
    with pytest.raises(InputError, match="no objects"):
        Stage(scene.with_objects((), np.zeros(len(scene.labels))))
    with pytest.raises(NotFoundError, match="red jelly"):
        scene.number("green jelly")


def test_stage_moves_only_objects(scene, stage):
    before = stage.pose()
    np.testing.assert_allclose(before.means, scene.gaussians.means, atol=1e-5)
    np.testing.assert_allclose(before.turns, np.tile(np.eye(3), (len(before.turns), 1, 1)), atol=1e-4)
    apply_input(stage, {"do": "transform", "object": "red jelly", "move": [0, 0.3, 0]})
    after = stage.pose()
    mine = scene.labels == 1
    np.testing.assert_allclose(after.means[mine] - before.means[mine], np.tile([0, 0.3, 0], (mine.sum(), 1)), atol=1e-5)
    np.testing.assert_array_equal(after.means[~mine], before.means[~mine])
    report = stage.report()
    assert report[0]["object"] == "red jelly" and report[0]["bind_bytes"] == 136 * report[0]["splats"]
    assert all(row["pieces"] == 1 and row["fallback_share"] < 0.2 for row in report)


def test_pictures_change_where_the_object_was(stage):
    camera = stage.camera(160, 120)
    before = stage.picture(camera, shadows=False).colour
    assert before[0, 0] == pytest.approx([0.93, 0.94, 0.96])
    reds = (before[..., 0] > 2 * before[..., 1]).sum()
    assert reds > 40
    apply_input(stage, {"do": "transform", "object": 0, "move": [0, 50, 0]})
    after = stage.picture(camera, shadows=False).colour
    assert (after[..., 0] > 2 * after[..., 1]).sum() < 0.1 * reds


BAD = [
    ({}, "needs 'do'"),
    ({"do": "explode"}, "needs 'do'"),
    ([1], "needs 'do'"),
    ({"do": "reset", "now": 1}, "does not know now"),
    ({"do": "grab", "hand": 99, "position": [0, 0, 0]}, "'hand'"),
    ({"do": "grab", "hand": True, "position": [0, 0, 0]}, "'hand'"),
    ({"do": "grab", "hand": 0, "position": [0, 0]}, "3 finite numbers"),
    ({"do": "grab", "hand": 0, "position": [0, 0, float("nan")]}, "3 finite numbers"),
    ({"do": "grab", "hand": 0, "position": [0, 0, 1e9]}, "3 finite numbers"),
    ({"do": "grab", "hand": 0, "position": "abc"}, "3 finite numbers"),
    ({"do": "grab", "hand": 0, "position": [0, 0, 0], "radius": -1}, "'radius'"),
    ({"do": "move", "hand": 0, "position": [0, 0, 0], "quaternion": [0, 0, 0, 0]}, "must be a rotation"),
    ({"do": "material", "object": 7, "name": "jelly"}, "'object'"),
    ({"do": "material", "object": 0, "name": "jely"}, "did you mean"),
    ({"do": "material", "object": 0, "poisson": 0.7}, "poisson"),
    ({"do": "gravity", "value": [None, 0, 0]}, "3 finite numbers"),
    ({"do": "pause", "on": "yes"}, "true or false"),
    ({"do": "substeps", "value": 1000}, "'value'"),
    ({"do": "transform", "object": 0, "scale": 1e6}, "'scale'"),
]


@pytest.mark.parametrize(("message", "expected"), BAD)
def test_bad_inputs_are_refused_and_change_nothing(stage, message, expected):
    before = stage.world.digest()
    with pytest.raises(InputError, match=expected):
        apply_input(stage, message)
    assert stage.world.digest() == before


def test_every_action_works(stage):
    world = stage.world
    top = world.x[world.span(0)][world.x[world.span(0), 1].argmax()].tolist()
    assert apply_input(stage, {"do": "grab", "hand": 0, "position": top, "radius": 0.05}) == 0
    assert apply_input(stage, {"do": "grab", "hand": 1, "position": [9, 9, 9], "radius": 0.05}) is None
    apply_input(stage, {"do": "move", "hand": 0, "position": [0, 1, 0], "quaternion": [2, 0, 0, 0]})
    world.step()
    apply_input(stage, {"do": "release", "hand": 0})
    apply_input(stage, {"do": "material", "object": 1, "name": "wood", "friction": 0.9})
    assert world.bodies[1].material.young == 4e6 and world.bodies[1].material.friction == 0.9
    apply_input(stage, {"do": "gravity", "value": [0, -1.6, 0]})
    assert world.gravity[1] == np.float32(-1.6)
    apply_input(stage, {"do": "pause", "on": True})
    x = world.x.copy()
    world.step()
    np.testing.assert_array_equal(world.x, x)
    apply_input(stage, {"do": "substeps", "value": 3})
    apply_input(stage, {"do": "reset"})
    np.testing.assert_allclose(world.x, world.rest, atol=1e-6)
    apply_input(stage, {"do": "undo"})
    np.testing.assert_array_equal(world.x, x)


def test_a_session_replays_to_the_same_state(scene, tmp_path):
    grab = {"do": "grab", "hand": 0, "object": 0, "position": [-0.33, 0.95, 0.05], "radius": 0.12}
    move = {"do": "move", "hand": 0, "position": [-0.2, 1.1, 0.05]}
    script = Script(30, [(2, grab), (9, move), (20, {"do": "release", "hand": 0})])
    first = simulate(Stage(scene, substeps=6), script)
    assert first.pictures == 0 and first.ticks == 30 and len(first.log.inputs) == 3
    path = tmp_path / "session.jsonl"
    path.write_text(first.log.text())
    plan = read_script(path)
    assert (plan.ticks, plan.substeps, plan.digest) == (30, 6, first.digest)
    assert simulate(Stage(scene, substeps=6), plan).digest == first.digest
    with pytest.raises(InputError, match="the replay ended in state"):
        simulate(Stage(scene, substeps=7), plan)
    lines = first.log.text().splitlines()
    for broken, message in (
        ("", "empty"),
        ("{}", "line 1"),
        ("\n".join([lines[0], '{"tick": -1, "input": {}}']), "line 2"),
    ):
        with pytest.raises(InputError, match=message):
            Log.parse(broken, "log")


def test_scripts_are_checked(tmp_path):
    path = tmp_path / "s.json"
    with pytest.raises(NotFoundError):
        read_script(path)
    drag = '{"seconds": 1, "inputs": [{"do": "drag", "at": 0, "hand": 0, "from": [0], "to": [1, 1, 1]}]}'
    for text in ("{", "[]", '{"seconds": -1, "inputs": []}', '{"seconds": 1}', '{"seconds": 1, "inputs": [3]}', drag):
        path.write_text(text)
        with pytest.raises(InputError, match="not a script"):
            read_script(path)
    path.write_text(json.dumps({"seconds": 1, "inputs": [
        {"at": 0.5, "do": "release", "hand": 0},
        {"at": 0.0, "do": "drag", "hand": 0, "from": [0, 0, 0], "to": [0, 0, 3], "over": 0.05}]}))  # fmt: skip
    plan = read_script(path)
    assert plan.ticks == 60 and [tick for tick, _ in plan.inputs] == [1, 2, 3, 30]
    assert plan.inputs[1][1]["position"] == [0, 0, 2]


def test_command_writes_pictures_and_a_video(scene, tmp_path, capsys):
    folder = save_scene(scene, tmp_path / "s")
    script = tmp_path / "do.json"
    script.write_text('{"seconds": 0.2, "inputs": []}')
    run = ["scene", "simulate", str(folder), "--script", str(script), "--size", "64x48", "--substeps", "2", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([*run, "--out", str(tmp_path / "frames"), "--fps", "10"])
    assert stop.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ticks"] == 12 and result["pictures"] == 3
    pictures = sorted((tmp_path / "frames").iterdir())
    assert [p.name for p in pictures] == ["00000.png", "00001.png", "00002.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (64, 48)
    with pytest.raises(SystemExit) as stop:
        main([*run, "--out", str(tmp_path / "v.mp4")])
    assert stop.value.code == 0 and (tmp_path / "v.mp4").read_bytes()[4:8] == b"ftyp"
    for bad in ("v.mp4", "x.txt", "none/frames"):
        with pytest.raises(SystemExit) as stop:
            main([*run, "--out", str(tmp_path / bad)])
        assert stop.value.code == 2
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


def _plane_and_ball(height=1.0, radius=0.3):
    rng = np.random.default_rng(0)
    d = rng.normal(size=(12000, 3))
    ball = d / np.linalg.norm(d, axis=1, keepdims=True) * radius + [0, height, 0]
    grid = np.stack(np.meshgrid(np.arange(-1.5, 1.5, 0.03), np.arange(-1.5, 1.5, 0.03)), -1).reshape(-1, 2)
    plane = np.stack([grid[:, 0], np.zeros(len(grid)), grid[:, 1]], axis=1)
    means = np.concatenate([ball, plane]).astype(np.float32)
    covariances = np.zeros((len(means), 6), np.float32)
    covariances[:, [0, 3, 5]] = 0.005**2
    casts = np.arange(len(means)) < 12000
    return means, covariances, np.full(len(means), 0.95, np.float32), casts


@pytest.mark.parametrize("slant", [0.0, 0.7])
def test_shadow_of_a_ball_is_the_ellipse(slant):
    means, covariances, opacities, casts = _plane_and_ball()
    light = np.array([slant, 1.0, 0.0]) * 200  # so far away that its rays are parallel
    lit = lit_shares(means, covariances, opacities, light, casts=casts, size=256)
    p = means[~casts].astype(float)
    # a parallel ray through (x, 0, z) passes the ball's centre at the distance of the point's offset across the ray
    ray = np.array([slant, 1.0, 0.0]) / np.hypot(slant, 1.0)
    offset = p - [0, 1.0, 0]
    across = np.linalg.norm(offset - (offset @ ray)[:, None] * ray, axis=1)
    edge = 0.03
    dark, bright = across < 0.3 - edge, across > 0.3 + edge
    assert lit[~casts][dark].max() < 0.5 < lit[~casts][bright].min()
    area = (1 - lit[~casts]).sum() * 0.03**2
    reach = 0.3 + 1.5 * 0.005  # the outermost Gaussians stick out by about so much
    ellipse = np.pi * reach**2 * np.hypot(slant, 1.0)
    assert area == pytest.approx(ellipse, rel=0.05)
    top = casts & ((means - np.array([0, 1, 0])) @ ray > 0.25)
    assert lit[top].mean() > 0.95, "the lit side does not shade itself"
    assert (lit_shares(means, covariances, opacities, light, casts=np.zeros(len(means), bool)) == 1).all()
    hidden = lit_shares(means, covariances, opacities, light, casts=casts, exposure=np.zeros(len(means), np.float32))
    assert (hidden == 1).all()


def test_views_from_everywhere_are_finite(stage):
    for position in ([0, 5, 0.001], [0, 0.75, 0], [3, 0.1, 3]):
        camera = look_at(np.array(position), np.array([0, 0.7, 0.0]), up=np.array([0, 1, 0]), width=80, height=60)
        assert np.isfinite(stage.picture(camera).colour).all()


def test_the_shipped_scene_is_the_script_s():
    folder = shipped_scene()
    shipped, made = load_scene(folder), example_scene(splats=SHIPPED)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6
    assert shipped.objects == made.objects and shipped.view == made.view
    np.testing.assert_array_equal(shipped.labels, made.labels)
    np.testing.assert_allclose(shipped.gaussians.means, made.gaussians.means, atol=2**-12)
    colours = shipped.gaussians.base_colours - made.gaussians.base_colours
    assert np.abs(colours).max() < 0.01


def test_what_stands_on_nothing_is_said(scene, tmp_path, capsys):
    assert Stage(scene).falls == [0.0, 0.0, 0.0] and not Stage(scene).warnings
    g = scene.gaussians
    lifted = np.array(g.means)
    lifted[scene.labels == 1, 1] += 0.5
    stage = Stage(replace(scene, gaussians=replace(g, means=lifted)))
    assert stage.falls[0] == pytest.approx(0.5, abs=0.06) and stage.falls[1:] == [0.0, 0.0]
    assert "'red jelly' touches nothing: it falls 0." in stage.warnings[0] and len(stage.warnings) == 1
    alone = replace(scene, gaussians=g.select(scene.labels > 0), labels=scene.labels[scene.labels > 0], plane=None)
    stage = Stage(alone)
    assert all("falls out of sight" in sentence for sentence in stage.warnings)
    folder = save_scene(alone, tmp_path / "alone")
    (tmp_path / "s.json").write_text('{"seconds": 4, "inputs": []}')
    with pytest.raises(SystemExit) as stop:
        main(["scene", "simulate", str(folder), "--script", str(tmp_path / "s.json"), "--json"])
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert said.err.count("warning: ") == len(stage.warnings) == len(json.loads(said.out)["warnings"]) > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["simulate", "--script", "s.json", "--substeps", "0"], "1 to 200 substeps"),
        (["simulate", "--script", "s.json", "--vertices", "3"], "8 to 200,000 vertices"),
        (["view", "--no-browser", "--port", "99999"], "a port lies within 0 and 65535"),
        (["view", "--no-browser", "--rate", "1000"], "10 to 120 ticks a second"),
        (["view", "--no-browser", "--certificate", "c.pem"], "a certificate needs its key"),
        (["view", "--no-browser", "--solver", "magic"], "numba, coloured or warp, not 'magic'"),
    ],
)
def test_options_out_of_bounds_are_one_sentence(scene, tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    save_scene(scene, tmp_path / "s")
    (tmp_path / "s.json").write_text('{"seconds": 1, "inputs": []}')
    with pytest.raises(SystemExit) as stop:
        main(["scene", arguments[0], "s", *arguments[1:]])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and expected in said and said.count("\n") == 1


def test_the_cage_s_resolution_is_one_option(scene, tmp_path, capsys):
    folder = save_scene(scene, tmp_path / "s")
    (tmp_path / "s.json").write_text('{"seconds": 0.1, "inputs": []}')
    counts = []
    for vertices in ("200", "2000"):
        with pytest.raises(SystemExit):
            main(
                [
                    "scene",
                    "simulate",
                    str(folder),
                    "--script",
                    str(tmp_path / "s.json"),
                    "--vertices",
                    vertices,
                    "--json",
                ]
            )
        counts.append([row["vertices"] for row in json.loads(capsys.readouterr().out)["objects"]])
    assert all(a < 300 and b > 1200 for a, b in zip(*counts, strict=True))

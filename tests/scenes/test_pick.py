"""Selecting: boxes and clicks become objects; the stage goes on with them; sessions with selections replay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.scenes import Stage, apply_input, example_scene, load_scene, save_scene, simulate
from isometry.scenes.files.cameras import look_at
from isometry.scenes.inputs import Script
from isometry.scenes.objects import Stroke, cut, pick
from isometry.scenes.objects.cut import _least_cut, cut_out

pytest.importorskip("cv2")
SPLATS = 6000
WIDTH, HEIGHT = 480, 360


@pytest.fixture(scope="module")
def whole():
    return example_scene(splats=SPLATS)


@pytest.fixture(scope="module")
def bare(whole):
    """The same splats, of which nothing is an object yet."""
    return whole.with_objects((), np.zeros(len(whole.labels)))


def camera(whole, turn: float = 0.0):
    position = np.array([1.75 * np.sin(turn), 1.35, 1.75 * np.cos(turn)])
    return look_at(position, [0, 0.72, 0], up=[0, 1, 0], width=WIDTH, height=HEIGHT, field_of_view=42)


def shadow_of(whole, label: int, seen, margin: float = 0.015):
    """The box around an object in a view, as a person would draw it."""
    points = whole.part(label).means.astype(float) @ seen.rotation.T + seen.translation
    x = (seen.fx * points[:, 0] / points[:, 2] + seen.cx) / seen.width
    y = (seen.fy * points[:, 1] / points[:, 2] + seen.cy) / seen.height
    return (x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin)


def overlap(found, truth) -> float:
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_box_takes_the_thing_from_all_sides(whole, bare, label):
    seen = camera(whole)
    found = pick(bare.gaussians, [Stroke(seen, box=shadow_of(whole, label, seen))])
    truth = whole.labels == label
    assert overlap(found, truth) > 0.95
    behind = truth & ((whole.gaussians.means - whole.part(label).means.mean(axis=0))[:, 2] < -0.03)
    assert found[behind].mean() > 0.95, "the side that this view does not show came with it"


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_click_takes_it_too(whole, bare, label):
    seen = camera(whole, -0.4)
    points = whole.part(label).means.astype(float)
    front = points[np.argsort(np.linalg.norm(points - seen.position, axis=1))[: len(points) // 5]].mean(axis=0)
    x, y, z = seen.rotation @ front + seen.translation
    click = ((seen.fx * x / z + seen.cx) / seen.width, (seen.fy * y / z + seen.cy) / seen.height)
    assert overlap(pick(bare.gaussians, [Stroke(seen, inside=(click,))]), whole.labels == label) > 0.9


def test_clicks_join_and_take_away(whole, bare):
    """A box around two things; a click on one of them says which is not meant."""
    seen = camera(whole)
    boxes = np.array([shadow_of(whole, label, seen) for label in (2, 3)])
    both = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
    cushion = [(middles[1][0] + dx, middles[1][1] + dy) for dx in (-0.02, 0.02) for dy in (-0.03, 0, 0.03)]
    left, top, right, bottom = boxes[0]
    ring = [(left + share * (right - left), bottom - 0.3 * (bottom - top)) for share in (0.25, 0.5, 0.75)]
    found = pick(bare.gaussians, [Stroke(seen, both, tuple(cushion), tuple(ring))])
    assert overlap(found, whole.labels == 3) > 0.7
    assert found[whole.labels == 2].mean() < 0.1


def test_a_thing_coloured_like_its_table_is_found_by_its_outline(whole):
    """Camouflage: every object wears the table's wood."""
    g, rng = whole.gaussians, np.random.default_rng(0)
    harmonics = g.harmonics.copy()
    wood = np.nonzero((whole.labels == 0) & (g.means[:, 1] > 0.6))[0]
    mine = np.nonzero(whole.labels > 0)[0]
    harmonics[mine] = harmonics[rng.choice(wood, len(mine))]
    seen = camera(whole)
    found = pick(replace(g, harmonics=harmonics), [Stroke(seen, box=shadow_of(whole, 1, seen))])
    assert overlap(found, whole.labels == 1) > 0.7


def test_the_least_cut_is_the_least():
    """By hand: a chain of four, of which the ends are sure; it parts at its weakest link."""
    chain = np.array([[0, 1], [1, 2], [2, 3]])
    for weakest in range(3):
        strengths = np.full(3, 1.0)
        strengths[weakest] = 0.2
        mine = _least_cut(np.array([9.0, 0.1, -0.1, -9.0]), chain, strengths)
        assert mine.tolist() == [n <= weakest for n in range(4)]
    rng = np.random.default_rng(0)
    for _ in range(20):  # against all divisions of eight
        lean = rng.normal(size=8)
        links = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if rng.random() < 0.4]).reshape(-1, 2)
        strengths = rng.random(len(links))

        def cost(mine, lean=lean, links=links, strengths=strengths):
            return -lean[mine].sum() + strengths[mine[links[:, 0]] != mine[links[:, 1]]].sum()

        best = min(cost(np.array([bits >> k & 1 for k in range(8)], bool)) for bits in range(256))
        assert cost(_least_cut(lean, links, strengths)) == pytest.approx(best, abs=0.02)


def test_what_lies_outside_the_box_is_never_taken(whole, bare, monkeypatch):
    n = len(bare.gaussians)
    truth = whole.labels == 1
    votes = np.stack([np.zeros(n), truth.astype(float)], axis=1)
    never = truth & (bare.gaussians.means[:, 1] > 0.9)
    found = cut_out(bare.gaussians, truth, votes, never)
    monkeypatch.setattr(cut, "_LARGEST", 500)
    np.testing.assert_array_equal(cut_out(bare.gaussians, truth, votes, never & False), truth)
    assert never.sum() > 20 and not found[never].any() and found[truth & ~never].mean() > 0.9


def test_strokes_are_checked(bare, whole):
    seen = camera(whole)
    for wrong, message in (
        ({}, "needs a box"), ({"box": (0.5, 0, 0.4, 1)}, "left, top"), ({"inside": ((2.0, 0.5),)}, "within 0 and 1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            Stroke(seen, **wrong)
    with pytest.raises(InputError, match="needs a box"):
        pick(bare.gaussians, [])
    with pytest.raises(InputError, match="nothing solid is there"):
        pick(bare.gaussians, [Stroke(seen, box=(0.0, 0.0, 0.08, 0.08))])


def message(whole, label: int, **more):
    """As the page sends it: a camera that looks along -z, with y up."""
    seen = camera(whole)
    turned = seen.rotation.T @ np.diag([1.0, -1.0, -1.0])
    w = np.sqrt(max(0.0, 1 + np.trace(turned))) / 2
    q = [w, (turned[2, 1] - turned[1, 2]) / (4 * w), (turned[0, 2] - turned[2, 0]) / (4 * w),
         (turned[1, 0] - turned[0, 1]) / (4 * w)]  # fmt: skip
    stroke = {
        "position": seen.position.tolist(), "quaternion": q, "field_of_view": 42, "aspect": WIDTH / HEIGHT,
        "box": list(shadow_of(whole, label, seen)),
    }  # fmt: skip
    return {"do": "select", "strokes": [stroke], **more}


def test_the_stage_goes_on_with_the_new_object(whole, bare, tmp_path):
    with pytest.raises(InputError, match="has no objects"):
        Stage(bare)
    stage = Stage(bare, substeps=4, empty=True)
    stage.world.step()
    assert stage.picture(stage.camera(64, 48)).colour.shape == (48, 64, 3)
    assert apply_input(stage, message(whole, 1, name="the jelly")) == 0
    item = stage.scene.objects[0]
    assert (item.name, item.label) == ("the jelly", 1) and stage.world.tick == 1
    assert overlap(stage.scene.labels == 1, whole.labels == 1) > 0.95
    top = stage.world.x[stage.world.x[:, 1].argmax()].tolist()
    assert apply_input(stage, {"do": "grab", "hand": 0, "position": top}) == 0
    apply_input(stage, {"do": "move", "hand": 0, "position": [top[0], top[1] + 0.2, top[2]]})
    for _ in range(5):
        stage.world.step()
    before = stage.world.x.copy()
    # another object: the first stays where it was pulled to
    assert apply_input(stage, message(whole, 3, material="foam")) == 1
    assert stage.scene.objects[1].name == "blue thing" and stage.scene.objects[1].material.young == 2e4
    np.testing.assert_array_equal(stage.world.x[stage.world.span(0)], before)
    apply_input(stage, {"do": "dissolve", "object": 0})
    assert [item.name for item in stage.scene.objects] == ["blue thing"]
    folder = save_scene(stage.scene, tmp_path / "s")
    assert load_scene(folder).objects == stage.scene.objects


def test_names_do_not_clash_and_bad_selections_change_nothing(whole, bare):
    stage = Stage(example_scene(splats=1500), substeps=2)
    digest, objects = stage.world.digest(), stage.scene.objects
    good = message(whole, 1)
    for wrong, expected in (
        ({"strokes": []}, "1 to 8"), ({"strokes": [3]}, "a stroke has"), ({"name": "x" * 200}, "100 characters"),
        ({"strokes": [{**good["strokes"][0], "box": [0, 0, 0.03, 0.03]}]}, "nothing solid"),
        ({"strokes": [{**good["strokes"][0], "aspect": 1e9}]}, "'aspect'"),
        ({"strokes": [{**good["strokes"][0], "inside": [[0.5]]}]}, "2 finite numbers"),
        ({"material": "stone"}, "no material"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=expected):
            apply_input(stage, {**good, **wrong})
    assert stage.world.digest() == digest and stage.scene.objects == objects


def test_a_session_with_a_selection_replays(whole, bare):
    inputs = [(1, message(whole, 1, name="jelly")), (3, {"do": "transform", "object": 0, "move": [0, 0.1, 0]})]
    first = simulate(Stage(bare, substeps=3, empty=True), Script(8, inputs))
    again = simulate(Stage(bare, substeps=3, empty=True), Script(8, first.log.inputs, first.digest))
    assert again.digest == first.digest

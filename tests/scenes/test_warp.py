"""The warp solver does what the numba solver does; where warp is not installed, its kernels run in plain Python."""

from __future__ import annotations

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from isometry.errors import InputError, MissingExtraError
from isometry.scenes import Stage, World, apply_input, example_scene
from tests.scenes import plain_warp
from tests.scenes.blocks import body


@pytest.fixture
def warp(monkeypatch):
    if importlib.util.find_spec("warp") is None:
        monkeypatch.setitem(sys.modules, "warp", plain_warp.make())
    yield
    sys.modules.pop("isometry.scenes.physics.on_warp", None)


def test_solvers_are_named_and_a_missing_one_said(monkeypatch):
    with pytest.raises(InputError, match="'numba' or 'warp'"):
        World([], solver="taichi")
    monkeypatch.setitem(sys.modules, "warp", None)
    monkeypatch.delitem(sys.modules, "isometry.scenes.physics.on_warp", raising=False)
    with pytest.raises(MissingExtraError, match=r"isometry\[gpu\]"):
        World([body((1, 1, 1), 0.1)], solver="warp")


def test_pairs_are_sorted_into_groups_that_share_no_vertex():
    worlds = [body((3, 2, 3), 0.05, at=(0, 0.1, 0)), body((3, 2, 3), 0.05, at=(0.02, 0.2, 0.02))]
    world = World(worlds, substeps=4)
    for _ in range(30):
        world.step()
    groups = world._pair_groups
    assert groups[-1] > 5, "the blocks touch"
    for first, last in itertools.pairwise(groups[:-1]):
        vertices = world.tets[world._p_tet[world._pairs[first:last].ravel()]].reshape(last - first, 8)
        assert len(np.unique(vertices)) == sum(len(set(row)) for row in vertices)
    for first, last in itertools.pairwise(world._p_colours):
        vertices = world.tets[world._p_tet[first:last]]
        assert len(np.unique(vertices)) == vertices.size


def test_warp_agrees_on_a_twisted_block(warp):

    def run(solver):
        world = World(
            [body((2, 4, 2), 0.05, at=(0, 0.3, 0), pinned=lambda v: v[:, 1] < 0.301)], gravity=(0, -9.81, 0), plane=None,
            substeps=5, solver=solver, device=None if solver == "numba" else "cpu",
        )  # fmt: skip
        top = world.rest[:, 1] > 0.49
        angle = 0.6
        x, z = world.x[top, 0] - 0.05, world.x[top, 2] - 0.05
        world.x[top, 0] = 0.05 + np.cos(angle) * x + np.sin(angle) * z
        world.x[top, 2] = 0.05 + np.cos(angle) * z - np.sin(angle) * x
        start = world.x.copy()
        for _ in range(12):
            world.step()
        return world, np.linalg.norm(world.x - start, axis=1).max()

    (ours, moved), (theirs, _) = run("numba"), run("warp")
    assert moved > 0.02, "something happened"
    np.testing.assert_allclose(theirs.x, ours.x, atol=3e-5)


def test_warp_agrees_on_a_scene_with_hands_and_contact(warp):
    scene = example_scene(splats=1200)

    def run(solver):
        stage = Stage(scene, substeps=2, solver=solver, device=None if solver == "numba" else "cpu")
        jelly = stage.world.x[stage.world.span(0)]
        top = jelly[jelly[:, 1].argmax()].astype(float)
        apply_input(stage, {"do": "grab", "hand": 0, "position": top.tolist()})
        for k in range(1, 4):
            goal = top + k * np.array([0.06, 0.012, 0.01])
            apply_input(stage, {"do": "move", "hand": 0, "position": goal.tolist()})
            stage.world.step()
        return stage.world

    ours, theirs = run("numba"), run("warp")
    assert theirs.lost == ours.lost == 0
    moved = np.linalg.norm(ours.x - ours.rest, axis=1)
    assert moved.max() > 0.1
    np.testing.assert_allclose(theirs.x, ours.x, atol=2e-3)
    assert np.median(np.linalg.norm(theirs.x - ours.x, axis=1)) < 3e-5


def test_material_and_size_reach_the_device(warp):
    worlds = [World([body((2, 2, 2), 0.05, at=(0, 0.01, 0))], substeps=4, solver=s) for s in ("numba", "warp")]
    for world in worlds:
        world.step()
        world.transform(0, scale=1.5, move=np.array([0, 0.02, 0]))
        world.set_substeps(6)
        for _ in range(10):
            world.step()
    np.testing.assert_allclose(worlds[1].x, worlds[0].x, atol=1e-4)

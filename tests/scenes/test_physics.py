"""The solver against what mechanics says, and its guards."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from isometry.errors import InputError
from isometry.scenes import Gaussians
from isometry.scenes.physics import PRESETS, Material, StillGrid, World, material, still, still_grid
from tests.scenes.blocks import body, solid

NOWHERE = {"plane": None}


def momentum(world: World) -> np.ndarray:
    return (world.masses[:, None] * world.v).sum(axis=0)


def test_rest_stays():
    for young, poisson in ((1e3, 0.3), (1e5, 0.45), (1e7, 0.2)):
        world = World([body((3, 3, 3), 0.05, young=young, poisson=poisson)], gravity=(0, 0, 0), **NOWHERE)
        for _ in range(5):
            world.step()
        assert np.abs(world.x - world.rest).max() < 1e-6


def test_free_fall():
    world = World([body((2, 3, 2), 0.1)], **NOWHERE)
    for _ in range(30):
        world.step()
    n, h = 30 * 20, 1 / 1200
    fallen = (world.rest - world.x)[:, 1]
    np.testing.assert_allclose(fallen, 9.81 * h * h * n * (n + 1) / 2, rtol=1e-3)  # the sum that the steps make
    np.testing.assert_allclose(fallen.mean(), 9.81 * 0.5**2 / 2, rtol=3e-3)


def test_hanging_bar_stretches_by_hooke():
    # a slender bar under its own weight: rho g L^2 / (2 E)
    young, density, length = 2e5, 1000.0, 0.8
    errors = []
    for cell in (0.2, 0.1):
        shape = (round(0.2 / cell), round(length / cell), round(0.2 / cell))
        hung = body(
            shape,
            cell,
            young=young,
            poisson=0.0,
            density=density,
            damping=8.0,
            pinned=lambda x: x[:, 1] > length - 1e-6,
        )
        world = World([hung], substeps=40, **NOWHERE)
        for _ in range(120):
            world.step()
        lower = world.rest[:, 1] < 1e-6
        stretched = (world.rest - world.x)[lower, 1].mean()
        errors.append(abs(stretched / (density * 9.81 * length**2 / (2 * young)) - 1))
    assert max(errors) < 0.04


def test_momentum_is_kept_alone_and_in_collision():
    a = body((3, 3, 3), 0.05, ball=0.6)
    b = body((3, 3, 3), 0.05, at=(0.25, 0.02, 0.01), density=400.0, ball=0.6)
    world = World([a, b], gravity=(0, 0, 0), **NOWHERE)
    rng = np.random.default_rng(0)
    world.v[:] = 0.2 * rng.normal(size=world.v.shape)
    world.v[world.span(0), 0] += 2.0
    before = momentum(world)
    gap = world.x[world.span(1), 0].mean() - world.x[world.span(0), 0].mean()
    for _ in range(30):
        world.step()
    after = momentum(world)
    np.testing.assert_allclose(after, before, atol=2e-3 * np.abs(before).max())
    push = (world.masses[:, None] * world.v)[world.span(1)].sum(axis=0)
    assert push[0] > 0.1 * before[0], "the second block was hit"
    assert world.x[world.span(1), 0].mean() - world.x[world.span(0), 0].mean() > 0.6 * gap, "and not passed through"


def test_back_ends_agree_to_the_bit_and_runs_repeat():
    def run(coloured):
        world = World(
            [body((4, 4, 4), 0.05, at=(0, 0.02, 0)), body((2, 2, 2), 0.05, at=(0.05, 0.4, 0.03))], coloured=coloured
        )
        world.grab(0, [0.1, 0.2, 0.1], radius=0.08)
        for n in range(25):
            world.move(0, [0.1 + 0.004 * n, 0.25, 0.1])
            if n == 15:
                world.release(0)
            world.step()
        return world

    one, two, again = run(False), run(True), run(False)
    np.testing.assert_array_equal(one.x, two.x)
    assert one.digest() == again.digest() == two.digest()
    assert np.abs(one.x - one.rest).max() > 0.05


def test_rigid_motion_stores_no_energy():
    world = World([body((3, 2, 3), 0.1)], gravity=(0, 0, 0), **NOWHERE)
    R = Rotation.from_rotvec([0.3, 0.9, -0.4]).as_matrix()
    world.x[:] = world.rest @ R.T + [1, 2, 3]
    start = world.x.copy()
    for _ in range(5):
        world.step()
    np.testing.assert_allclose(world.x, start, atol=1e-5)


def test_a_ball_rests_on_the_floor_and_friction_holds_it_on_a_slope():
    world = World([body((3, 3, 3), 0.05, at=(0, 0.05, 0), damping=2.0)])
    for _ in range(120):
        world.step()
    lowest = world.x[:, 1].min()
    assert 0.008 < lowest <= 0.0126, "a quarter of a cell is the balls' radius"
    assert world.fastest_now() < 0.05
    # slope of 20 degrees: tan = 0.36, between the two friction coefficients
    g = 9.81 * np.array([np.sin(np.radians(20)), -np.cos(np.radians(20)), 0])
    slid = []
    for friction in (0.8, 0.05):
        world = World([body((3, 3, 3), 0.05, at=(0, 0.0126, 0), friction=friction, young=5e5)], gravity=tuple(g))
        for _ in range(60):
            world.step()
        slid.append((world.x - world.rest)[:, 0].mean())
    assert slid[0] < 0.03 < 0.3 < slid[1]
    expected = 0.5 * (9.81 * (np.sin(np.radians(20)) - 0.05 * np.cos(np.radians(20))))
    np.testing.assert_allclose(slid[1], expected, rtol=0.1)


def test_things_lie_on_the_still_scene():
    table = solid((40, 4, 40), 0.02, at=(0, 0.3, 0))
    grid = still_grid(table, cell=0.03)
    world = World([body((2, 2, 2), 0.08, at=(0.3, 0.45, 0.3), damping=2.0)], still=grid)
    for _ in range(90):
        world.step()
    assert 0.36 < world.x[:, 1].min() < 0.42
    assert still_grid(table.select(np.zeros(len(table), bool)), cell=0.03).distances.size == 1
    assert StillGrid.none().distances.size == 1


def test_inverted_and_flattened_bodies_recover():
    for squash in (np.diag([1, -1, 1]), np.diag([1, 0, 1]), np.diag([0.1, 0.1, 0.1])):
        world = World([body((3, 3, 3), 0.1, damping=4.0)], gravity=(0, 0, 0), **NOWHERE)
        rng = np.random.default_rng(0)
        world.x[:] = (world.rest - 0.15) @ squash + 1e-3 * rng.normal(size=world.rest.shape)
        for _ in range(180):
            world.step()
        assert np.isfinite(world.x).all()
        F = np.linalg.det((world.x[world.tets][:, 1:] - world.x[world.tets][:, :1]).astype(float)) / 6 / world.volumes
        assert abs(abs(np.median(F)) - 1) < 0.1
        assert world.fastest_now() <= 20.001


def test_lost_vertices_come_back():
    world = World([body((2, 2, 2), 0.1)], gravity=(0, 0, 0), **NOWHERE)
    world.v[3] = np.nan
    world.step()
    assert world.lost > 0 and np.isfinite(world.x).all() and np.isfinite(world.v).all()
    world.v[3] = 1e30
    world.step()
    assert np.isfinite(world.x).all() and world.fastest_now() <= 20.001


def test_grab_bends_release_throws_and_undo_brings_back():
    world = World([body((4, 2, 2), 0.05, damping=0.5)], gravity=(0, 0, 0), **NOWHERE)
    assert world.grab(0, [2.0, 0, 0], radius=0.05) is None, "nothing in reach"
    assert world.grab(0, [0.2, 0.05, 0.05], radius=0.06) == 0
    assert world.grab(1, [0.0, 0.05, 0.05], radius=0.06) == 0
    for n in range(1, 31):  # two hands stretch it
        world.move(0, [0.2 + 0.003 * n, 0.05, 0.05])
        world.move(1, [0.0 - 0.003 * n, 0.05, 0.05])
        world.step()
    assert np.ptp(world.x[:, 0]) > 0.35
    corners = world.x[world.tets].astype(float)
    assert (np.linalg.det(corners[:, 1:] - corners[:, :1]) > 0).all(), "no tetrahedron was turned over"
    world.release(1)
    world.release(0)
    assert world.undo() and world.undo()
    np.testing.assert_array_equal(world.x, world.rest.astype(np.float32))
    assert not world.undo()


def test_a_thrown_body_flies_on():
    world = World([body((4, 2, 2), 0.05, damping=0.0)], gravity=(0, 0, 0), **NOWHERE)
    world.grab(0, [0.1, 0.05, 0.05], radius=0.08)
    for n in range(1, 31):
        world.move(0, [0.1 + 0.02 * n, 0.05, 0.05])
        world.step()
    world.release(0)
    start = world.x.mean(axis=0)
    for _ in range(30):
        world.step()
    np.testing.assert_allclose(world.x.mean(axis=0) - start, [0.6, 0, 0], atol=0.06)  # 1.2 m/s for half a second


def test_too_stiff_for_the_step_is_said_and_harmless():
    world = World([body((3, 3, 3), 0.05, young=1e9)], gravity=(0, 0, 0), **NOWHERE)
    assert world.softened[0] < 0.01
    world.x += np.random.default_rng(0).normal(0, 1e-4, world.x.shape).astype(np.float32)
    for _ in range(30):
        world.step()
    assert world.fastest_now() < 1e-2
    before = world.softened[0]
    world.set_substeps(40)
    np.testing.assert_allclose(world.softened[0], 4 * before, rtol=1e-6)
    assert World([body((3, 3, 3), 0.05, young=1e5)]).softened[0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="1 to 200"):
        world.set_substeps(0)


def test_hands_turn_what_they_hold():
    world = World([body((2, 2, 2), 0.05, damping=3.0, young=1e6)], gravity=(0, 0, 0), **NOWHERE)
    world.grab(0, [0.05, 0.05, 0.05], radius=0.2)
    turn = Rotation.from_rotvec([0, np.pi / 2, 0])
    for n in range(1, 31):
        q = Rotation.from_rotvec([0, np.pi / 60 * n, 0]).as_quat()
        world.move(0, [0.05, 0.05, 0.05], q[[3, 0, 1, 2]])
        world.step()
    np.testing.assert_allclose(world.x - 0.05, (world.rest - 0.05) @ turn.as_matrix().T, atol=4e-3)


def test_bodies_can_be_moved_turned_and_scaled():
    world = World([body((2, 2, 2), 0.05)], gravity=(0, 0, 0), **NOWHERE)
    world.transform(0, move=[0, 1, 0], turn=[np.sqrt(0.5), 0, np.sqrt(0.5), 0], scale=2.0)
    np.testing.assert_allclose(np.ptp(world.x, axis=0), 0.2, rtol=1e-5)
    np.testing.assert_allclose(world.masses.sum(), 1000 * 0.2**3, rtol=1e-5)
    start = world.x.copy()
    for _ in range(5):
        world.step()
    np.testing.assert_allclose(world.x, start, atol=1e-5)
    world.reset()
    np.testing.assert_allclose(world.masses.sum(), 1000 * 0.1**3, rtol=1e-5)
    assert world.undo()
    np.testing.assert_allclose(np.ptp(world.x, axis=0), 0.2, rtol=1e-5)
    with pytest.raises(InputError, match=r"0\.05 and 20"):
        world.transform(0, scale=100)
    with pytest.raises(InputError, match="numbered from 0"):
        world.transform(3)


def test_materials():
    assert set(PRESETS) == {"jelly", "foam", "rubber", "wood"}
    lam, mu = Material(1.0e6, 0.25, 1000.0).lame
    np.testing.assert_allclose([lam, mu], [4e5, 4e5])
    with pytest.raises(InputError, match="did you mean 'jelly'"):
        material("jely")
    with pytest.raises(InputError, match="poisson of a material"):
        Material(1e5, 0.5, 1000.0)
    with pytest.raises(InputError, match="young"):
        Material(float("nan"), 0.3, 1000.0)
    soft, hard = [], []
    for preset, out in (("jelly", soft), ("wood", hard)):
        world = World([body((3, 3, 3), 0.05, at=(0, 0.02, 0))])
        world.set_material(0, material(preset))
        for _ in range(40):
            world.step()
            out.append(np.ptp(world.x[:, 1]))
    assert min(soft) < 0.97 * 0.15 < 0.99 * 0.15 < min(hard)


def test_hands_are_numbered():
    world = World([body((2, 2, 2), 0.05)])
    with pytest.raises(InputError, match="0 to 7"):
        world.grab(9, [0, 0, 0])


def test_a_world_may_be_empty():
    world = World([])
    world.step()
    assert world.tick == 1 and world.grab(0, [0, 0, 0]) is None and world.fastest_now() == 0
    world.reset()
    assert world.undo() and world.digest() == World([]).digest()


def test_pins_hold_what_was_held_and_undo_frees_it():
    world = World([body((2, 4, 2), 0.05, at=(0, 0.5, 0))], substeps=8)
    start = world.x.copy()
    assert world.pin(0) is None, "an empty hand pins nothing"
    top = world.x[world.x[:, 1].argmax()].astype(float)
    assert world.grab(0, top, radius=0.08) == 0
    rows = world.held()[0]
    np.testing.assert_allclose(world.grip(0) + top, start[rows], atol=1e-6)
    assert len(world.grip(5)) == 0 and world.pin(0) == 0
    world.release(0)
    for _ in range(120):
        world.step()
    np.testing.assert_array_equal(world.x[rows], start[rows])
    others = np.setdiff1d(np.arange(len(start)), rows)
    assert world.x[others, 1].min() > 0.2, "it hangs there"
    assert world.grab(1, top, radius=0.001) is None, "what is pinned cannot be taken"
    world.unpin(0)
    for _ in range(60):
        world.step()
    assert world.x[:, 1].max() < 0.4, "it fell"
    assert world.undo()
    for _ in range(10):
        world.step()
    np.testing.assert_allclose(world.x[rows], start[rows], atol=1e-6)
    assert world.undo() and world.w.min() > 0, "before the pin"
    with pytest.raises(InputError, match="none is 3"):
        world.unpin(3)


def test_the_grid_of_a_huge_scene_is_cut_and_coarsened(monkeypatch):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-1, 1, (2000, 3)) * [1, 0.01, 1], rng.normal(0, 300, (10, 3))])
    n = len(points)
    g = Gaussians(
        points, np.full((n, 3), np.log(0.02)), np.tile([1.0, 0, 0, 0], (n, 1)), np.full(n, 3.0), np.zeros((n, 1, 3))
    )
    grid = still_grid(g, cell=0.02)
    assert grid.cell == 0.02 and grid.distances.size < 16_000_000, "without the strays it fits"
    monkeypatch.setattr(still, "_NODES", 10_000)
    coarse = still_grid(g, cell=0.02)
    assert 0.02 < coarse.cell < 0.2 and coarse.distances.size <= 10_000
    places = coarse.origin + np.argwhere(np.ones(coarse.distances.shape)) * coarse.cell
    assert (np.abs(places[coarse.distances.ravel() < 0.5 * coarse.cell][:, 1]) < 2 * coarse.cell).all(), (
        "where the sheet is"
    )

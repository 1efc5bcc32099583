"""Cages and the two-level embedding: exact under affine maps, better than one level under a twist."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from isometry.errors import InputError, MissingExtraError
from isometry.scenes import Stage, example_scene
from isometry.scenes.cage import build_cage, cage_from_mesh, qualities
from isometry.scenes.embedding import bind, deform
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.meshed import object_cage
from tests.scenes.blocks import solid


def ball(n=2000, sigma=0.03, seed=0, hollow=False) -> Gaussians:
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(n, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    if not hollow:
        d *= rng.uniform(0, 1, (n, 1)) ** (1 / 3)
    scales = np.log(sigma * np.array([1, 0.3, 0.1])) * np.ones((n, 1))
    return Gaussians(d, scales, rng.normal(size=(n, 4)), np.full(n, 2.0), np.zeros((n, 1, 3)))


def full(c):
    return np.stack([c[:, [0, 1, 2]], c[:, [1, 3, 4]], c[:, [2, 4, 5]]], axis=1)


def test_lattice_is_sound():
    g = ball(hollow=True)
    cage = build_cage(g, cell=0.2)
    assert (cage.rest_volumes > 0).all()
    np.testing.assert_allclose(cage.rest_volumes, 0.2**3 / 6, rtol=1e-9)
    assert cage.filled > 100 and cage.pieces == 1 and len(cage.filled_cells) == cage.filled
    assert build_cage(g, cell=0.2, fill=False).filled == 0
    for a, b in zip(cage.colours[:-1], cage.colours[1:], strict=True):
        assert len(np.unique(cage.tets[a:b])) == 4 * (b - a), "tetrahedra of one colour share no vertex"
    tets, weights = cage.locate(g.means)
    assert weights.min() > -1e-9
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose((cage.vertices[cage.tets[tets]] * weights[..., None]).sum(axis=1), g.means, atol=1e-6)
    far = np.array([[5.0, 0, 0]])
    tets, weights = cage.locate(far)
    assert weights.min() < -1
    np.testing.assert_allclose((cage.vertices[cage.tets[tets]] * weights[..., None]).sum(axis=1), far, atol=1e-9)
    edges = np.sort(cage.surface[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all(), "the surface is closed"


def test_cell_follows_the_wanted_vertices():
    for wanted in (300, 2000):
        assert 0.5 * wanted < len(build_cage(ball(), vertices=wanted).vertices) < 1.6 * wanted


def test_affine_motion_gives_its_matrix_and_rigid_motion_keeps_eigenvalues():
    g = ball(500)
    cage = build_cage(g, cell=0.25)
    rng = np.random.default_rng(3)
    A = np.eye(3) + 0.4 * rng.normal(size=(3, 3))
    for levels in (1, 2):
        bound = bind(g, cage, levels=levels)
        x = cage.vertices @ A.T + [1, 2, 3]
        means, moved, F, _ = deform(bound, cage, x, g.covariances())
        np.testing.assert_allclose(F, np.tile(A, (500, 1, 1)), atol=2e-4)
        np.testing.assert_allclose(means, g.means @ A.T + [1, 2, 3], atol=1e-5)
        np.testing.assert_allclose(full(moved), A @ full(g.covariances()) @ A.T, atol=1e-6)
        R = Rotation.random(random_state=1).as_matrix()
        _, moved, _, turned = deform(bound, cage, cage.vertices @ R.T, g.covariances(), turns=True)
        before, after = np.linalg.eigvalsh(full(g.covariances())), np.linalg.eigvalsh(full(moved))
        np.testing.assert_allclose(after, before, rtol=5e-3, atol=1e-8)
        np.testing.assert_allclose(turned, np.tile(R, (500, 1, 1)), atol=3e-4)
        _, same, F, _ = deform(bound, cage, cage.vertices, g.covariances())
        np.testing.assert_allclose(same, g.covariances(), atol=1e-6)
    assert bind(g, cage, levels=1).fallback_share == 1.0


def test_two_levels_beat_one_under_a_twist():
    g = ball(1500, sigma=0.05)
    cage = build_cage(g, cell=0.25)

    def twist(p):
        a = 1.2 * p[:, 2]
        return np.stack(
            [p[:, 0] * np.cos(a) - p[:, 1] * np.sin(a), p[:, 0] * np.sin(a) + p[:, 1] * np.cos(a), p[:, 2]], 1
        )

    step, centre = 1e-5, g.means.astype(np.float64)
    J = np.stack([(twist(centre + step * e) - twist(centre - step * e)) / (2 * step) for e in np.eye(3)], axis=2)
    wanted = J @ full(g.covariances()) @ J.transpose(0, 2, 1)
    errors = {}
    for levels in (1, 2):
        bound = bind(g, cage, levels=levels)
        _, moved, _, _ = deform(bound, cage, twist(cage.vertices), g.covariances())
        assert (np.linalg.eigvalsh(full(moved).astype(float)) > 0).all()
        error = np.linalg.norm(full(moved) - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
        errors[levels] = np.median(error)
    assert errors[2] < 0.6 * errors[1]
    bound = bind(g, cage)
    assert bound.fallback_share < 0.05 and bound.bytes == 1500 * (16 + 64 + 36 + 4 + 16) and bound.seconds > 0


def test_collapsed_cages_stay_finite():
    g = ball(200)
    cage = build_cage(g, cell=0.3)
    for x in (cage.vertices * [1, 1, 0], cage.vertices * [-1, 1, 1], cage.vertices * 0, cage.vertices * 1e4):
        means, moved, _, turned = deform(bind(g, cage), cage, x, g.covariances(), turns=True)
        assert np.isfinite(means).all() and np.isfinite(moved).all() and np.isfinite(turned).all()


def test_meshes_are_checked():
    cage = build_cage(ball(), cell=0.4)
    flipped = cage.tets.copy()
    flipped[::2] = flipped[::2][:, [0, 2, 1, 3]]
    again = cage_from_mesh(cage.vertices, flipped)
    assert (again.rest_volumes > 0).all() and len(again.tets) == len(cage.tets)
    points = ball(300, seed=4).means
    tets, weights = again.locate(points)
    np.testing.assert_allclose((again.vertices[again.tets[tets]] * weights[..., None]).sum(1), points, atol=1e-5)
    assert weights.min() > -1e-6
    sliver = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 1e-6]])
    with pytest.raises(InputError, match=r"1 of 1 tetrahedra are slivers"):
        cage_from_mesh(sliver, [[0, 1, 2, 3]])
    with pytest.raises(InputError, match="numbers of the 4 vertices"):
        cage_from_mesh(sliver, [[0, 1, 2, 9]])


def test_bad_requests():
    with pytest.raises(InputError, match="selection is empty"):
        build_cage(ball().select(np.zeros(2000, bool)))
    g = ball(10)
    faint = Gaussians(g.means, g.log_scales, g.quaternions, np.full(10, -9.0), g.harmonics)
    with pytest.raises(InputError, match="none of the 10"):
        build_cage(faint)
    with pytest.raises(InputError, match="larger cell"):
        build_cage(g, cell=1e-4)
    with pytest.raises(InputError, match="larger than 0"):
        build_cage(g, cell=-1.0)
    with pytest.raises(InputError, match="1 or 2 levels"):
        bind(g, build_cage(ball(), cell=0.5), levels=3)


def _delaunay(points, triangles):
    """A mesher for convex things; every second tetrahedron comes turned over."""
    rng, middle = np.random.default_rng(0), points.mean(axis=0)
    every = np.vstack([points, middle + rng.uniform(0.2, 0.8, (len(points), 1)) * (points - middle)])
    tets = Delaunay(every).simplices
    corners = every[tets]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    edges = np.linalg.norm(corners[:, [0, 0, 0, 1, 1, 2]] - corners[:, [1, 2, 3, 2, 3, 3]], axis=2)
    tets = tets[6 * np.sqrt(2) * volumes / edges.max(axis=1) ** 3 > 0.03]
    tets[::2] = tets[::2][:, [1, 0, 2, 3]]
    return every, tets


def test_a_mesher_fills_the_rounded_outside():
    part = solid((5, 5, 5), 0.1)
    cage, lattice = object_cage(part, _delaunay, vertices=150), object_cage(part, vertices=150)
    assert (cage.rest_volumes > 0).all()
    assert cage.rest_volumes.sum() == pytest.approx(lattice.rest_volumes.sum(), rel=0.25)
    assert np.median(cage.locate(part.means)[1].min(axis=1)) > -0.05, "the object lies inside"


def test_meshers_that_fail_are_said(monkeypatch):
    part = solid((3, 3, 3), 0.1)
    with pytest.raises(InputError, match="not by 'magic'"):
        object_cage(part, "magic")
    monkeypatch.setitem(sys.modules, "pytetwild", None)
    with pytest.raises(MissingExtraError, match=r"isometry\[mesh\]"):
        object_cage(part, "pytetwild")

    def half(points, triangles):
        made, tets = _delaunay(points, triangles)
        return made, tets[: len(tets) // 3]

    with pytest.raises(InputError, match="took the outside for something"):
        object_cage(part, half)


@pytest.mark.parametrize("name", ["pytetwild", "tetgen"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_installed_meshers_fill_the_objects_of_the_example(name, number, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    scene = example_scene(splats=6000)
    part = scene.part(scene.objects[number].label)
    cage = object_cage(part, name, vertices=500)
    assert 250 < len(cage.vertices) < 1000, "about as fine as the lattice"
    assert (cage.rest_volumes > 0).all() and qualities(cage.vertices, cage.tets).min() >= 0.02
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"
    bound = bind(part, cage)
    assert bound.fallback_share < 0.2
    # a turn of the cage turns the splats with it
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    means, _, gradients, _ = deform(bound, cage, cage.vertices @ turn.T, part.covariances())
    np.testing.assert_allclose(means, part.means @ turn.T, atol=2e-5)
    np.testing.assert_allclose(gradients, np.tile(turn, (len(part), 1, 1)), atol=2e-3)


@pytest.mark.parametrize("name", ["pytetwild", "tetgen"])
def test_an_object_on_a_mesher_s_cage_falls_and_rests(name):
    pytest.importorskip(name)
    scene = example_scene(splats=3000)
    jelly = replace(scene.objects[0], mesher=name, vertices=200)
    stage = Stage(scene.with_objects((jelly, *scene.objects[1:]), scene.labels), substeps=8)
    for _ in range(60):
        stage.world.step()
    assert stage.world.lost == 0 and np.isfinite(stage.world.x).all()
    low = stage.world.x[stage.world.span(0)][:, 1].min()
    assert 0.6 < low < 0.8, "on the table"

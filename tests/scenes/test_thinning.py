"""Scenes too large for a page: fewer splats that cover as much, or a refusal with numbers."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.cli.main import main
from isometry.errors import InputError
from isometry.scenes import Gaussians, example_scene, render, save_scene, thinned
from isometry.scenes.files import limits
from isometry.scenes.files.cameras import look_at
from isometry.scenes.thinning import _joined


@pytest.fixture(scope="module")
def scene():
    return example_scene(splats=6000)


def test_a_scene_within_bounds_stays_itself(scene):
    assert thinned(scene, len(scene.gaussians)) == (scene, "")


def test_neighbours_become_one_and_cover_what_they_covered(scene):
    small, note = thinned(scene, 3000)
    assert 2900 < len(small.gaussians) == len(small.labels) <= 3000 and small.objects == scene.objects
    assert note.startswith(f"{len(small.gaussians):,} splats are shown in place of {len(scene.gaussians):,}")
    camera = look_at(*map(np.array, scene.view[:2]), up=[0, 1, 0], width=96, height=72, field_of_view=scene.view[2])
    whole = render(scene.gaussians, camera).colour
    left_out = np.random.default_rng(0).permutation(len(scene.gaussians))[: len(small.gaussians)]
    error, plain = (
        float(((render(g, camera).colour - whole) ** 2).mean())
        for g in (small.gaussians, scene.gaussians.select(left_out))
    )
    assert error < 0.3 * plain, "far better than leaving as many out"
    for number in (1, 2, 3):
        assert (small.labels == number).any()
        centre = small.part(number).means.mean(axis=0)
        np.testing.assert_allclose(centre, scene.part(number).means.mean(axis=0), atol=0.02)


def test_two_that_are_joined_have_the_moments_of_both():
    """By hand: two equal round splats at -d and d on x have mean 0 and variances s^2 + d^2, s^2, s^2."""
    s, d, far = 0.01, 0.004, 50
    means = np.concatenate(
        [[[-d, 0, 0], [d, 0, 0]], np.stack([np.linspace(3, 300, far), np.zeros(far), np.zeros(far)], 1)]
    )
    n = len(means)
    g = Gaussians(means, np.full((n, 3), np.log(s)), np.tile([1.0, 0, 0, 0], (n, 1)), np.zeros(n), np.zeros((n, 1, 3)))
    one = _joined(g, np.concatenate([[0, 0], np.arange(1, far + 1)]))
    np.testing.assert_allclose(one.means[0], 0, atol=1e-9)
    np.testing.assert_allclose(one.covariances()[0], [s * s + d * d, 0, 0, s * s, 0, s * s], rtol=1e-5, atol=1e-10)
    # two half-opaque discs of area s * s in one of area s * sqrt(s * s + d * d)
    assert one.opacities[0] == pytest.approx(s * s / (s * np.hypot(s, d)), rel=1e-5)
    np.testing.assert_array_equal(one.means[1:], g.means[2:], "those that are alone stay as they are")


def test_bounds_are_said(scene):
    with pytest.raises(InputError, match="at least 100 splats, not 7"):
        thinned(scene, 7)
    least, _ = thinned(scene, 100)
    assert len(least.gaussians) <= 100 and set(least.labels) == {0, 1, 2, 3}


def test_the_page_that_would_lose_splats_for_good_is_refused(scene, tmp_path, capsys):
    folder = save_scene(scene, tmp_path / "s")
    with pytest.raises(SystemExit) as stop:
        main(["scene", "view", str(folder), "--most", "2000", "--out", str(tmp_path / "o"), "--no-browser"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and f"--most {len(scene.gaussians)}" in said and not (tmp_path / "o").exists()


def test_five_million_splats_on_a_small_machine(scene, tmp_path, monkeypatch, capsys):
    """As many as the file says: nothing is allocated before the refusal."""
    monkeypatch.setattr(limits, "available_bytes", lambda: 2 * 10**9)
    path = tmp_path / "big.splat"
    with path.open("wb") as stream:
        stream.truncate(5_000_000 * 32)  # a sparse file
    with pytest.raises(SystemExit) as stop:
        main(["scene", "build", str(path), "--out", str(tmp_path / "s")])
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2 and "5,000,000 splats" in said and "GB" in said and "cut it to" in said
    assert not (tmp_path / "s").exists()

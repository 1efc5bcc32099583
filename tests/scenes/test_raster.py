"""The tiled rasteriser against the plain sum, forward and gradient."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.errors import ShapeError
from isometry.scenes.files.cameras import look_at
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import render, render_backward, splat, vote
from tests.scenes.plain_raster import plain_render

NAMES = ("means", "log_scales", "quaternions", "logits", "harmonics")
BACKGROUND = (0.2, 0.5, 0.7)


def cloud(n: int, degree: int, seed: int, size: float = -1.6) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        rng.uniform(-0.8, 0.8, (n, 3)),
        rng.normal(size, 0.4, (n, 3)),
        rng.normal(size=(n, 4)),
        rng.uniform(-2, 3, n),
        rng.normal(0, 0.4, (n, (degree + 1) ** 2, 3)),
    )


def view(width=37, height=29):
    return look_at([0.3, -0.4, -2.5], [0, 0, 0], up=[0, -1, 0], width=width, height=height, field_of_view=40)


def doubles(g: Gaussians) -> dict:
    return {name: getattr(g, name).astype(np.float64) for name in NAMES}


@pytest.mark.parametrize(("n", "degree", "seed"), [(40, 3, 0), (300, 0, 1), (3, 1, 2), (0, 0, 3)])
def test_equals_the_plain_sum(n, degree, seed):
    g, camera = cloud(n, degree, seed), view()
    mine = render(g, camera, background=BACKGROUND, threads=2)
    colour, depth, rest, ids, weights = plain_render(doubles(g), camera, BACKGROUND)
    np.testing.assert_allclose(mine.colour, colour, atol=2e-4)
    np.testing.assert_allclose(mine.depth, depth, atol=1e-3)
    np.testing.assert_allclose(mine.rest, rest, atol=2e-4)
    assert (mine.ids == ids).mean() > 0.99
    labels = (np.arange(29 * 37).reshape(29, 37) % 5) - 1
    votes = vote(g, camera, labels, 4)
    expected = np.stack([weights[:, labels == k].sum(axis=1) for k in range(4)], axis=1)
    np.testing.assert_allclose(votes, expected, atol=5e-3, rtol=1e-3)


def test_threads_and_order_do_not_change_the_picture():
    g, camera = cloud(200, 1, 5), view(64, 48)
    one = render(g, camera, threads=1)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(render(g, camera, threads=threads).colour, one.colour)
    turned = np.random.default_rng(0).permutation(200)
    np.testing.assert_allclose(render(g.select(turned), camera).colour, one.colour, atol=1e-6)


def test_gradients_equal_finite_differences():
    g, camera = cloud(9, 3, 7, size=-1.3), view(21, 18)
    rng = np.random.default_rng(1)
    d_colour, d_depth = rng.normal(size=(18, 21, 3)), 0.3 * rng.normal(size=(18, 21))
    d_rest = rng.normal(size=(18, 21))

    def loss(p):
        colour, depth, rest, _, _ = plain_render(p, camera, BACKGROUND)
        return (colour * d_colour).sum() + (depth * d_depth).sum() + (rest * d_rest).sum()

    drawn = render(g, camera, background=BACKGROUND, threads=2)
    got = render_backward(g, camera, drawn, d_colour, d_depth=d_depth, d_rest=d_rest)
    p = doubles(g)
    for name in NAMES:
        expected = np.zeros(p[name].shape)
        for at in np.ndindex(*p[name].shape):
            step = 1e-5
            values = []
            for sign in (1, -1):
                changed = {**p, name: p[name].copy()}
                changed[name][at] += sign * step
                values.append(loss(changed))
            expected[at] = (values[0] - values[1]) / (2 * step)
        scale = np.abs(expected).max()
        # a Gaussian's rim at alpha = 1/255 is a step: its share of the difference is what is allowed here
        close = np.isclose(getattr(got, name), expected, rtol=3e-3, atol=3e-3 * scale)
        assert close.mean() >= 0.97, (name, close.mean())
        assert np.abs(getattr(got, name) - expected).max() < 0.15 * scale, name


def test_gradient_descends_to_a_target():
    target, camera = cloud(12, 0, 3), view(32, 24)
    wanted = render(target, camera).colour
    g = Gaussians(target.means + 0.03, target.log_scales + 0.2, target.quaternions, target.logits, target.harmonics * 0)
    losses = []
    for _ in range(40):
        drawn = render(g, camera)
        losses.append(float(((drawn.colour - wanted) ** 2).mean()))
        d = render_backward(g, camera, drawn, 2 * (drawn.colour - wanted) / wanted.size)
        g = Gaussians(
            g.means - 0.2 * d.means, g.log_scales - 0.5 * d.log_scales, g.quaternions - 0.5 * d.quaternions,
            g.logits - 5 * d.logits, g.harmonics - 20 * d.harmonics,
        )  # fmt: skip
    assert losses[-1] < 0.35 * losses[0]


def test_one_gaussian_is_a_known_value():
    # straight ahead at distance 4, sigma 0.1, focal 32: 2D variance (32 * 0.1 / 4)^2 + 0.3
    g = Gaussians([[0, 0, 4.0]], np.log([[0.1, 0.1, 0.1]]), [[1, 0, 0, 0]], [0.0], np.zeros((1, 1, 3)))
    camera = look_at(
        [0, 0, 0], [0, 0, 1], up=[0, -1, 0], width=33, height=33, field_of_view=2 * np.degrees(np.arctan(16.5 / 32))
    )
    drawn = render(g, camera)
    np.testing.assert_allclose(drawn.colour[16, 16], 0.25, atol=1e-5)
    np.testing.assert_allclose(drawn.colour[16, 17, 0], 0.25 * np.exp(-0.5 / 0.94), rtol=1e-4)
    np.testing.assert_allclose(drawn.expected_depth[16, 16], 4, rtol=1e-5)
    assert drawn.ids[16, 16] == 0 and drawn.ids[0, 0] == -1 and np.isinf(drawn.expected_depth[0, 0])


def test_behind_the_camera_huge_and_flat_gaussians_are_harmless():
    g = Gaussians(
        [[0, 0, -5.0], [0, 0, 5], [0, 0, 0.01], [90, 0, 1]],
        [[0, 0, 0], [9, -20, -20], [5, 5, 5], [1, 1, 1]],
        np.tile([1.0, 0, 0, 0], (4, 1)), [2.0] * 4, np.zeros((4, 1, 3)),
    )  # fmt: skip
    camera = look_at([0, 0, 0], [0, 0, 1], up=[0, -1, 0], width=40, height=30)
    drawn = render(g, camera)
    assert np.isfinite(drawn.colour).all() and not drawn.visible[0] and not drawn.visible[2]
    d = render_backward(g, camera, drawn, np.ones((30, 40, 3)))
    assert all(np.isfinite(getattr(d, name)).all() for name in NAMES)


def test_shapes_are_checked():
    g, camera = cloud(3, 0, 0), view()
    with pytest.raises(ShapeError, match="labels of a 37 x 29 view"):
        vote(g, camera, np.zeros((5, 5), int), 2)
    with pytest.raises(ShapeError, match="gradient"):
        render_backward(g, camera, render(g, camera), np.zeros((2, 2, 3)))
    with pytest.raises(ShapeError, match="must be"):
        Gaussians(np.zeros((2, 2)), np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2), np.zeros((2, 1, 3)))


def test_splat_takes_covariances():
    g, camera = cloud(30, 0, 4), view()
    same = splat(g.means, g.covariances(), g.opacities, np.maximum(0, g.harmonics[:, 0] * 0.28209479 + 0.5), camera)
    np.testing.assert_allclose(same.colour, render(g, camera).colour, atol=1e-5)

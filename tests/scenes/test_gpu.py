"""Training through gsplat: what it says without it, and that it follows the CPU's training, with the CPU rasteriser in its place."""

from __future__ import annotations

import inspect
import sys
import types
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from isometry.cli.main import main
from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.scenes import Gaussians, example_scene, render, render_backward
from isometry.scenes.capture import PRESETS, Training, build_scene
from isometry.scenes.capture.gpu import GpuTraining
from isometry.scenes.capture.photos import Photo
from isometry.scenes.capture.start import first_gaussians
from isometry.scenes.files.cameras import Camera
from isometry.scenes.raster import harmonics, projection
from isometry.scenes.raster.gpu import draw, render_on_gpu
from tests.scenes.captures import ring

torch = pytest.importorskip("torch")
render_module = sys.modules["isometry.scenes.raster.render"]
PLAN = replace(
    PRESETS["laptop"], iterations=60, longest=40, most=700, degree=1, degree_every=20, densify_from=5, densify_until=45,
    densify_every=10, reset_every=25,
)  # fmt: skip


def _rasterization(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    width,
    height,
    *,
    near_plane,
    eps2d,
    sh_degree,
    packed,
    backgrounds,
    render_mode,
):
    """gsplat's function with its shapes, drawn by the CPU rasteriser; one camera."""
    assert (
        near_plane == 0.2
        and eps2d == 0.3
        and not packed
        and render_mode == "RGB+D"
        and (sh_degree + 1) ** 2 == colors.shape[1]
    )
    assert viewmats.shape == (1, 4, 4) and Ks.shape == (1, 3, 3) and backgrounds.shape == (1, 3)
    view, lens = viewmats[0].numpy().astype(float), Ks[0].numpy().astype(float)
    camera = Camera(width, height, lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2], view[:3, :3], view[:3, 3])
    box = {}

    class Drawn(torch.autograd.Function):
        @staticmethod
        def forward(context, means, quats, scales, opacities, colors, places):
            g = Gaussians(
                means.numpy(), scales.log().numpy(), quats.numpy(), torch.logit(opacities).numpy(), colors.numpy()
            )
            seen = render(g, camera, background=tuple(backgrounds[0].tolist()))
            context.kept = (g, seen, scales, opacities)
            box["visible"] = torch.as_tensor(seen.visible)
            both = np.concatenate([seen.colour, seen.depth[..., None]], axis=2)
            return torch.as_tensor(both), torch.as_tensor(1 - seen.rest)

        @staticmethod
        def backward(context, slope, opacity_slope):
            g, seen, scales, opacities = context.kept
            slope = slope.numpy()
            d = render_backward(g, camera, seen, slope[..., :3], d_depth=slope[..., 3], d_rest=-opacity_slope.numpy())
            give = [d.means, d.quaternions, d.log_scales / scales.numpy(), None, d.harmonics, d.centres[None]]
            give[3] = d.logits / (opacities * (1 - opacities)).numpy()
            return tuple(torch.as_tensor(np.ascontiguousarray(part)) for part in give)

    places = torch.zeros((1, len(means), 2), requires_grad=True) + 0.0
    colour, alpha = Drawn.apply(means, quats, scales, opacities, colors, places)
    radii = torch.where(box["visible"], 3, 0)[None, :, None].repeat(1, 1, 2)
    return colour[None], alpha[None, ..., None], {"means2d": places, "radii": radii}


@pytest.fixture
def gsplat(monkeypatch):
    fake = types.ModuleType("gsplat")
    fake.rasterization = _rasterization
    monkeypatch.setitem(sys.modules, "gsplat", fake)


@pytest.fixture(scope="module")
def photos():
    scene = example_scene(splats=3000)
    return [
        Photo(camera, np.clip(render(scene.gaussians, camera).colour, 0, 1), np.ones((32, 40), bool))
        for camera in ring(6)
    ]


def test_without_gsplat_there_is_one_sentence(monkeypatch, tmp_path, capsys, photos):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(MissingExtraError, match=r"isometry\[gpu\]"):
        GpuTraining(first_gaussians(photos, 50, 0), photos, PLAN)
    with pytest.raises(MissingExtraError, match=r"isometry\[gpu\]"):
        render_on_gpu(example_scene(splats=1000).gaussians, photos[0].camera)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_device_there_is_one_sentence(gsplat, photos):
    with pytest.raises(InputError, match="no CUDA device is here"):
        GpuTraining(first_gaussians(photos, 50, 0), photos, PLAN)


def test_the_command_says_it_before_it_begins(monkeypatch, tmp_path, capsys, folder):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(SystemExit) as stop:
        main(["scene", "build", str(folder), "--out", str(tmp_path / "s"), "--device", "cuda", "--preset", "full"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "isometry[gpu]" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def same(one, other):
    """But for splats that rounding (exp and log in single precision) takes over the 1/255 below which none is drawn."""
    off = np.abs(one - other)
    assert off.max() < 1 / 255 and off.mean() < 2e-5


def test_the_same_interface_draws_and_descends(gsplat, photos, monkeypatch):
    camera, start = photos[1].camera, first_gaussians(photos, 300, 0)
    start = replace(start, log_scales=start.log_scales + np.array([0, 0.4, -0.4], np.float32))
    start = replace(start, harmonics=np.pad(start.harmonics, ((0, 0), (0, 3), (0, 0)), constant_values=0.05))
    monkeypatch.setattr(render_module, "render_on_gpu", partial(on_the_cpu, render_module.render_on_gpu))
    there = render(start, camera, background=(0.2, 0.3, 0.4), device="cuda")
    here = render(start, camera, background=(0.2, 0.3, 0.4))
    same(there.colour, here.colour)
    same(there.rest, here.rest)
    assert np.abs(there.depth - here.depth).mean() < 1e-4 and (there.visible == here.visible).all()
    rng = np.random.default_rng(0)
    slopes = [rng.normal(size=shape).astype(np.float32) for shape in ((32, 40, 3), (32, 40), (32, 40))]
    one, other = (
        render_backward(start, camera, seen, slopes[0], d_depth=slopes[1], d_rest=slopes[2]) for seen in (there, here)
    )
    for name in ("means", "log_scales", "quaternions", "logits", "harmonics", "centres"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.shape == b.shape and np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b), name
    with pytest.raises(ShapeError, match="cannot have shape"):
        render_backward(start, camera, render(start, camera, device="cuda"), slopes[0][:3])


def on_the_cpu(real, *given, device, **rest):
    return real(*given, device="cpu", **rest)


def test_its_pictures_and_steps_are_the_cpus(gsplat, photos):
    start = first_gaussians(photos, 300, 0)
    ours, theirs = Training(start, photos, PLAN, seed=3), GpuTraining(start, photos, PLAN, seed=3, device="cpu")
    same(theirs.picture(photos[0].camera), ours.picture(photos[0].camera))
    counts = set()
    for _ in range(30):
        a, b = ours.step(), theirs.step()
        assert b == pytest.approx(a, rel=2e-2)
        counts.add(ours.count)
        assert abs(theirs.count - ours.count) <= 0.03 * ours.count
    assert len(counts) > 2, "it multiplied and was thinned on the way"
    assert theirs.count <= PLAN.most


def test_it_learns_and_goes_on_where_it_was(gsplat, photos):
    start = first_gaussians(photos, 300, 0)
    one = GpuTraining(start, photos, PLAN, seed=1, device="cpu")
    losses = [one.step() for _ in range(24)]  # four rounds of the six photographs, before opacities are reset
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    arrays, words = one.state()
    other = GpuTraining(start, photos, PLAN, seed=9, device="cpu")
    other.restore(arrays, words)
    for _ in range(15):
        assert other.step() == one.step()
    np.testing.assert_array_equal(other.gaussians().means, one.gaussians().means)
    assert one.gaussians().degree == 1


def test_a_scene_is_built_with_it(gsplat, photos, monkeypatch, tmp_path, folder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    real = GpuTraining.__init__
    monkeypatch.setattr(
        GpuTraining, "__init__", lambda self, *args, device, **rest: real(self, *args, device="cpu", **rest)
    )
    said: list[str] = []
    built = build_scene(folder, tmp_path / "s", PLAN.changed(iterations=12), device="cuda", say=said.append)
    assert built.report["device"] == "cuda" and built.report["held_out"]["psnr"] > 8
    assert any("iteration 12 of 12" in sentence for sentence in said)


def test_gsplat_s_own_function_takes_what_it_is_given(monkeypatch):
    """The call is bound to the installed signature, its shapes held to the checks at the head of gsplat's function."""
    real = pytest.importorskip("gsplat").rasterization
    signature, seen = inspect.signature(real), {}

    def note(*given, **named):
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        seen.update(bound.arguments)
        raise StopIteration

    g = example_scene(splats=1000).gaussians
    names = ("means", "log_scales", "quaternions", "logits", "harmonics")
    values = {name: torch.tensor(getattr(g, name)) for name in names}
    with pytest.raises(StopIteration):
        draw(note, torch, values, ring(3)[0], 1, torch.zeros(3))
    n = len(g)
    shapes = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,), "colors": (n, 4, 3)}
    shapes |= {"viewmats": (1, 4, 4), "Ks": (1, 3, 3), "backgrounds": (1, 3)}
    assert {name: tuple(seen[name].shape) for name in shapes} == shapes
    assert seen["camera_model"] == "pinhole" and seen["rasterize_mode"] == "classic" and not seen["with_ut"]
    np.testing.assert_allclose(seen["scales"].numpy(), g.scales, rtol=1e-6)
    np.testing.assert_allclose(seen["opacities"].numpy(), g.opacities, rtol=1e-6)
    # gsplat checks shapes in its first lines, before it asks for CUDA
    monkeypatch.setattr("gsplat.rendering.fully_fused_projection", note)
    signature = inspect.signature(sys.modules["gsplat.cuda._wrapper"].fully_fused_projection)
    with pytest.raises(StopIteration):
        draw(real, torch, values, ring(3)[0], 1, torch.zeros(3))
    assert seen["near_plane"] == 0.2 and seen["eps2d"] == 0.3 and not seen["packed"]


def test_gsplat_projects_and_colours_like_the_cpu():
    """Its reference in torch, which runs without CUDA, gives our centres, conics, depths and colours."""
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")
    rng = np.random.default_rng(4)
    g, camera = example_scene(splats=3000).gaussians.with_degree(3), ring(3)[1]
    g = replace(g, harmonics=g.harmonics + rng.normal(0, 0.1, g.harmonics.shape).astype(np.float32))
    n = len(g)
    centres, conics = np.zeros((n, 2)), np.zeros((n, 3))
    depths, reach, boxes = np.zeros(n), np.zeros(n), np.zeros((n, 4), np.int32)
    row = projection.camera_row(camera)
    projection.project(
        g.means.astype(float), g.covariances().astype(float), g.opacities, row, centres, conics, depths, reach, boxes
    )
    drawn = boxes[:, 2] >= boxes[:, 0]
    assert drawn.sum() > 1000
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3], view[:3, 3] = torch.as_tensor(camera.rotation), torch.as_tensor(camera.translation)
    lens = torch.tensor([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], dtype=torch.float64)
    means = torch.tensor(g.means, dtype=torch.float64)
    covariances, _ = theirs._quat_scale_to_covar_preci(
        torch.tensor(g.quaternions, dtype=torch.float64),
        torch.tensor(g.scales, dtype=torch.float64),
        True,
        False,
        False,
    )
    radii, middle, away, sharp, _ = theirs._fully_fused_projection(
        means, covariances, view[None], lens[None], camera.width, camera.height, eps2d=0.3, near_plane=0.2
    )
    assert (radii[0].numpy() > 0).all(axis=1)[drawn].all(), "what we draw they draw"
    np.testing.assert_allclose(middle[0].numpy()[drawn], centres[drawn], atol=1e-3)
    np.testing.assert_allclose(away[0].numpy()[drawn], depths[drawn], atol=1e-5)
    # their limit of x/z and y/z inside J is 0.15 fields of view beyond the rim, ours the reference's 1.3 half fields
    inside = drawn & (centres > 0).all(axis=1) & (centres < [camera.width, camera.height]).all(axis=1)
    np.testing.assert_allclose(sharp[0].numpy()[inside], conics[inside], rtol=2e-3, atol=1e-6)
    directions = means - torch.as_tensor(camera.position)
    for degree in range(4):
        shade = theirs._spherical_harmonics(degree, directions, torch.tensor(g.harmonics, dtype=torch.float64))
        mine = np.zeros((n, 3))
        values = np.zeros(16)
        for number, way in enumerate((directions / directions.norm(dim=1, keepdim=True)).numpy()):
            harmonics.basis(*way, degree, values)
            mine[number] = values[: (degree + 1) ** 2] @ g.harmonics[number, : (degree + 1) ** 2]
        np.testing.assert_allclose(shade.numpy(), mine, atol=1e-5)

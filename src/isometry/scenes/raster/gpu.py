"""The rasteriser through gsplat, for GPUs: the conventions, the `Rendering` and the `Gradients` of the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import projection
from isometry.scenes.raster.rendering import Gradients, Rendering


def gsplat_and_torch(device: str = "cuda") -> tuple[Any, Any]:
    """The two libraries, once both are installed and the device is there.

    Raises:
        MissingExtraError: one is not installed. InputError: torch finds no such device.
    """
    try:
        import torch
        from gsplat import rasterization
    except ImportError as error:
        raise MissingExtraError("drawing and training scenes on a GPU", "gpu") from error
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "no CUDA device is here for gsplat; leave '--device cpu', with the laptop preset a build takes minutes"
        )
    return rasterization, torch


@dataclass(frozen=True)
class GpuState:
    """What a gradient needs of a picture drawn on a GPU: the parameters and what came of them, as tensors."""

    torch: Any
    values: dict[str, Any]
    colour: Any
    depth: Any
    rest: Any
    centres: Any


def draw(
    rasterization: Any,
    torch: Any,
    values: dict[str, Any],
    camera: Camera,
    degree: int,
    background: Any,
    near: float = projection.NEAR,
) -> tuple[Any, Any, dict[str, Any]]:
    """One picture of parameters that live on the device.

    Args:
        values: `means (n, 3)`, `log_scales (n, 3)`, `quaternions (n, 4)`, `logits (n,)`, `harmonics (n, k, 3)` tensors.

    Returns:
        colour and depth `(h, w, 4)`, opacity `(h, w)`, and gsplat's facts: `means2d (1, n, 2)` in pixels, `radii`.
    """
    device = values["means"].device
    view = np.eye(4, dtype=np.float32)
    view[:3, :3], view[:3, 3] = camera.rotation, camera.translation
    lens = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float32)
    colour, alpha, facts = rasterization(
        values["means"], values["quaternions"], torch.exp(values["log_scales"]), torch.sigmoid(values["logits"]),
        values["harmonics"], torch.as_tensor(view, device=device)[None], torch.as_tensor(lens, device=device)[None],
        camera.width, camera.height, near_plane=near, eps2d=0.3, sh_degree=degree, packed=False,
        backgrounds=background[None], render_mode="RGB+D",
    )  # fmt: skip
    return colour[0], alpha[0, ..., 0], facts


def render_on_gpu(
    gaussians: Gaussians, camera: Camera, *, background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    near: float = projection.NEAR, device: str = "cuda",
) -> Rendering:  # fmt: skip
    """What `render` gives on the CPU, but for `ids`: gsplat does not tell the strongest Gaussian, so all are -1."""
    rasterization, torch = gsplat_and_torch(device)
    names = ("means", "log_scales", "quaternions", "logits", "harmonics")
    degree = min(3, gaussians.degree)
    values = {name: torch.tensor(getattr(gaussians, name), device=device, requires_grad=True) for name in names}
    cut = {**values, "harmonics": values["harmonics"][:, : (degree + 1) ** 2]}
    behind = torch.as_tensor(np.asarray(background, np.float32), device=device)
    both, alpha, facts = draw(rasterization, torch, cut, camera, degree, behind, near)
    colour, depth, rest = both[..., :3], both[..., 3], 1 - alpha
    facts["means2d"].retain_grad()
    state = GpuState(torch, values, colour, depth, rest, facts["means2d"])
    plain = [tensor.detach().cpu().numpy() for tensor in (colour, depth, rest)]
    seen = visible_in(facts).cpu().numpy()
    return Rendering(plain[0], plain[1], plain[2], np.full(plain[1].shape, -1, np.int32), seen, state)


def backward_on_gpu(
    state: GpuState, d_colour: np.ndarray, d_depth: np.ndarray | None, d_rest: np.ndarray | None
) -> Gradients:
    """`render_backward` of a picture that `render_on_gpu` drew; once for each picture."""
    torch, device = state.torch, state.colour.device
    if d_colour.shape != tuple(state.colour.shape):
        raise ShapeError(f"the gradient of a {tuple(state.colour.shape)} picture cannot have shape {d_colour.shape}")
    pairs = [(state.colour, d_colour), (state.depth, d_depth), (state.rest, d_rest)]
    used = [(one, torch.as_tensor(np.asarray(d, np.float32), device=device)) for one, d in pairs if d is not None]
    torch.autograd.backward([one for one, _ in used], [d for _, d in used])
    d = {
        name: np.zeros(tuple(value.shape), np.float32) if value.grad is None else value.grad.cpu().numpy()
        for name, value in state.values.items()
    }
    centres = state.centres.grad[0].cpu().numpy()
    return Gradients(d["means"], d["log_scales"], d["quaternions"], d["logits"], d["harmonics"], centres)


def visible_in(facts: dict[str, Any]) -> Any:
    """Which Gaussians touch the picture `(n,)`, from gsplat's radii of either version."""
    radii = facts["radii"][0]
    return (radii > 0).all(dim=1) if radii.ndim == 2 else radii > 0

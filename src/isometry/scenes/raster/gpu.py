"""The rasteriser's picture through gsplat, for GPUs: same conventions, differentiable by torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import projection


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


def draw(
    rasterization: Any, torch: Any, values: dict[str, Any], camera: Camera, degree: int, background: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """One picture of parameters that live on the device.

    Args:
        values: `means (n, 3)`, `log_scales (n, 3)`, `quaternions (n, 4)`, `logits (n,)`, `harmonics (n, k, 3)` tensors.

    Returns:
        colour `(h, w, 3)`, opacity `(h, w)`, and gsplat's facts: `means2d (1, n, 2)` in pixels, `radii`.
    """
    device = values["means"].device
    view = np.eye(4, dtype=np.float32)
    view[:3, :3], view[:3, 3] = camera.rotation, camera.translation
    lens = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float32)
    colour, alpha, facts = rasterization(
        values["means"], values["quaternions"], torch.exp(values["log_scales"]), torch.sigmoid(values["logits"]),
        values["harmonics"], torch.as_tensor(view, device=device)[None], torch.as_tensor(lens, device=device)[None],
        camera.width, camera.height, near_plane=projection.NEAR, eps2d=0.3, sh_degree=degree, packed=False,
        backgrounds=background[None],
    )  # fmt: skip
    return colour[0], alpha[0, ..., 0], facts


def render_on_gpu(
    gaussians: Gaussians, camera: Camera, *, background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    device: str = "cuda",
) -> np.ndarray:  # fmt: skip
    """The colours `(h, w, 3)` float32 that `render` gives on the CPU."""
    rasterization, torch = gsplat_and_torch(device)
    names = ("means", "log_scales", "quaternions", "logits", "harmonics")
    degree = min(3, gaussians.degree)
    with torch.no_grad():
        values = {name: torch.as_tensor(getattr(gaussians, name), device=device) for name in names}
        values["harmonics"] = values["harmonics"][:, : (degree + 1) ** 2]
        behind = torch.as_tensor(np.asarray(background, np.float32), device=device)
        colour, _, _ = draw(rasterization, torch, values, camera, degree, behind)
    picture: np.ndarray = colour.cpu().numpy()
    return picture

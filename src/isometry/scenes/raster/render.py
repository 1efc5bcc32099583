"""Pictures of Gaussians on the CPU, and gradients of a loss on such a picture for every parameter."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import ShapeError
from isometry.scenes import shapes
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import blending, harmonics, projection
from isometry.scenes.raster.gpu import GpuState, backward_on_gpu, render_on_gpu
from isometry.scenes.raster.rendering import Gradients, Rendering


@dataclass(frozen=True)
class _Splats:
    """2D Gaussians sorted into tiles."""

    camera: np.ndarray
    columns: int
    rows: int
    centres: np.ndarray
    conics: np.ndarray
    depths: np.ndarray
    reach: np.ndarray
    boxes: np.ndarray
    opacities: np.ndarray
    starts: np.ndarray
    members: np.ndarray
    packed: np.ndarray
    threads: int

    def each_tile_range(self, work: Callable[[int, int, int], None]) -> None:
        """Calls work(number, first, last) for ranges of tiles of about equal load, one per thread."""
        tiles = self.columns * self.rows
        load = np.cumsum(np.diff(self.starts) + 8)
        cuts = np.searchsorted(load, load[-1] * np.arange(1, self.threads) / self.threads) + 1 if tiles else []
        bounds = [0, *(int(cut) for cut in cuts), tiles]
        ranges = [(k, a, b) for k, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]
        if len(ranges) <= 1:
            for k, a, b in ranges:
                work(k, a, b)
            return
        with ThreadPoolExecutor(len(ranges)) as pool:
            list(pool.map(lambda item: work(*item), ranges))

    def lists(self) -> tuple[np.ndarray, ...]:
        return (self.starts, self.members, self.centres, self.conics, self.reach, self.boxes, self.opacities)


def render(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    near: float = projection.NEAR,
    threads: int | None = None,
    device: str = "cpu",
) -> Rendering:
    """Draw Gaussians. Distortion of the camera is not drawn: undistort the photograph to compare with it.

    Args:
        background: colour behind everything.
        near: Gaussians closer than this (scene units) are left out.
        threads: CPU threads; None for one per core. The result does not depend on it.
        device: 'cpu', or 'cuda' to draw with gsplat (its pictures have no `ids`).
    """
    if device != "cpu":
        return render_on_gpu(gaussians, camera, background=background, near=near, device=device)
    degree = min(gaussians.degree, 3)
    colours = np.empty((len(gaussians), 3), np.float32)
    eye = camera.position.astype(np.float32)
    harmonics.colours(gaussians.means, gaussians.harmonics, _NO_TURN, eye, degree, colours)
    return splat(
        gaussians.means, gaussians.covariances(), gaussians.opacities, colours, camera,
        background=background, near=near, threads=threads,
    )  # fmt: skip


def splat(
    means: np.ndarray,
    covariances: np.ndarray,
    opacities: np.ndarray,
    colours: np.ndarray,
    camera: Camera,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    near: float = projection.NEAR,
    threads: int | None = None,
) -> Rendering:
    """Draw Gaussians given by covariances `(n, 6)` and colours `(n, 3)`: what a deformed scene has. All float32."""
    splats = _sort(means, covariances, opacities, colours, camera, near, threads)
    height, width = camera.height, camera.width
    colour = np.empty((height, width, 3), np.float32)
    depth, rest = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    ids, lasts = np.empty((height, width), np.int32), np.empty((height, width), np.int32)

    def work(_: int, first: int, last: int) -> None:
        given = (splats.columns, splats.starts, splats.members, splats.packed)
        blending.blend(first, last, *given, colour, depth, rest, ids, lasts)

    splats.each_tile_range(work)
    behind = np.asarray(background, np.float32)
    colour += rest[..., None] * behind
    return Rendering(colour, depth, rest, ids, splats.boxes[:, 2] >= splats.boxes[:, 0], (splats, lasts, behind))


def render_backward(
    gaussians: Gaussians,
    camera: Camera,
    rendering: Rendering,
    d_colour: np.ndarray,
    *,
    d_depth: np.ndarray | None = None,
    d_rest: np.ndarray | None = None,
) -> Gradients:
    """Gradients of a loss, given its derivatives by `colour (h, w, 3)` and, where used, by `depth` and `rest`.

    `rendering` must come from `render` of the same Gaussians and camera.
    """
    if isinstance(rendering._state, GpuState):
        return backward_on_gpu(rendering._state, d_colour, d_depth, d_rest)
    splats, lasts, behind = rendering._state
    n, shape = len(gaussians), (camera.height, camera.width)
    if d_colour.shape != (*shape, 3) or len(splats.reach) != n:
        raise ShapeError(f"the gradient of a {shape} picture of {n} Gaussians cannot have shape {d_colour.shape}")
    d_colour = np.ascontiguousarray(d_colour, np.float32)
    d_depth = np.zeros(shape, np.float32) if d_depth is None else np.ascontiguousarray(d_depth, np.float32)
    d_through = d_colour @ behind
    if d_rest is not None:
        d_through = d_through + d_rest
    d_through = np.ascontiguousarray(d_through, np.float32)
    buffers = [np.zeros((n, 10), np.float32) for _ in range(splats.threads)]

    def work(number: int, first: int, last: int) -> None:
        given = (splats.columns, splats.starts, splats.members, splats.packed)
        blending.blend_backward(
            first, last, *given, rendering.rest, lasts, d_colour, d_depth, d_through, buffers[number]
        )

    splats.each_tile_range(work)
    gradients: np.ndarray = np.asarray(np.sum(buffers, axis=0, dtype=np.float64))
    d_means, d_covariances = np.zeros((n, 3)), np.zeros((n, 6))
    projection.project_backward(
        gaussians.means, gaussians.covariances(), splats.camera, splats.conics, splats.boxes, gradients,
        d_means, d_covariances,
    )  # fmt: skip
    d_harmonics = np.zeros(gaussians.harmonics.shape)
    degree = min(gaussians.degree, 3)
    harmonics.colours_backward(
        gaussians.means, gaussians.harmonics, camera.position, degree, gradients[:, 6:9], d_harmonics, d_means
    )
    d_log_scales, d_quaternions = covariance_backward(gaussians, d_covariances)
    opacity = splats.opacities.astype(np.float64)
    d_logits = gradients[:, 5] * opacity * (1 - opacity)
    arrays = (d_means, d_log_scales, d_quaternions, d_logits, d_harmonics, gradients[:, :2])
    means, log_scales, quaternions, logits, rest, centres = (a.astype(np.float32) for a in arrays)
    return Gradients(means, log_scales, quaternions, logits, rest, centres)


def vote(
    gaussians: Gaussians, camera: Camera, labels: np.ndarray, count: int, *, threads: int | None = None
) -> np.ndarray:
    """Weights alpha T of every Gaussian summed by the label of the pixel: `(n, count)` float32.

    Args:
        labels: `(h, w)` integers below `count`; negative ones are skipped. All zeros give the plain total weight.
    """
    labels = np.ascontiguousarray(labels, np.int32)
    if labels.shape != (camera.height, camera.width) or (labels.size and labels.max() >= count):
        raise ShapeError(
            f"labels of a {camera.width} x {camera.height} view must be that size with values below {count}; they are "
            f"{labels.shape[1::-1]} up to {labels.max(initial=0)}"
        )
    colours = np.zeros((len(gaussians), 3), np.float32)
    splats = _sort(
        gaussians.means, gaussians.covariances(), gaussians.opacities, colours, camera, projection.NEAR, threads
    )
    buffers = [np.zeros((len(gaussians), count), np.float32) for _ in range(splats.threads)]

    def work(number: int, first: int, last: int) -> None:
        blending.gather(first, last, splats.columns, *splats.lists(), labels, buffers[number])

    splats.each_tile_range(work)
    return np.sum(buffers, axis=0)


def weights_matrix(gaussians: Gaussians, camera: Camera) -> Any:
    """Weights alpha T as `scipy.sparse.csr_array (h * w, n)` float32: times per-Gaussian values it gives their picture."""
    from scipy.sparse import csr_array

    colours = np.zeros((len(gaussians), 3), np.float32)
    splats = _sort(gaussians.means, gaussians.covariances(), gaussians.opacities, colours, camera, projection.NEAR, 1)
    shape, tiles = (camera.height, camera.width), splats.columns * splats.rows
    pixels = camera.height * camera.width
    counts, begins = np.zeros(pixels, np.int64), np.zeros(pixels + 1, np.int64)
    which, weights = np.zeros(0, np.int32), np.zeros(0, np.float32)
    given = (0, tiles, splats.columns, *splats.lists(), shape)
    blending.list_weights(*given, counts, begins, which, weights, 0)
    np.cumsum(counts, out=begins[1:])
    which, weights = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.float32)
    counts[:] = 0
    blending.list_weights(*given, counts, begins, which, weights, 1)
    return csr_array((weights, which, begins), shape=(pixels, len(gaussians)))


def covariance_backward(gaussians: Gaussians, d_covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients by covariance entries `(n, 6)` to those by log scales `(n, 3)` and quaternions `(n, 4)`, float64."""
    n = len(gaussians)
    d_log_scales, d_quaternions = np.empty((n, 3)), np.empty((n, 4))
    shapes.shapes_backward(
        gaussians.log_scales, gaussians.quaternions, np.ascontiguousarray(d_covariances, np.float64),
        d_log_scales, d_quaternions,
    )  # fmt: skip
    return d_log_scales, d_quaternions


_NO_TURN = np.zeros((0, 3, 3), np.float32)


def _sort(
    means: np.ndarray, covariances: np.ndarray, opacities: np.ndarray, colours: np.ndarray, camera: Camera,
    near: float, threads: int | None,
) -> _Splats:  # fmt: skip
    n = len(means)
    row = projection.camera_row(camera, near)
    centres, conics = np.zeros((n, 2), np.float32), np.zeros((n, 3), np.float32)
    depths, reach = np.zeros(n, np.float32), np.zeros(n, np.float32)
    boxes = np.empty((n, 4), np.int32)
    projection.project(means, covariances, opacities, row, centres, conics, depths, reach, boxes)
    columns, rows = -(-camera.width // blending.TILE), -(-camera.height // blending.TILE)
    order = np.argsort(depths, kind="stable")
    starts, members = blending.bin_tiles(order, boxes, columns, rows)
    count = min(threads or os.cpu_count() or 1, 16)
    packed = np.empty((n, 16), np.float32)
    blending.pack(centres, conics, reach, boxes, opacities, colours, depths, packed)
    return _Splats(row, columns, rows, centres, conics, depths, reach, boxes, opacities, starts, members, packed, count)

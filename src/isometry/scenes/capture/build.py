"""From photographs, splats, points or a mesh to a scene folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import ExistsError, InputError, NotFoundError
from isometry.scenes.capture.checkpoint import Checkpoint, unfinished
from isometry.scenes.capture.frame import Frame, capture_frame, check_scale
from isometry.scenes.capture.gpu import GpuTraining
from isometry.scenes.capture.photos import Photo, load_photos, split
from isometry.scenes.capture.poses import FOLDER, find_poses, photographs
from isometry.scenes.capture.presets import Preset
from isometry.scenes.capture.start import first_gaussians
from isometry.scenes.capture.surface import from_mesh
from isometry.scenes.capture.training import Training, judge_pictures
from isometry.scenes.files.cameras import Camera, Capture, read_cameras
from isometry.scenes.files.limits import check_room
from isometry.scenes.files.ply import read_ply
from isometry.scenes.files.points import read_mesh
from isometry.scenes.files.splats import read_splats
from isometry.scenes.gaussians import Gaussians, from_points
from isometry.scenes.raster.gpu import gsplat_and_torch
from isometry.scenes.scene import Scene, save_scene
from isometry.scenes.turning import moved, upright

Say = Callable[[str], None]
_SPLATS = (".ply", ".spz", ".splat")


@dataclass(frozen=True)
class Built:
    """A scene that was written, and figures about it (`psnr`, `ssim` of held-out views where there were photographs)."""

    scene: Scene
    report: dict[str, Any]


def build_scene(
    source: str | Path,
    out: str | Path,
    preset: Preset,
    *,
    metres_per_unit: float | None = None,
    up: np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    save_seconds: float = 30.0,
    say: Say | None = None,
) -> Built:
    """Build a scene and write it; an interrupted build of the same source and settings goes on where it was.

    Args:
        source: a folder of posed photographs (COLMAP or transforms.json), one of photographs alone (pycolmap finds the
            poses), a splat file, a point cloud (.ply) or a mesh (.ply, .obj).
        metres_per_unit: scale of the source; None assumes one for photographs and takes files as metres.
        up: direction in the source that becomes +y; None takes the cameras' for photographs, +y for files.
        device: 'cpu', or 'cuda' to train through gsplat.
        save_seconds: between two checkpoints.
        say: gets a sentence now and then.

    Raises:
        NotFoundError, InputError, ExistsError, MissingExtraError: what is wrong and what to do.
    """
    source, out = Path(source), Path(out)
    say = say or (lambda sentence: None)
    if not source.exists():
        raise NotFoundError(f"there is no '{source}' to build a scene from")
    if out.exists():
        raise ExistsError(f"'{out}' exists already: choose another folder or remove it")
    if device not in ("cpu", "cuda"):
        raise InputError(f"a scene is built on 'cpu' or 'cuda', not on '{device}'")
    if source.is_file() and source.suffix.lower() != ".json":
        return _from_file(source, out, preset, metres_per_unit, up, seed)
    began = time.perf_counter()
    capture = _capture(source, out, seed, say)
    if len(capture.cameras) < 2:
        raise InputError(f"{source}: a scene is built from at least two photographs and there is one")
    frame = capture_frame(capture.cameras, metres_per_unit, up)
    say(frame.note)
    photos = load_photos(frame.capture(capture).cameras, preset.longest)
    learn, held = split(photos)
    first = photos[0].camera
    say(f"{len(learn)} photographs of {first.width} x {first.height} to learn from, {len(held)} held out")
    asked = {"preset": asdict(preset), "seed": seed, "device": device, "frame": [frame.rotation, frame.scale],
             "photographs": [[p.camera.name, float(p.colours.mean())] for p in photos]}  # fmt: skip
    checkpoint = Checkpoint(out, asked)
    training = _train(capture, frame, learn, preset, checkpoint, seed, device, threads, save_seconds, say)
    gaussians = training.gaussians()
    report: dict[str, Any] = {"photographs": len(photos), "size": [first.width, first.height], "device": device}
    report["learned"] = judge_pictures(training.picture, learn[:: max(1, len(learn) // 8)])
    if held:
        report["held_out"] = judge_pictures(training.picture, held)
    scene = _scene(source, gaussians, [replace(p.camera, distortion=p.distortion) for p in photos], frame)
    report |= {"splats": len(scene.gaussians), "seconds": round(time.perf_counter() - began, 1), "scale": frame.note}
    save_scene(scene, out)
    checkpoint.remove()
    return Built(scene, report)


def _capture(source: Path, out: Path, seed: int, say: Say) -> Capture:
    if source.is_dir():
        named = [source / name for name in ("transforms.json", "transforms_train.json", "cameras.bin", "cameras.txt",
                                            "sparse", "colmap")]  # fmt: skip
        if not any(path.exists() for path in named):
            folder = source / "images" if (source / "images").is_dir() else source
            pictures = photographs(folder)
            if not pictures:
                raise InputError(
                    f"{source}: neither photographs nor poses (a COLMAP model or a transforms.json) are in this folder"
                )
            say(f"{len(pictures)} photographs without poses: finding them")
            return find_poses(folder, keep=unfinished(out) / FOLDER, seed=seed, say=say)
    return read_cameras(source)


def _start(capture: Capture, frame: Frame, learn: list[Photo], preset: Preset, seed: int) -> Gaussians:
    count = min(preset.most // 2, 200_000 if preset.most > 100_000 else 8_000)
    if capture.points is not None and capture.colours is not None and len(capture.points) >= 100:
        points = frame.scale * (capture.points - frame.centre) @ frame.rotation.T
        rows = np.arange(len(points))
        if len(points) > preset.most // 2:
            rows = np.random.default_rng(seed).permutation(len(points))[: preset.most // 2]
        return from_points(points[rows], capture.colours[rows])
    return first_gaussians(learn, count, seed)


def _train(
    capture: Capture, frame: Frame, learn: list[Photo], preset: Preset, checkpoint: Checkpoint, seed: int, device: str,
    threads: int | None, save_seconds: float, say: Say,
) -> Training | GpuTraining:  # fmt: skip
    check_room(preset.most, "this preset", harmonics=3 * (preset.degree + 1) ** 2)
    if device != "cpu":
        gsplat_and_torch(device)  # before minutes go into the start

    def begin(start: Gaussians) -> Training | GpuTraining:
        if device == "cpu":
            return Training(start, learn, preset, seed=seed, threads=threads)
        return GpuTraining(start, learn, preset, seed=seed, device=device)

    saved = checkpoint.load()
    training = begin(_start(capture, frame, learn, preset, seed) if saved is None else _one())
    if saved is not None:
        training.restore(*saved)
        say(f"going on at iteration {training.iteration}")
    started = last_saved = last_said = time.monotonic()
    first, mean = training.iteration, 0.0
    while training.iteration < preset.iterations:
        loss = training.step()
        mean = loss if not mean else 0.98 * mean + 0.02 * loss
        now, done = time.monotonic(), training.iteration
        if now - last_said > 10 or done in (1, preset.iterations):
            left = (now - started) / (done - first) * (preset.iterations - done)
            psnr = judge_pictures(training.picture, [learn[done % len(learn)]])["psnr"]
            say(
                f"iteration {done} of {preset.iterations}: loss {mean:.4f}, PSNR {psnr:.1f} dB on a learned view, "
                f"{training.count:,} Gaussians, {left:.0f} s left"
            )
            last_said = now
        if now - last_saved > save_seconds and done < preset.iterations:
            checkpoint.save(*training.state())
            last_saved = now
    return training


def _one() -> Gaussians:
    return Gaussians(np.zeros((1, 3)), np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), np.zeros(1), np.zeros((1, 1, 3)))


def _scene(source: Path, gaussians: Gaussians, cameras: list[Camera], frame: Frame) -> Scene:
    solid = gaussians.opacities > 0.3
    near = np.linalg.norm(gaussians.means[:, [0, 2]], axis=1) < 2 * _attention(cameras)
    chosen = gaussians.means[solid & near] if (solid & near).any() else gaussians.means
    floor = float(np.percentile(chosen[:, 1], 2))
    shift = np.array([0.0, -floor, 0.0])
    gaussians = moved(gaussians, shift=shift)
    placed = tuple(replace(c, translation=c.translation - c.rotation @ shift) for c in cameras)
    first = placed[0]
    field = float(np.degrees(2 * np.arctan(first.height / 2 / first.fy)))
    position = tuple(float(v) for v in first.position)
    target = (0.0, -floor, 0.0)
    light = (0.5 * _attention(cameras), 2.5 * _attention(cameras), 0.5 * _attention(cameras))
    return Scene(
        source.resolve().name, gaussians, np.zeros(len(gaussians), np.uint16), plane=(0.0, 1.0, 0.0, 0.0), light=light,
        view=(position, target, min(100.0, max(20.0, field))),  # type: ignore[arg-type]
        collision_cell=0.02, notes=("built from photographs", frame.note), cameras=placed,
    )  # fmt: skip


def _attention(cameras: list[Camera]) -> float:
    return float(np.median([np.linalg.norm(camera.position) for camera in cameras]))


def _from_file(
    source: Path, out: Path, preset: Preset, metres_per_unit: float | None, up: np.ndarray | None, seed: int
) -> Built:
    began = time.perf_counter()
    kind, gaussians = _read_file(source, preset, seed)
    if not len(gaussians):
        raise InputError(f"{source}: there are no splats in this file")
    scale = 1.0 if metres_per_unit is None else check_scale(metres_per_unit)
    gaussians = moved(gaussians, rotation=None if up is None else upright(up), scale=scale)
    low, high = np.percentile(gaussians.means.astype(np.float64), [2, 98], axis=0)
    middle, size = (low + high) / 2, float((high - low).max()) or 1.0
    gaussians = moved(gaussians, shift=-np.array([middle[0], low[1], middle[2]]))
    height = float(high[1] - low[1])
    note = f"scale: one unit of the source is {scale:g} m" + (
        "" if metres_per_unit else " (assumed; give --known-length)"
    )
    scene = Scene(
        source.stem, gaussians, np.zeros(len(gaussians), np.uint16), plane=(0.0, 1.0, 0.0, 0.0),
        light=(0.7 * size, 2.0 * size + height, 0.9 * size),
        view=((0.0, 0.6 * height + 0.3 * size, 1.8 * size), (0.0, 0.5 * height, 0.0), 45.0),
        collision_cell=max(0.005, size / 100), notes=(f"from {kind} '{source.name}'", note),
    )  # fmt: skip
    save_scene(scene, out)
    report = {"splats": len(gaussians), "from": kind, "seconds": round(time.perf_counter() - began, 1), "scale": note}
    return Built(scene, report)


def _read_file(source: Path, preset: Preset, seed: int) -> tuple[str, Gaussians]:
    suffix = source.suffix.lower()
    if suffix not in (*_SPLATS, ".obj"):
        raise InputError(
            f"{source}: a scene is built from a folder of photographs, a transforms.json, or a .ply, .spz, .splat or "
            ".obj file"
        )
    if suffix == ".ply" and "vertex" in (elements := read_ply(source).elements):
        names = set(elements["vertex"].dtype.names or ())
        if not names & {"f_dc_0", "packed_position", "scale_0"}:
            suffix = ".obj"
    if suffix != ".obj":
        return "splats", read_splats(source)
    vertices, colours, triangles = read_mesh(source)
    count = min(preset.most, max(10_000, 2 * len(vertices)))
    if len(triangles):
        return "mesh", from_mesh(vertices, colours, triangles, count, seed=seed)
    if len(vertices) < 2:
        raise InputError(f"{source}: a single point gives no scene: at least two are needed to size the Gaussians")
    return "points", from_points(vertices, colours, opacity=0.8)

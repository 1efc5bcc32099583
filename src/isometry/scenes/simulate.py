"""Runs a script on a stage and draws it, without a browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import ExistsError, InputError, MissingExtraError, StorageError
from isometry.scenes.files.atomic import write_atomic
from isometry.scenes.files.pictures import png_bytes
from isometry.scenes.inputs import Log, Script, apply_input
from isometry.scenes.stage import Stage
from isometry.types import Progress


@dataclass(frozen=True)
class Run:
    """What a simulation did: ticks, pictures, the session's log (replays to the same digest) and the state's digest."""

    ticks: int
    pictures: int
    log: Log
    digest: str


def simulate(
    stage: Stage,
    script: Script,
    out: str | Path | None = None,
    *,
    width: int = 640,
    height: int = 480,
    frames_per_second: int = 30,
    shadows: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Run the script tick by tick; `out` is a folder of PNG pictures, a .mp4 or .gif file, or None for none.

    Raises:
        InputError: an input that cannot be applied (with its tick), or a replayed log that ends elsewhere.
        ExistsError: `out` is there already.
    """
    log = Log.start(stage)
    frames = _frames(stage, script, log, width, height, frames_per_second, shadows and out is not None, out, progress)
    if out is None:
        pictures = sum(1 for _ in frames)
    else:
        pictures = _write(Path(out), frames, frames_per_second)
    log.ticks, log.digest = script.ticks, stage.world.digest()
    if script.digest and script.digest != log.digest:
        raise InputError(
            f"the replay ended in state {log.digest} and the recording in {script.digest}: another scene, other "
            "settings or another version"
        )
    return Run(script.ticks, pictures if out is not None else 0, log, log.digest)


def _frames(
    stage: Stage, script: Script, log: Log, width: int, height: int, rate: int, shadows: bool,
    out: str | Path | None, progress: Progress | None,
) -> Iterator[np.ndarray]:  # fmt: skip
    if not 1 <= rate <= stage.world.rate:
        raise InputError(f"pictures per second must lie within 1 and {stage.world.rate:g} and are {rate}")
    camera = stage.camera(width, height)
    at = 0
    drawn = 0
    for tick in range(script.ticks + 1):
        while at < len(script.inputs) and script.inputs[at][0] <= tick:
            message = script.inputs[at][1]
            try:
                apply_input(stage, message)
            except InputError as error:
                raise InputError(f"input at tick {tick}: {error}") from error
            log.add(tick, message)
            at += 1
        if tick * rate >= drawn * stage.world.rate and out is not None:
            picture = stage.picture(camera, shadows=shadows).colour
            yield (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
            drawn += 1
        if tick < script.ticks:
            stage.world.step()
        if progress is not None and progress(tick, script.ticks) is False:
            return


def _write(out: Path, frames: Iterator[np.ndarray], rate: int) -> int:
    if out.exists():
        raise ExistsError(f"'{out}' exists already: choose another name or remove it")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder '{out.parent}' to write into")
    if out.suffix.lower() in {".mp4", ".gif"}:
        return _write_video(out, frames, rate)
    if out.suffix:
        raise InputError(f"'{out}': pictures go into a folder (a name without a dot), a .mp4 or a .gif")
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    count = 0
    try:
        for picture in frames:
            write_atomic(temporary / f"{count:05d}.png", png_bytes(picture))
            count += 1
        temporary.chmod(0o755)
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return count


def _write_video(out: Path, frames: Iterator[np.ndarray], rate: int) -> int:
    temporary = out.with_name(f".{out.name}.part{out.suffix}")
    count = 0
    try:
        if out.suffix.lower() == ".gif":
            count = _write_gif(temporary, frames, rate)
        else:
            writer: Any = None
            try:
                for picture in frames:
                    height, width = (size - size % 2 for size in picture.shape[:2])  # the codec wants even sizes
                    if writer is None:
                        writer = _encoder(temporary, width, height, rate)
                    writer.send(np.ascontiguousarray(picture[:height, :width]))
                    count += 1
            finally:
                if writer is not None:
                    writer.close()
        if not temporary.is_file() or not temporary.stat().st_size:
            raise StorageError(f"the video encoder wrote nothing to '{out}'")
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def _encoder(path: Path, width: int, height: int, rate: int) -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingExtraError("writing videos", "scene") from error
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=rate, codec="libx264", quality=7, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    return writer


def _write_gif(path: Path, frames: Iterator[np.ndarray], rate: int) -> int:
    from PIL import Image

    pictures = [Image.fromarray(frame).quantize(128) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0)
    return len(pictures)

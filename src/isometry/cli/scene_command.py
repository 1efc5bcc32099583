"""isometry scene: build a scene, simulate it into pictures, open it in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from isometry.cli._shared import print_json
from isometry.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def scene() -> None:
    """Scenes of 3D Gaussians whose objects can be grabbed, bent and thrown."""


@app.command()
def simulate(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene folder."),
    script: Path = typer.Option(..., help="What to do: a JSON script, or a recorded session (.jsonl)."),
    out: Path | None = typer.Option(None, help="A .mp4 or .gif file, or a folder of pictures."),
    size: str = typer.Option("640x480", help="Width x height in pixels."),
    fps: int = typer.Option(30, help="Pictures a second."),
    substeps: int = typer.Option(12, help="Small physics steps a tick (60 ticks a second)."),
    log: Path | None = typer.Option(None, help="Write the session, to be replayed with --script."),
    shadows: bool = typer.Option(True, help="Draw the objects' shadows."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Run a script on a scene and write what is seen, without a browser."""
    from isometry.scenes import Stage, load_scene, read_script, write_atomic
    from isometry.scenes import simulate as run

    width, height = _size(size)
    plan = read_script(script)
    stage = Stage(load_scene(folder), rate=plan.rate, substeps=plan.substeps or substeps)
    done = run(stage, plan, out, width=width, height=height, frames_per_second=fps, shadows=shadows, progress=_progress)
    if log is not None:
        write_atomic(log, done.log.text().encode())
    result: dict[str, Any] = {
        "scene": stage.scene.name,
        "ticks": done.ticks,
        "pictures": done.pictures,
        "out": str(out) if out else None,
        "digest": done.digest,
        "objects": stage.report(),
    }
    if as_json:
        print_json(result)
        return
    print(f"{done.ticks} ticks, {done.pictures} pictures{f' in {out}' if out else ''}, final state {done.digest}")
    for row in result["objects"]:
        print(
            f"  {row['object']}: {row['splats']} splats on {row['vertices']} vertices and {row['tets']} tetrahedra, "
            f"{row['fallback_share']:.1%} on one level, {row['stiffness_used']:.0%} of the stiffness used"
        )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise InputError(f"a size is written like 640x480, 16 to 4096 a side, and this is '{text}'")
    return int(width), int(height)


def _progress(done: int, total: int | None) -> bool | None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="" if done != total else "\n", file=sys.stderr, flush=True)
    return None

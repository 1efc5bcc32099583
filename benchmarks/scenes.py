"""What a frame of a scene costs: physics and embedding by cage size, rasteriser and its gradient, the wire, the reaction.

    python benchmarks/scenes.py [--part opening|frames|raster|wire|selection|build] [--rounds 9] [--out docs/benchmarks]

One core for everything but the server's own loop. Milliseconds of physics, embedding and rasteriser are processor time,
medians and the least of the rounds, since a shared machine's clock says how busy it is; those of the reaction are the clock's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.evidence import machine_in_words, package_versions
from isometry.evaluation.report import markdown_table
from isometry.scenes import Body, Gaussians, Stage, World, bind, build_cage, example_scene, look_at
from isometry.scenes.embedding import deform_into
from isometry.scenes.physics.materials import PRESETS
from isometry.scenes.raster import render, render_backward
from isometry.scenes.server import SceneServer

SPLATS, SUBSTEPS = 200_000, 20


def timed(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time of this thread: median and least. What other programs take does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - began))
    return {"median": float(np.median(times)), "least": float(min(times))}


def block(cells: int) -> Gaussians:
    centres = (np.argwhere(np.ones((cells,) * 3)) + 0.5) / cells
    n = len(centres)
    return Gaussians(
        centres, np.full((n, 3), np.log(0.05 / cells)), np.tile([1.0, 0, 0, 0], (n, 1)), np.full(n, 3.0),
        np.zeros((n, 1, 3)),
    )  # fmt: skip


def frame(cells: int, rounds: int) -> dict[str, float]:
    """A falling block of cells^3, and the splats that ride on it."""
    rng = np.random.default_rng(0)
    cage = build_cage(block(cells), cell=1 / cells)
    world = World([Body("block", cage, PRESETS["rubber"], np.zeros((0, 3)), 0.0)], substeps=SUBSTEPS)
    many = Gaussians(
        rng.uniform(0.1, 0.9, (SPLATS, 3)), rng.normal(-5, 0.3, (SPLATS, 3)), rng.normal(size=(SPLATS, 4)),
        np.full(SPLATS, 2.0), np.zeros((SPLATS, 1, 3)),
    )  # fmt: skip
    e, rest = bind(many, cage), many.covariances()
    out = [np.empty((SPLATS, 3), np.float32), np.empty((SPLATS, 6), np.float32)]
    none = np.empty((0, 3, 3), np.float32)

    def carry() -> None:
        deform_into(
            world.x, cage.tets, e.tets, e.weights, e.inverse, e.centre_tets, e.centre_weights, rest, *out, none, none
        )

    physics, embedding = timed(world.step, rounds), timed(carry, rounds)
    return {
        "vertices": len(cage.vertices), "tets": len(cage.tets), "physics": physics["median"],
        "physics_least": physics["least"], "embedding": embedding["median"], "embedding_least": embedding["least"],
        "frame": physics["median"] + embedding["median"], "frame_least": physics["least"] + embedding["least"],
        "substeps_in_16.7_ms": (16.7 - embedding["least"]) / (physics["least"] / SUBSTEPS), "bind_seconds": e.seconds,
        "bind_mb": e.bytes / 1e6, "fallback_share": e.fallback_share,
    }  # fmt: skip


def raster(rounds: int) -> dict[str, float]:
    """100,000 Gaussians on a noisy sphere, 512 x 512, one thread; the gradient is of a full picture's loss."""
    rng = np.random.default_rng(0)
    n = 100_000
    normal = rng.normal(size=(n, 3))
    means = normal / np.linalg.norm(normal, axis=1, keepdims=True) * rng.normal(1, 0.03, (n, 1))
    g = Gaussians(
        means, rng.normal(np.log(0.01), 0.4, (n, 3)), rng.normal(size=(n, 4)), rng.normal(0.5, 1.5, n),
        rng.normal(0, 0.3, (n, 1, 3)),
    )  # fmt: skip
    camera = look_at([0, 0, 3], [0, 0, 0], up=[0, 1, 0], width=512, height=512, field_of_view=45)
    drawn = render(g, camera, threads=1)
    slope = np.full((512, 512, 3), 1e-6, np.float32)
    forward = timed(lambda: render(g, camera, threads=1), rounds)
    backward = timed(lambda: render_backward(g, camera, drawn, slope), rounds)
    return {
        "forward": forward["median"], "forward_least": forward["least"], "gradient": backward["median"],
        "gradient_least": backward["least"], "ratio": backward["least"] / forward["least"],
    }  # fmt: skip


def reaction(moves: int) -> dict[str, float]:
    """A served session on loopback: a hand's pose goes out, the frame whose grabbed vertices follow it comes back."""
    from websockets.asyncio.client import connect

    stage = Stage(example_scene(splats=5000), substeps=4)
    server = SceneServer(stage)
    rng = np.random.default_rng(0)
    waits: list[float] = []
    size = 0

    async def session() -> None:
        """One viewer grabs a thing, moves it, and waits for what comes of each move."""
        nonlocal size
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(server.run("127.0.0.1", 0, ready=ready))
        async with connect(f"ws://127.0.0.1:{await ready}/session", max_size=None, compression=None) as line:
            top = stage.world.x[stage.world.span(0)]
            top = top[np.argmax(top[:, 1])].astype(float)
            await line.send(json.dumps({"do": "grab", "hand": 0, "position": top.tolist(), "radius": 0.06}))
            held: list[int] = []
            height = 0.0
            while not held or not height:
                message = await line.recv()
                if isinstance(message, bytes):
                    size, height = len(message), 1.0
                elif json.loads(message)["type"] == "grabbed":
                    held = json.loads(message)["vertices"]

            async def follow(seconds: float, until: Callable[[float], bool]) -> bool:
                """Read frames until the one asked for has come."""
                nonlocal height
                end = time.perf_counter() + seconds
                while (left := end - time.perf_counter()) > 0:
                    try:
                        message = await asyncio.wait_for(line.recv(), left)
                    except TimeoutError:
                        return False
                    if isinstance(message, bytes):
                        height = float(server.wire.unpack(message)[2][held].mean(axis=0)[1])
                        if until(height):
                            return True
                return False

            for k in range(moves):
                # a pose comes at any moment between two ticks, to a thing that has come to rest
                await follow(0.25 + rng.uniform(0, 0.03), lambda _: False)
                goal, was, way = top + np.array([0, 0.1 + 0.04 * (k % 2), 0]), height, 1 if k % 2 else -1
                began = time.perf_counter()
                await line.send(json.dumps({"do": "move", "hand": 0, "position": goal.tolist()}))
                if await follow(2.0, lambda now, was=was, way=way: (now - was) * way > 0.01) and k:
                    waits.append(1000 * (time.perf_counter() - began))
        task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(session()), daemon=True)
    thread.start()
    thread.join(300)
    vertices = len(stage.world.x)
    head = size - 6 * vertices  # 16 bits a coordinate
    return {
        "vertices": vertices, "bytes_a_frame": size, "mbit_2200_vertices_90_hz": 8 * (head + 6 * 2200) * 90 / 1e6,
        "reaction_median": float(np.median(waits)), "reaction_p95": float(np.percentile(waits, 95)), "moves": len(waits),
    }  # fmt: skip


def selection(seeds: int, splats: int) -> dict[str, dict[str, float]]:
    """Intersection over union of what one box or one click selects with the labels, plainly coloured and camouflaged."""
    from isometry.errors import InputError
    from isometry.scenes.objects import Stroke, pick

    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        scene = example_scene(splats=splats, seed=seed)
        g, rng = scene.gaussians, np.random.default_rng(seed)
        wood = np.nonzero((scene.labels == 0) & (g.means[:, 1] > 0.6))[0]
        harmonics = g.harmonics.copy()
        mine = np.nonzero(scene.labels)[0]
        harmonics[mine] = harmonics[rng.choice(wood, len(mine))]
        for turn in rng.uniform(-np.pi, np.pi, 2):
            position = np.array([1.75 * np.sin(turn), 1.35, 1.75 * np.cos(turn)])
            eye = look_at(position, [0, 0.72, 0], up=[0, 1, 0], width=480, height=360, field_of_view=42)
            for label in (1, 2, 3):
                points = g.means[scene.labels == label].astype(float) @ eye.rotation.T + eye.translation
                x = (eye.fx * points[:, 0] / points[:, 2] + eye.cx) / eye.width
                y = (eye.fy * points[:, 1] / points[:, 2] + eye.cy) / eye.height
                box = (x.min() - 0.015, y.min() - 0.015, x.max() + 0.015, y.max() + 0.015)
                near = np.argsort(points[:, 2])[: len(points) // 5]
                click = ((float(x[near].mean()), float(y[near].mean())),)
                for colours, drawn in (("its own colours", g), ("the table's wood", replace(g, harmonics=harmonics))):
                    for name, stroke in (("box", Stroke(eye, box=box)), ("click", Stroke(eye, inside=click))):
                        try:
                            took = pick(drawn, [stroke], up=np.array([0.0, 1, 0]))
                        except InputError:  # it says that nothing solid is there
                            took = np.zeros(len(g), bool)
                        truth = scene.labels == label
                        share = float((took & truth).sum() / (took | truth).sum())
                        found.setdefault(f"one {name}, {colours}", []).append(share)
    return {
        name: {"mean": float(np.mean(shares)), "median": float(np.median(shares)), "least": float(min(shares)),
               "count": float(len(shares))}
        for name, shares in found.items()
    }  # fmt: skip


def build() -> dict[str, float]:
    """The fox capture by the laptop preset, from its photographs to a scene that is judged by held-out ones."""
    from isometry.recipes._data import find_data
    from isometry.scenes.capture import build_scene, find_preset

    with tempfile.TemporaryDirectory() as folder:
        report = build_scene(
            find_data("scene/fox", None), Path(folder) / "fox", find_preset("laptop"), threads=None
        ).report
    return {
        "seconds": report["seconds"], "splats": report["splats"], "psnr": report["held_out"]["psnr"],
        "ssim": report["held_out"]["ssim"], "views": report["held_out"]["views"], "photographs": report["photographs"],
        "width": report["size"][0], "height": report["size"][1],
    }  # fmt: skip


def opening() -> float:
    """Seconds from the command until its page answers."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from isometry.cli.main import main; main(['scene', 'demo', '--no-browser', '--port', '0'])"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[-3]
    with urllib.request.urlopen(address) as answer:
        answer.read()
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGINT)
    process.wait()
    return seconds


def main() -> None:
    """Measure the parts asked for and write the page from all that was ever measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument(
        "--part", choices=[*PARTS, "all"], default="all", help="measure this only; keep the rest of the file"
    )
    given = parser.parse_args()
    file = given.out / "scenes.json"
    document: dict[str, Any] = json.loads(file.read_text()) if given.part != "all" and file.is_file() else {}
    given.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS if given.part == "all" else [given.part]:
        load = os.getloadavg()[0]  # of the others, before this one adds its own
        document[part] = PARTS[part](given.rounds) | {"load": load}
        print(json.dumps({part: document[part]}), flush=True)
        document |= {"versions": package_versions(), "machine": machine_in_words()}
        write_atomically(file, (json.dumps(document, indent=1) + "\n").encode())
    if set(PARTS) <= set(document):
        write_page(given.out, document)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "opening": lambda rounds: {"seconds": opening()},
    "frames": lambda rounds: {"rows": [frame(cells, rounds) for cells in (12, 16, 21, 30)]},
    "raster": raster,
    "wire": lambda rounds: reaction(120),
    "selection": lambda rounds: {"rows": selection(3, 6000)},
    "build": lambda rounds: build(),
}


def write_page(folder: Path, document: dict) -> None:
    """The page, from the figures in its JSON."""
    drawn, wire, machine, frames = document["raster"], document["wire"], document["machine"], document["frames"]["rows"]
    built = document["build"]
    header = ["vertices", "tetrahedra", "20 substeps, ms", "embedding, ms", "frame, ms", "substeps that fit 16.7 ms"]
    cells = [
        [
            f"{row['vertices']:,}", f"{row['tets']:,}", f"{row['physics']:.1f} ({row['physics_least']:.1f})",
            f"{row['embedding']:.1f} ({row['embedding_least']:.1f})", f"{row['frame']:.1f} ({row['frame_least']:.1f})",
            f"{max(0.0, row['substeps_in_16.7_ms']):.0f}",
        ]
        for row in frames
    ]  # fmt: skip

    def line(what: str, value: float, said: str, limit: float | None = None, unit: str = "") -> list[str]:
        if limit is None:
            return [what, said, "", ""]
        return [what, said, f"{limit:g}{unit}", "yes" if value <= limit else "**no**"]

    targets = [
        line(
            f"{frames[0]['tets']:,} tetrahedra x {SUBSTEPS} substeps and {SPLATS:,} splats, one core", frames[0]["frame"],
            f"{frames[0]['frame']:.1f} ({frames[0]['frame_least']:.1f}) ms", 16.7, " ms",
        ),
        line(
            "100,000 Gaussians at 512 x 512, one core", drawn["forward"],
            f"{drawn['forward']:.0f} ({drawn['forward_least']:.0f}) ms", 150, " ms",
        ),
        line(
            "their gradient over it", drawn["ratio"],
            f"{drawn['ratio']:.1f} ({drawn['gradient']:.0f} ms)", 3,
        ),
        line(
            "2,200 vertices at 90 Hz on the wire", wire["mbit_2200_vertices_90_hz"],
            f"{wire['mbit_2200_vertices_90_hz']:.1f} Mbit/s", 20, " Mbit/s",
        ),
        line(
            f"pose in, vertices out, 95 of 100 of {wire['moves']} moves", wire["reaction_p95"],
            f"{wire['reaction_p95']:.1f} ms (median {wire['reaction_median']:.1f})", 25, " ms",
        ),
        line(
            f"`isometry scene build` of {built['photographs']:.0f} photographs at {built['width']:.0f} x {built['height']:.0f} "
            f"on {machine['cores']} cores: {built['psnr']:.1f} dB, SSIM {built['ssim']:.3f} on {built['views']:.0f} held out",
            built["seconds"], f"{built['seconds']:.0f} s", 600, " s",
        ),
        line(
            "`isometry scene demo` until its page answers", document["opening"]["seconds"],
            f"{document['opening']['seconds']:.1f} s",
        ),
    ]  # fmt: skip
    selected = [
        [name, f"{row['mean']:.3f}", f"{row['median']:.3f}", f"{row['least']:.3f}", f"{row['count']:.0f}"]
        for name, row in document["selection"]["rows"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    each = 1e6 * frames[0]["physics_least"] / SUBSTEPS / frames[0]["tets"]
    loads = ", ".join(f"{document[part]['load']:.1f} ({part})" for part in PARTS)
    text = f"""# Scenes

Written by `python benchmarks/scenes.py`; not edited by hand. Milliseconds of physics, embedding and rasteriser are one core's
processor time, medians, in brackets the least of the rounds; reaction, building and opening are by the clock. The machine is shared: its
load was {loads} on {machine["cores"]} cores, which stretches what goes by the clock and, through caches and memory, the rest.

{markdown_table(["what", "measured", "at most", "reached"], targets)}

No GPU was at hand: warp on a GPU (at least 10 times as fast is the aim) and gsplat were not measured.

## A frame by the size of the cage

{SUBSTEPS} substeps of a block of neo-Hookean tetrahedra and {SPLATS:,} splats carried along on two levels. The limit is the
solver's arithmetic: {each:.0f} ns a tetrahedron and substep, in order on one core. Larger cages get fewer substeps, as the last
column says; the server does that by itself and the page shows it.

{markdown_table(header, cells)}

## Selecting

Intersection over union of what one mark selects with the true splats: three seeds of the example, two views each, its three
objects, 6,000 splats; once in their own colours, once wearing the table's. 0 where the command found nothing solid,
or took the thing that stood before the one in the box.

{markdown_table(["mark", "mean", "median", "least", "selections"], selected)}

{machine["cpu"]}, {machine["cores"]} cores, {machine["system"]}; {versions}.
"""
    write_atomically(folder / "scenes.md", text.encode())


if __name__ == "__main__":
    main()

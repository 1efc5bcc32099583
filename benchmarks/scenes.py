"""What a frame of a scene costs: physics and embedding by cage size, rasteriser and its gradient, the wire, the reaction.

    python benchmarks/scenes.py [--rounds 7] [--out docs/benchmarks]

One core for everything but the server's own loop. Milliseconds of physics, embedding and rasteriser are processor time,
medians and the least of the rounds, since a shared machine's clock says how busy it is; those of the reaction are the clock's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

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
    wait: list[float] = []
    sizes: list[int] = []

    async def session() -> None:
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(server.run("127.0.0.1", 0, ready=ready))
        async with connect(f"ws://127.0.0.1:{await ready}/session", max_size=None, compression=None) as line:
            top = stage.world.x[stage.world.span(0)]
            top = top[np.argmax(top[:, 1])].astype(float)
            await line.send(json.dumps({"do": "grab", "hand": 0, "position": top.tolist(), "radius": 0.06}))
            held: list[int] = []
            while not held:
                message = await line.recv()
                if isinstance(message, str) and json.loads(message)["type"] == "grabbed":
                    held = json.loads(message)["vertices"]
            last = None
            for k in range(moves):
                goal = top + np.array([0, 0.1 + 0.02 * (k % 2), 0])
                began = time.perf_counter()
                await line.send(json.dumps({"do": "move", "hand": 0, "position": goal.tolist()}))
                while True:
                    message = await line.recv()
                    if isinstance(message, str):
                        continue
                    sizes.append(len(message))
                    height = server.wire.unpack(message)[2][held].mean(axis=0)[1]
                    if last is None or (height - last) * (goal[1] - top[1] - 0.11) > 2e-3 * abs(
                        goal[1] - top[1] - 0.11
                    ):
                        wait.append(1000 * (time.perf_counter() - began))
                        last = height
                        break
                    last = height
        task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(session()), daemon=True)
    thread.start()
    thread.join(120)
    vertices = len(stage.world.x)
    bits = 8 * (8 + 6 * 2200) * 90 / 1e6
    return {
        "vertices": vertices, "bytes_a_frame": sizes[0], "mbit_2200_vertices_90_hz": bits,
        "reaction_median": float(np.median(wait)), "reaction_p95": float(np.percentile(wait, 95)), "moves": len(wait),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    frames = []
    for cells in (12, 16, 21, 30):
        frames.append(frame(cells, arguments.rounds))
        print(frames[-1], file=sys.stderr)
    drawn = raster(arguments.rounds)
    print(drawn, file=sys.stderr)
    answered = reaction(120)
    document = {
        "frames": frames, "raster": drawn, "wire": answered, "versions": package_versions(), "machine": machine_in_words(),
        "load": os.getloadavg()[0],
    }  # fmt: skip
    write_page(arguments.out, document)
    print(json.dumps(document, indent=1))


def write_page(folder: Path, document: dict) -> None:
    drawn, wire, machine = document["raster"], document["wire"], document["machine"]
    header = ["vertices", "tets", "20 substeps, ms", "embedding, ms", "frame, ms", "substeps that fit 16.7 ms"]
    cells = [
        [
            f"{row['vertices']:,}", f"{row['tets']:,}", f"{row['physics']:.1f} ({row['physics_least']:.1f})",
            f"{row['embedding']:.1f} ({row['embedding_least']:.1f})", f"{row['frame']:.1f} ({row['frame_least']:.1f})",
            f"{max(0.0, row['substeps_in_16.7_ms']):.0f}",
        ]
        for row in document["frames"]
    ]  # fmt: skip
    others = [
        [
            "100,000 Gaussians at 512 x 512, forward",
            f"{drawn['forward']:.0f} ({drawn['forward_least']:.0f}) ms",
            "150 ms",
        ],
        ["their gradient", f"{drawn['gradient']:.0f} ({drawn['gradient_least']:.0f}) ms", ""],
        ["gradient over forward (of the least)", f"{drawn['ratio']:.1f}", "3"],
        ["2,200 vertices at 90 Hz on the wire", f"{wire['mbit_2200_vertices_90_hz']:.1f} Mbit/s", "20 Mbit/s"],
        [f"pose in, vertices out, {wire['moves']} moves, median", f"{wire['reaction_median']:.1f} ms", ""],
        ["the same, 95 of 100", f"{wire['reaction_p95']:.1f} ms", "25 ms"],
    ]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    text = f"""# Scenes

Written by `python benchmarks/scenes.py`; not edited by hand. Milliseconds of one core's processor time, medians, in
brackets the least of the rounds; the reaction is by the clock. The machine was shared: its load was {document["load"]:.1f} on
{machine["cores"]} cores when the run ended, which stretches the reaction and, through caches and shared cores, the rest.

A frame is {SUBSTEPS} substeps of a block of neo-Hookean tetrahedra and {SPLATS:,} splats carried along on two levels. The
target is 16.7 ms at 10,000 tetrahedra. Larger cages get fewer substeps: the last column.

{markdown_table(header, cells)}

{markdown_table(["what", "measured", "at most"], others)}

{machine["cpu"]}, {machine["cores"]} cores, {machine["system"]}; {versions}.
"""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "scenes.md", text.encode())
    write_atomically(folder / "scenes.json", (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()

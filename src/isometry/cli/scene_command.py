"""isometry scene: build a scene, simulate it into pictures, open it in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from isometry.cli._shared import print_json, tell
from isometry.errors import InputError, MissingExtraError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def scene() -> None:
    """Scenes of 3D Gaussians whose objects can be grabbed, bent and thrown."""


@app.command()
def build(
    source: Path = typer.Argument(
        ..., help="A folder of photographs (COLMAP or transforms.json), or a .ply, .spz, .splat or .obj file."
    ),
    out: Path = typer.Option(..., help="The scene's folder to be."),
    preset: str = typer.Option(
        "laptop", help="laptop: minutes on two cores; full: the reference's schedule, for a GPU."
    ),
    size: int | None = typer.Option(None, help="Longer side of the photographs in pixels, instead of the preset's."),
    iterations: int | None = typer.Option(None, help="Instead of the preset's; the schedule shrinks or grows with it."),
    splats: int | None = typer.Option(None, help="Gaussians at most, instead of the preset's."),
    known_length: str | None = typer.Option(None, help="UNITS=METRES: a length in the source and what it truly is."),
    up: str | None = typer.Option(None, help="x,y,z: the direction in the source that is up."),
    seed: int = typer.Option(0, help="Of everything random."),
    device: str = typer.Option("cpu", help="cpu, or cuda (through gsplat)."),
    threads: int | None = typer.Option(None, help="CPU threads; one per core unless given."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Build a scene; repeat the same command to go on with an interrupted build."""
    from isometry.scenes.capture import build_scene, find_preset

    plan = find_preset(preset).changed(iterations=iterations, longest=size, most=splats)
    found = build_scene(
        source, out, plan, metres_per_unit=_metres(known_length), up=_direction(up), seed=seed, device=device,
        threads=threads, say=tell,
    ).report  # fmt: skip
    if as_json:
        print_json({"scene": str(out), **found})
        return
    print(f"{found['splats']:,} Gaussians in {out} after {found['seconds']:.0f} s")
    print(f"  {found['scale']}")
    for name, title in (("learned", "learned views"), ("held_out", "held-out views")):
        if name in found:
            row = found[name]
            print(f"  {title} ({row['views']:.0f}): PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}")


@app.command()
def lift(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene built from photographs."),
    masks: Path = typer.Option(..., help="Masks named like the photographs, or a folder of them per object."),
    out: Path = typer.Option(..., help="The new scene's folder."),
    names: str | None = typer.Option(None, help="Names of the objects in their order, by commas."),
    material: str = typer.Option("jelly", help="What the objects are made of."),
    how: str = typer.Option("vote", help="vote: weigh the masks' pixels; learn: identity codes, slower."),
    encoder: str | None = typer.Option(None, help="Embeds the objects: a name or folder, text or text and pictures."),
    search: bool = typer.Option(True, help="Make the objects searchable by 'isometry search SCENE WORDS'."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Make objects from masks: every Gaussian gets the object that its pixels belong to."""
    from isometry.scenes import load_scene, save_scene
    from isometry.scenes.objects import index_objects, make_objects

    given = [name.strip() for name in names.split(",")] if names else None
    scene = make_objects(load_scene(folder), masks, names=given, material_name=material, how=how)
    save_scene(scene, out)
    if search:
        loaded = None
        if encoder is not None:
            from isometry.encoders import load_encoder

            loaded = load_encoder(encoder)
        index_objects(scene, out, encoder=loaded)
    rows = [{"object": item.name, "splats": int((scene.labels == item.label).sum())} for item in scene.objects]
    if as_json:
        print_json({"scene": str(out), "objects": rows})
        return
    for row in rows:
        print(f"{row['object']}: {row['splats']:,} Gaussians")


@app.command()
def index(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene folder with objects."),
    encoder: str | None = typer.Option(None, help="Embeds the objects: a name or folder, text or text and pictures."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Make a scene's objects searchable (anew), with name, picture and embedding: 'isometry search SCENE WORDS'."""
    from isometry.scenes import load_scene
    from isometry.scenes.objects import index_objects

    scene = load_scene(folder)
    if not scene.objects:
        raise InputError(
            f"{folder}: this scene has no objects; select some in 'isometry scene view', or 'isometry scene lift'"
        )
    loaded = None
    if encoder is not None:
        from isometry.encoders import load_encoder

        loaded = load_encoder(encoder)
    made = index_objects(scene, folder, encoder=loaded)
    if as_json:
        print_json({"scene": str(folder), "collection": str(made), "objects": [item.name for item in scene.objects]})
        return
    print(f"{len(scene.objects)} objects in {made}")


@app.command()
def remove(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene folder."),
    thing: str = typer.Argument(..., metavar="OBJECT", help="Name of the object to take out."),
    out: Path = typer.Option(..., help="The new scene's folder."),
    fill: str = typer.Option("telea", help="telea, navier-stokes, or the path of an ONNX network of the LaMa type."),
    views: int = typer.Option(8, help="Views that are filled."),
    shadow: bool = typer.Option(True, help="Also take out the captured shadow at its foot."),
    against: Path | None = typer.Option(
        None,
        help="Photographs of the place without the object, named like the scene's own (or such a scene): PSNR of it.",
    ),
    search: bool = typer.Option(True, help="Keep the other objects searchable."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Take an object out and fill what it hid, the same from every view."""
    from isometry.scenes import load_scene, save_scene
    from isometry.scenes.objects import find_fill, index_objects, masked_psnr, remove_object

    if not 1 <= views <= 200:
        raise InputError(f"1 to 200 views can be filled, not {views}")
    filler = find_fill(fill)
    scene = load_scene(folder)
    number = scene.number(thing)
    if against is not None and not against.is_dir():
        raise InputError(f"there is no folder '{against}' with a capture without '{thing}'")
    removed = remove_object(scene, number, fill=filler, views=views, shadow=shadow)
    judged = masked_psnr(scene, number, removed, against, views=views) if against is not None else {}
    save_scene(removed.scene, out)
    if search and (folder / "objects").is_dir():
        index_objects(removed.scene, out)
    if as_json:
        print_json({"scene": str(out), **removed.report, **judged})
        return
    row = removed.report
    print(
        f"{row['object'] + row['hidden'] + row['shadow']:,} Gaussians taken out ({row['shadow']:,} of a shadow), "
        f"{row['added']:,} added in {row['views']} views"
    )
    if judged:
        print(
            f"  where it was: PSNR {judged['psnr_filled']:.2f} dB against the capture without it "
            f"({judged['psnr_cut']:.2f} dB unfilled; {judged['psnr_pixels']:,.0f} pixels in {judged['psnr_views']:.0f} views)"
        )


def _metres(text: str | None) -> float | None:
    if text is None:
        return None
    units, _, metres = text.partition("=")
    try:
        a, b = float(units), float(metres)
    except ValueError:
        a = b = 0.0
    if not (0 < a < float("inf") and 0 < b < float("inf")):
        raise InputError(f"a known length is written UNITS=METRES, both above 0, as in 3.2=0.45, and this is '{text}'")
    return b / a


def _direction(text: str | None) -> Any:
    if text is None:
        return None
    import numpy as np

    try:
        values = np.array([float(word) for word in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all() or not values.any():
        raise InputError(f"a direction is written x,y,z, as in 0,-1,0, and this is '{text}'")
    return values


@app.command()
def simulate(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene folder."),
    script: Path = typer.Option(..., help="What to do: a JSON script, or a recorded session (.jsonl)."),
    out: Path | None = typer.Option(None, help="A .mp4 or .gif file, or a folder of pictures."),
    size: str = typer.Option("640x480", help="Width x height in pixels."),
    fps: int = typer.Option(30, help="Pictures a second."),
    substeps: int = typer.Option(12, help="Small physics steps a tick (60 ticks a second)."),
    vertices: int | None = typer.Option(None, help="Of every object's cage, about; the scene says it otherwise."),
    log: Path | None = typer.Option(None, help="Write the session, to be replayed with --script."),
    solver: str = typer.Option("numba", help="numba (one core), coloured (all cores) or warp (a GPU)."),
    shadows: bool = typer.Option(True, help="Draw the objects' shadows."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Run a script on a scene and write what is seen, without a browser."""
    from isometry.scenes import Stage, load_scene, read_script, write_atomic
    from isometry.scenes import simulate as run

    width, height = _size(size)
    plan = read_script(script)
    selects = any(message.get("do") == "select" for _, message in plan.inputs)  # then there need be no object yet
    scene = _caged(load_scene(folder), vertices)
    stage = Stage(scene, rate=plan.rate, substeps=plan.substeps or substeps, empty=selects, **_solver(solver))
    warnings = _warn(stage)
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
        "warnings": warnings,
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


def _solver(name: str) -> dict[str, Any]:
    """What `Stage` needs for a solver by name."""
    if name not in ("numba", "coloured", "warp"):
        raise InputError(f"the solver is numba, coloured or warp, not '{name}'")
    return {"solver": "numba" if name == "coloured" else name, "coloured": name == "coloured"}


def _caged(scene: Any, vertices: int | None) -> Any:
    """The scene with cages of another resolution."""
    from dataclasses import replace

    if vertices is None:
        return scene
    if not 8 <= vertices <= 200_000:
        raise InputError(f"a cage has 8 to 200,000 vertices, not {vertices}")
    return scene.with_objects(tuple(replace(item, vertices=vertices) for item in scene.objects), scene.labels)


def _warn(stage: Any) -> list[str]:
    warnings: list[str] = stage.warnings
    for sentence in warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    return warnings


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise InputError(f"a size is written like 640x480, 16 to 4096 a side, and this is '{text}'")
    return int(width), int(height)


def _progress(done: int, total: int | None) -> bool | None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="" if done != total else "\n", file=sys.stderr, flush=True)
    return None


@app.command()
def view(
    folder: Path = typer.Argument(..., metavar="SCENE", help="A scene folder."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; beyond this machine a token is made."),
    port: int = typer.Option(8090, help="Port; 0 takes a free one."),
    token: str | None = typer.Option(None, help="What a page needs to connect."),
    certificate: Path | None = typer.Option(None, help="TLS certificate: headsets elsewhere need https."),
    key: Path | None = typer.Option(None, help="The certificate's key."),
    substeps: int = typer.Option(12, help="Small physics steps a tick, at most; fewer where the machine is slow."),
    rate: int = typer.Option(60, help="Ticks a second."),
    record: Path | None = typer.Option(None, help="Write the session here when it ends."),
    out: Path | None = typer.Option(None, help="Write the scene with the objects made on the page here when it ends."),
    most: int = typer.Option(1_000_000, help="Splats at most on the page; neighbours of larger scenes are joined."),
    vertices: int | None = typer.Option(None, help="Of every object's cage, about; the scene says it otherwise."),
    solver: str = typer.Option("numba", help="numba (one core), coloured (all cores) or warp (a GPU)."),
    browser: bool = typer.Option(True, help="Open the page."),
) -> None:
    """Open a scene in the browser, flat or in a headset; select things on the page to make objects of them."""
    from isometry.errors import ExistsError
    from isometry.scenes import load_scene, thinned

    if out is not None and out.exists():
        raise ExistsError(f"'{out}' exists already: choose another folder or remove it")
    whole = _caged(load_scene(folder), vertices)
    scene, note = thinned(whole, most)
    if note:
        print(note, file=sys.stderr)
        if out is not None:
            raise InputError(f"{note}; with --out give --most {len(whole.gaussians)}, so that no splat is lost")
    _serve(
        scene,
        host,
        port,
        token,
        certificate,
        key,
        substeps,
        rate,
        record,
        browser,
        out=out,
        solver=solver,
        folder=folder,
    )


@app.command()
def demo(
    port: int = typer.Option(8090, help="Port; 0 takes a free one."),
    splats: int | None = typer.Option(None, help="Make the scene anew with so many splats."),
    out: Path | None = typer.Option(None, help="Write the demo's video here (.mp4, .gif or a folder) and stop."),
    browser: bool = typer.Option(True, help="Open the page."),
) -> None:
    """A table with three soft objects that comes with Isometry: pull them, throw them."""
    from isometry.scenes import example_scene, load_scene, shipped_scene

    if splats is not None and not 1000 <= splats <= 2_000_000:
        raise InputError(f"the demo takes 1000 to 2000000 splats, not {splats}")
    scene = load_scene(shipped_scene()) if splats is None else example_scene(splats=splats)
    if out is None:
        _serve(scene, "127.0.0.1", port, None, None, None, 12, 60, None, browser)
        return
    from importlib import resources

    from isometry.scenes import Stage, read_script
    from isometry.scenes import simulate as run

    with resources.as_file(resources.files("isometry.scenes").joinpath("demo_script.json")) as script:
        done = run(Stage(scene), read_script(script), out, progress=_progress)
    print(f"{done.pictures} pictures in {out}")


def _serve(
    scene: Any, host: str, port: int, token: str | None, certificate: Path | None, key: Path | None, substeps: int,
    rate: int, record: Path | None, browser: bool, *, out: Path | None = None, solver: str = "numba",
    folder: Path | None = None,
) -> None:  # fmt: skip
    import asyncio
    import contextlib
    import ipaddress
    import secrets
    import webbrowser

    from isometry.scenes import Stage, write_atomic
    from isometry.scenes.server import SceneServer, tls_context

    if not 10 <= rate <= 120:
        raise InputError(f"10 to 120 ticks a second are simulated, not {rate}")
    if not 0 <= port <= 65535:
        raise InputError(f"a port lies within 0 and 65535, and this is {port}")
    if (certificate is None) != (key is None):
        raise InputError("a certificate needs its key: give both --certificate and --key, or none")
    try:
        near = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    if not near and token is None:
        token = secrets.token_urlsafe(16)
    tls = tls_context(certificate, key) if certificate is not None and key is not None else None
    chosen = _solver(solver)
    tell("getting the scene ready; the first time on a machine its loops are compiled, which takes some seconds")
    stage = Stage(scene, rate=rate, substeps=substeps, empty=True, **chosen)
    _warn(stage)
    server = SceneServer(stage, token=token, folder=folder)

    async def run() -> None:
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(server.run(host, port, ready=ready, tls=tls))
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await task
        shown = host if host not in ("0.0.0.0", "::") else "127.0.0.1"
        address = f"http{'s' if tls else ''}://{shown}:{ready.result()}/{f'?token={token}' if token else ''}"
        print(f"{scene.name}: {address}  (Ctrl-C stops)", flush=True)
        if not near and tls is None:
            print("a headset needs https: give --certificate and --key", file=sys.stderr)
        if browser:
            webbrowser.open(address)
        await task

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    if record is not None:
        server.log.ticks, server.log.digest = stage.world.tick, stage.world.digest()
        write_atomic(record, server.log.text().encode())
        print(f"{len(server.log.inputs)} inputs in {record}", file=sys.stderr)
    if out is not None:
        from isometry.scenes import save_scene
        from isometry.scenes.objects import index_objects

        save_scene(stage.scene, out)
        print(f"{len(stage.scene.objects)} objects in {out}", file=sys.stderr)
        try:
            index_objects(stage.scene, out)
        except MissingExtraError as error:
            print(f"'isometry search {out} WORDS' is not prepared: {error}", file=sys.stderr)

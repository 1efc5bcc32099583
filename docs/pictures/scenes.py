"""Takes the pictures of docs/scenes.md: python docs/pictures/scenes.py [film] [page]

The film needs nothing but the scene extra; the page needs Chromium or Chrome, and emulates a headset for the last picture.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from PIL import Image

from isometry.scenes import Stage, example_scene
from isometry.scenes.server import SceneServer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
HELD = "isometry.hands.held[0] && isometry.hands.held[0].vertices.length > 0"
HIGH = """[...Array(isometry.hello.objects[2].count).keys()]
  .some((k) => isometry.after.cage[4 * (isometry.hello.objects[2].first + k) + 1] > 1.2)"""


def film() -> None:
    """The README's moving picture: the demo's script on the scene that comes along."""
    (HERE / "scene.gif").unlink(missing_ok=True)
    script = ROOT / "src" / "isometry" / "scenes" / "demo_script.json"
    command = [
        "scene", "simulate", str(ROOT / "examples" / "scene"), "--script", str(script), "--out", str(HERE / "scene.gif"),
        "--size", "360x270", "--fps", "12",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "isometry", *command], check=True)


def page() -> None:
    """The page with the cushion pulled up, and with cages shown."""
    from playwright.sync_api import sync_playwright

    server = SceneServer(Stage(example_scene(splats=9000), substeps=6))
    box: dict = {}
    started = threading.Event()

    async def run() -> None:
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(server.run("127.0.0.1", 0, ready=ready))
        box["port"] = await ready
        started.set()
        await task

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    started.wait()
    with sync_playwright() as tool:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = tool.chromium.launch(executable_path=path, args=FLAGS)
        shown = browser.new_page(viewport={"width": 960, "height": 600})
        shown.set_default_timeout(600_000)
        shown.goto(f"http://127.0.0.1:{box['port']}/")

        def until(condition: str) -> None:
            end = time.monotonic() + 120
            while not shown.evaluate(f"Boolean({condition})"):
                assert time.monotonic() < end, f"never true: {condition}"
                shown.wait_for_timeout(100)

        def save(name: str) -> None:
            drawn = shown.evaluate("isometry.drawn")
            until(f"isometry.drawn > {drawn} + 4")
            shown.screenshot(path=HERE / f"{name}.png")
            with Image.open(HERE / f"{name}.png") as picture:
                picture.convert("RGB").quantize(256).save(HERE / f"{name}.png", optimize=True)

        until("window.isometry && isometry.splats && isometry.frames > 2 && isometry.splats.sorted > 1")
        shown.locator("#cages").check()
        until("isometry.cages")
        save("scene-cages")
        shown.locator("#cages").uncheck()
        until("!isometry.cages")
        shown.locator("#objects button").nth(2).click()
        shown.mouse.move(655, 240)
        shown.mouse.down()
        until(HELD)
        shown.mouse.move(670, 100, steps=6)
        until(HIGH)
        save("scene-page")
        shown.mouse.up()
        shown.close()

        # both eyes of a headset whose right hand holds the jelly up
        shown = browser.new_page(viewport={"width": 960, "height": 480})
        shown.set_default_timeout(600_000)
        emulator = ROOT / "tests" / "scenes" / "vendor" / "iwer" / "iwer.min.js"
        shown.add_init_script(
            emulator.read_text() + ";window.emulated = new IWER.XRDevice(IWER.metaQuest3);"
            "emulated.installRuntime({ forceInstall: true }); emulated.stereoEnabled = true;"
        )
        shown.goto(f"http://127.0.0.1:{box['port']}/")
        until("window.isometry && isometry.splats && isometry.frames > 2 && isometry.splats.sorted > 1")
        shown.click("#vr")
        until("isometry.renderer.xr.isPresenting && isometry.session.inputSources.length === 2")

        def right_hand(x: float, y: float, z: float) -> None:
            """Puts the grip there, which lies a little beside the pointing pose."""
            shown.evaluate(f"""() => {{
              const grip = isometry.controllers.grips[1].getWorldPosition(isometry.camera.position.clone());
              const pose = emulated.controllers.right.position;
              pose.set(pose.x + {x} - grip.x, pose.y + {y} - grip.y, pose.z + {z} - grip.z);
            }}""")
            drawn = shown.evaluate("isometry.drawn")
            until(f"isometry.drawn > {drawn} + 2")

        tops = """[0, 1, 2].map((object) => { const o = isometry.hello.objects[object]; const cage = isometry.after.cage;
          let best = o.first;
          for (let v = o.first; v < o.first + o.count; v++) if (cage[4 * v + 1] > cage[4 * best + 1]) best = v;
          return [cage[4 * best], cage[4 * best + 1], cage[4 * best + 2]]; })"""
        x, y, z = shown.evaluate(tops)[0]
        right_hand(x, y, z)
        shown.evaluate("emulated.controllers.right.updateButtonValue('trigger', 1)")
        until("isometry.hands.held[1] && isometry.hands.held[1].vertices.length > 0")
        right_hand(x, y + 0.12, z + 0.05)
        right_hand(x + 0.03, y + 0.22, z + 0.1)
        save("scene-headset")
        browser.close()


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["film", "page"]
    for name in wanted:
        {"film": film, "page": page}[name]()

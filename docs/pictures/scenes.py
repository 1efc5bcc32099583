"""Takes the pictures of docs/scenes.md: python docs/pictures/scenes.py [film] [page] [headset]

The film needs nothing but the scene extra, the others Chromium or Chrome; the headset is emulated.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from isometry.scenes import Stage, example_scene
from isometry.scenes.server import SceneServer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
SPLATS, EYE_Z, PITCH = 16_000, 0.72, -0.62
JELLY, CUSHION = 0, 2
HELD = "isometry.hands.held[0] && isometry.hands.held[0].vertices.length > 0"
HIGH = """[...Array(isometry.hello.objects[2].count).keys()]
  .some((k) => isometry.after.cage[4 * (isometry.hello.objects[2].first + k) + 1] > 1.2)"""
TOP = """(object) => { const o = isometry.hello.objects[object]; const cage = isometry.after.cage; let best = o.first;
  for (let v = o.first; v < o.first + o.count; v++) if (cage[4 * v + 1] > cage[4 * best + 1]) best = v;
  return [cage[4 * best], cage[4 * best + 1], cage[4 * best + 2]]; }"""
MIDDLE = """(object) => { const o = isometry.hello.objects[object]; const at = isometry.camera.position.clone().set(0, 0, 0);
  for (let v = o.first; v < o.first + o.count; v++) for (const a of [0, 1, 2])
    at.setComponent(a, at.getComponent(a) + isometry.after.cage[4 * v + a] / o.count);
  at.project(isometry.camera); const box = document.getElementById("view").getBoundingClientRect();
  return [box.left + (at.x + 1) / 2 * box.width, box.top + (1 - at.y) / 2 * box.height]; }"""


def film() -> None:
    """The README's moving picture: the demo's script on the scene that comes along."""
    (HERE / "scene.gif").unlink(missing_ok=True)
    script = ROOT / "src" / "isometry" / "scenes" / "demo_script.json"
    command = [
        "scene", "simulate", str(ROOT / "examples" / "scene"), "--script", str(script), "--out", str(HERE / "scene.gif"),
        "--size", "360x270", "--fps", "12",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "isometry", *command], check=True)


class Browser:
    """A page of a running session in Chromium."""

    def __init__(self, tool: Any, server: SceneServer, size: tuple[int, int], script: str = "") -> None:
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
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        self.browser = tool.chromium.launch(executable_path=path, args=FLAGS)
        self.shown = self.browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.shown.set_default_timeout(600_000)
        self.shown.add_init_script(script)
        self.shown.goto(f"http://127.0.0.1:{box['port']}/")
        self.until("window.isometry && isometry.splats && isometry.frames > 2 && isometry.splats.sorted > 1")

    def until(self, condition: str) -> None:
        end = time.monotonic() + 300
        while not self.shown.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}"
            self.shown.wait_for_timeout(100)

    def pictures(self, more: int) -> None:
        """Waits for so many further ones."""
        self.until(f"isometry.drawn > {self.shown.evaluate('isometry.drawn') + more}")

    def save(self, name: str) -> None:
        self.pictures(4)
        self.shown.screenshot(path=HERE / f"{name}.png")
        with Image.open(HERE / f"{name}.png") as picture:
            picture.convert("RGB").save(HERE / f"{name}.png", optimize=True)


def page() -> None:
    """The page with the cushion pulled up, and with cages shown."""
    with sync_playwright() as tool:
        one = Browser(tool, SceneServer(Stage(example_scene(splats=SPLATS), substeps=6)), (1040, 640))
        one.shown.locator("#cages").check()
        one.until("isometry.cages")
        one.save("scene-cages")
        one.shown.locator("#cages").uncheck()
        one.until("!isometry.cages")
        one.shown.locator("#objects button").nth(CUSHION).click()
        x, y = one.shown.evaluate(MIDDLE, CUSHION)
        one.shown.mouse.move(x, y)
        one.shown.mouse.down()
        one.until(HELD)
        one.shown.mouse.move(x + 15, y - 150, steps=6)
        one.until(HIGH)
        one.save("scene-page")
        one.shown.mouse.up()
        one.browser.close()


def headset() -> None:
    """Both eyes of a headset whose right hand pulls at the jelly."""
    emulator = (ROOT / "tests" / "scenes" / "vendor" / "iwer" / "iwer.min.js").read_text()
    emulator += (
        ";window.emulated = new IWER.XRDevice(IWER.metaQuest3);"
        "emulated.installRuntime({ forceInstall: true }); emulated.stereoEnabled = true;"
    )
    with sync_playwright() as tool:
        one = Browser(tool, SceneServer(Stage(example_scene(splats=SPLATS // 2), substeps=6)), (900, 470), emulator)
        one.shown.click("#vr")
        one.until("isometry.renderer.xr.isPresenting && isometry.session.inputSources.length === 2")
        # the person stands at the table, bends over it, and holds the left hand beside the ring
        one.shown.evaluate(f"""() => {{ emulated.position.set(0.0, 1.28, {EYE_Z} - isometry.rig.position.z);
          emulated.quaternion.set(Math.sin({PITCH} / 2), 0, 0, Math.cos({PITCH} / 2)); }}""")
        one.pictures(2)
        hand(one, "left", (0.13, 0.86, 0.3))
        x, y, z = one.shown.evaluate(TOP, JELLY)
        hand(one, "right", (x, y, z))
        for _ in range(10):  # a press that falls between two slow pictures is lost
            for value in (0, 1):
                one.shown.evaluate(f"emulated.controllers.right.updateButtonValue('trigger', {value})")
                one.pictures(2)
            if one.shown.evaluate("Boolean(isometry.hands.held[1] && isometry.hands.held[1].vertices.length)"):
                break
        for share in (0.4, 0.7, 1.0):
            hand(one, "right", (x + 0.04 * share, y + 0.13 * share, z + 0.06 * share))
        one.until(f"({TOP})({JELLY})[1] > {y + 0.08}")
        one.shown.wait_for_timeout(2000)  # what was just grabbed glows
        one.save("scene-headset")
        one.browser.close()


def hand(one: Browser, side: str, place: tuple[float, float, float]) -> None:
    """Puts a grip there; it lies a little beside the pointing pose that the emulator moves."""
    number = ("left", "right").index(side)
    one.shown.evaluate(f"""() => {{
      const grip = isometry.controllers.grips[{number}].getWorldPosition(isometry.camera.position.clone());
      const pose = emulated.controllers.{side}.position;
      pose.set(pose.x + {place[0]} - grip.x, pose.y + {place[1]} - grip.y, pose.z + {place[2]} - grip.z);
    }}""")
    one.pictures(2)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["film", "page", "headset"]:
        {"film": film, "page": page, "headset": headset}[wanted]()

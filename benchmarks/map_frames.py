"""How long one frame of the map takes with 120,000 points: python benchmarks/map_frames.py [--json out.json]

Asks: does the map follow the finger? A frame has 16.7 ms at 60 a second; the painting of the points is the part of it that
is ours. Chromium paints clustered points on a canvas of 1200 x 700 CSS pixels, whole, zoomed, and with a filter that puts
half of them back, as it does while the view moves and once it rests; the median of 40 frames each, at one and at two device
pixels per CSS pixel. Beside them stands what the machine needs to fill and hand over the same image without any point.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import platform
import shutil
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

STATIC = Path(__file__).resolve().parent.parent / "src" / "isometry" / "serving" / "page" / "static"
SCRIPT = """async (count) => {
  const { Plane } = await import("/plane.js");
  const canvas = document.body.appendChild(document.createElement("canvas"));
  Object.assign(canvas.style, { width: "1200px", height: "700px" });
  const plane = new Plane(canvas, { hover() {}, pick() {}, moved() {} });
  let seed = 1;
  const draw = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const centres = Array.from({ length: 40 }, () => [draw(), draw()]);
  const points = new Float32Array(2 * count);
  for (let at = 0; at < count; at += 1) {
    const [x, y] = centres[at % 40];
    points[2 * at] = Math.min(1, Math.max(0, x + 0.15 * (draw() + draw() + draw() - 1.5)));
    points[2 * at + 1] = Math.min(1, Math.max(0, y + 0.15 * (draw() + draw() + draw() - 1.5)));
  }
  plane.colours = Array.from({ length: 256 }, (_, code) => [code, 255 - code, 128]);
  plane.codes = Uint8Array.from({ length: count }, (_, place) => place % 12);
  const start = performance.now();
  plane.setPoints(points, false);
  const arranged = performance.now() - start;
  const median = (moving) => {
    const times = [];
    for (let at = 0; at < 40; at += 1) {
      plane.view.x = 0.5 + 0.002 * at;
      const begun = performance.now();
      plane.paint(moving);
      times.push(performance.now() - begun);
    }
    return times.sort((one, other) => one - other)[20];
  };
  const out = { "grid built once": arranged };
  plane.points = new Float32Array(0);
  out["no points at all"] = median(true);
  plane.points = points;
  for (const [name, moving] of [["moving", true], ["at rest", false]]) {
    plane.shown = null;
    plane.view.zoom = 1;
    out[`whole, ${name}`] = median(moving);
    plane.view.zoom = 4;
    out[`zoomed 4 times, ${name}`] = median(moving);
    plane.view.zoom = 1;
    plane.shown = Uint8Array.from({ length: count }, (_, place) => place % 2);
    out[`half of them put back, ${name}`] = median(moving);
  }
  return out;
}"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=120_000)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result: dict = {
        "points": given.points,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    with sync_playwright() as tool:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = tool.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        result["browser"] = browser.version
        for ratio in (1, 2):
            context = browser.new_context(device_scale_factor=ratio, viewport={"width": 1280, "height": 800})
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            times = page.evaluate(SCRIPT, given.points)
            result[f"{ratio} device pixels, ms"] = {name: round(value, 1) for name, value in times.items()}
            context.close()
        browser.close()
    server.shutdown()
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The page's files, without a line for every request."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, directory=str(STATIC), **named)

    def log_message(self, *_) -> None:
        """Nothing is said."""


if __name__ == "__main__":
    main()

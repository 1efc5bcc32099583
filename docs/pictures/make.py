"""Takes the pictures of the README and the docs from the demo's papers: python docs/pictures/make.py  (or make pictures).

Needs Chromium or Chrome, as the tests of the page do. Every picture is of this checkout: the papers are indexed (or found
in .demo), served on a free port, and looked at by a headless browser. PNGs are reduced to 256 colours to stay small.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUERY = "q=how+to+recommend+items+to+new+users"
# name, address, what to wait for, width, height, dark
SHOTS = (
    ("search-light", f"/?{QUERY}&mode=hybrid", "#results mark", 1180, 800, False),
    ("search-dark", f"/?{QUERY}&mode=hybrid", "#results mark", 1180, 800, True),
    ("map-light", "/?view=map", "#map-rows td", 1180, 1000, False),
    ("map-dark", f"/?view=map&{QUERY}", "#map-rows td", 1180, 1000, True),
    ("record", "/c/arxiv-papers/record/1705.02085", ".near li", 1000, 900, False),
    ("phone", f"/?{QUERY}", "#results mark", 380, 780, False),
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".demo" / "arxiv-papers"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "isometry", "demo", "--no-browser", "--into", str(folder), "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, f"{address}/healthz")
        for _ in range(3):  # the first searches load the encoder and compile; a reader of the page sees later ones
            urllib.request.urlopen(f"{address}/search?mode=hybrid&k=10&query=a+first+question", timeout=120).close()
        with sync_playwright() as tool:
            names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
            path = os.environ.get("ISOMETRY_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
            browser = tool.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
            for name, where, wanted, width, height, dark in SHOTS:
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if dark else "light",
                    reduced_motion="reduce",
                )
                page.set_default_timeout(300_000)
                page.goto(address + where)
                page.wait_for_selector(wanted)
                if "view=map" in where:
                    wait_for_map(page)
                page.wait_for_timeout(1500)
                small(page.screenshot(), HERE / f"{name}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait(30)


def wait_for(server: subprocess.Popen, address: str) -> None:
    """Until the papers are indexed and the server answers."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the demo ended before it could be looked at")


def wait_for_map(page: Page) -> None:
    """Until UMAP has placed the points, or nothing better than PCA is on its way."""
    page.wait_for_function(
        "() => /placed by/.test(document.getElementById('map-note').textContent)"
        " && document.getElementById('map-progress').hidden"
    )


def small(shot: bytes, path: Path) -> None:
    import io

    with Image.open(io.BytesIO(shot)) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()

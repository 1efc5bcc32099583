"""A small served collection with a deterministic encoder, and a headless browser to look at it with."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isometry.search import Collection
from isometry.types import EncoderDescription

SCHEMA = pa.schema([("title", pa.string()), ("abstract", pa.string()), ("created", pa.string()), ("n", pa.int64())])


class HashEncoder:
    """Bag of hashed words: same words, same vector; no model needed."""

    def describe(self) -> EncoderDescription:
        return EncoderDescription("hashed", "00", 32)

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        out = np.zeros((len(inputs), 32), np.float32)
        for row, text in enumerate(inputs):
            for word in text.lower().split():
                out[row, sum(word.encode()) % 32] += 1
            out[row, 0] += 0.01
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def papers(count: int) -> list[dict]:
    words = ["graph", "vector", "river", "music", "stone", "galaxy"]
    return [
        {"id": f"p/{n}", "title": f"{words[n % 6]} {words[n * 5 % 6]} {n}", "abstract": f"About {words[n % 6]}. Number {n}.",
         "created": f"{2000 + n % 20}-01-02", "n": n}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def served(tmp_path):
    with Collection.create(
        tmp_path / "papers", encoder=HashEncoder(), schema=SCHEMA, text_columns=["title", "abstract"]
    ) as collection:
        collection.upsert(papers(60))
        yield collection


@contextmanager
def listening(app) -> Iterator[str]:
    """The application on a free loopback port, stopped gracefully afterwards."""
    import uvicorn

    handle = socket.socket()
    handle.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [handle]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{handle.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        handle.close()


# ---- the browser -----------------------------------------------------------------------------------------------------

NO_BROWSER = "no Chromium or Chrome was found"  # tests/conftest.py says at the end what was left out and how to get it
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


def find_browser(tool) -> str | None:
    """A Chromium or Chrome of the machine, or the one that Playwright installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("ISOMETRY_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    own = tool.chromium.executable_path
    return found or (own if Path(own).exists() else None)


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
    with playwright.sync_playwright() as tool:
        path = find_browser(tool)
        if path is None:
            pytest.skip(NO_BROWSER)
        opened = tool.chromium.launch(executable_path=path, args=_FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page that may neither complain (a blocked script or style complains) nor ask another host."""
    opened = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
    with watched(opened):
        yield opened
    opened.close()


@contextmanager
def watched(opened) -> Iterator[None]:
    opened.set_default_timeout(30_000)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda request: None if request.url.startswith("http://127.0.0.1:") else complaints.append(request.url),
    )
    yield
    opened.unroute_all(behavior="ignoreErrors")  # a request that is still under way is no complaint
    assert complaints == []

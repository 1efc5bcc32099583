"""A small served collection with a deterministic encoder, and the same with the bundled one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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

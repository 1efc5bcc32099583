"""A served collection whose encoder takes its time, run as a process of its own: FOLDER SECONDS [option=value ...]."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from isometry.search import Collection
from isometry.serving import Limits, serve
from tests.serving.conftest import SCHEMA, HashEncoder, papers


class Slow(HashEncoder):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        if len(inputs):
            print(f"encoding {len(inputs)}", flush=True)
            time.sleep(self.seconds)
        return super().encode(inputs)


if __name__ == "__main__":
    folder, seconds, *options = sys.argv[1:]
    limits = Limits(**{name: float(value) for name, value in (one.split("=") for one in options)})
    if not Path(folder).exists():
        with Collection.create(
            folder, encoder=HashEncoder(), schema=SCHEMA, text_columns=["title", "abstract"]
        ) as made:
            made.upsert(papers(60))
    with Collection.open(folder, writable=True, encoder=Slow(float(seconds))) as opened:
        serve([opened], port=0, writable=True, limits=limits)

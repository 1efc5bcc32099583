"""Requests that come together are encoded together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isometry.errors import FingerprintError
from isometry.types import EncoderDescription, VectorSets


@dataclass
class _Work:
    kind: str
    inputs: list[Any]
    done: Future[np.ndarray] = field(default_factory=Future)


class BatchingEncoder:
    """Stands for an encoder that many threads use: one thread loads and runs it, on all that has gathered.

    Args:
        description: what the encoder is, known before it is loaded.
        load: gives the encoder; called once, at the first text.
        most: texts per run.
        wait_seconds: how long a lone request waits for company.
        on_batch: called with the number of texts and the seconds of every run.
    """

    def __init__(
        self,
        description: EncoderDescription,
        load: Callable[[], Any],
        *,
        most: int = 64,
        wait_seconds: float = 0.003,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._description, self._load, self._most, self._wait = description, load, most, wait_seconds
        self._on_batch = on_batch or (lambda count, seconds: None)
        self._queue: queue.Queue[_Work | None] = queue.Queue()
        self._encoder: Any = None
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def describe(self) -> EncoderDescription:
        return self._description

    def encode(self, inputs: Sequence[Any], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        """Documents to float32 `(n, d)`."""
        return self._ask("encode", inputs)

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Queries to float32 `(q, d)`."""
        return self._ask("encode_queries", texts)

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        """Pictures to float32 `(n, d)`."""
        return self._ask("encode_images", images)

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens that the model reads of the texts; words where the encoder does not count (it need not)."""
        count = getattr(self._loaded(), "count_tokens", None)
        return int(count(texts)) if count is not None else sum(len(text.split()) for text in texts)

    def warm(self) -> None:
        """Load now, in the background."""
        self._queue.put(_Work("encode_queries", []))

    def close(self) -> None:
        self._queue.put(None)

    def _ask(self, kind: str, inputs: Sequence[Any]) -> np.ndarray:
        """Many inputs are handed over a run's worth at a time, so that a single query need not wait for all of them."""
        parts = []
        for start in range(0, max(1, len(inputs)), self._most):
            work = _Work(kind, list(inputs[start : start + self._most]))
            self._queue.put(work)
            parts.append(work.done.result())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _loaded(self) -> Any:
        if self._encoder is None:
            encoder = self._load()
            if encoder.describe().fingerprint != self._description.fingerprint:
                raise FingerprintError(
                    f"the encoder {self._description.name} has changed since the collection was made; index it again"
                )
            self._encoder = encoder
        return self._encoder

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            gathered = [work]
            until = time.monotonic() + self._wait
            count = len(work.inputs)
            while count < self._most:
                try:
                    more = self._queue.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                gathered.append(more)
                count += len(more.inputs)
            for kind in dict.fromkeys(one.kind for one in gathered):
                self._encode([one for one in gathered if one.kind == kind], kind)

    def _encode(self, works: list[_Work], kind: str) -> None:
        started = time.perf_counter()
        try:
            encoder = self._loaded()
            function = getattr(encoder, kind, None) or encoder.encode
            made = function([one for work in works for one in work.inputs])
        except Exception as error:
            if len(works) == 1:
                works[0].done.set_exception(error)
                return
            for work in works:  # one bad input fails alone
                self._encode([work], kind)
            return
        start = 0
        for work in works:
            work.done.set_result(_part(made, start, start + len(work.inputs)))
            start += len(work.inputs)
        self._on_batch(start, time.perf_counter() - started)


def _part(made: Any, start: int, stop: int) -> Any:
    """What belongs to the inputs [start, stop) of a run."""
    if isinstance(made, VectorSets):
        return made.take(np.arange(start, stop))
    return np.asarray(made, np.float32)[start:stop]

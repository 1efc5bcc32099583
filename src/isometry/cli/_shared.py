"""What several verbs need: JSON on stdout, progress and tables for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def print_json(document: Any) -> None:
    """One JSON document on stdout, and nothing else there."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, default=str))


def tell(sentence: str) -> None:
    """A sentence for the person, on stderr."""
    print(sentence, file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="cyan")


@contextmanager
def progress_bar(what: str, *, show: bool = True) -> Iterator[Any]:
    """A callable of (done, total) that draws rate and remaining time on stderr; plain lines where it is no terminal."""
    console = Console(stderr=True)
    if not show:
        yield lambda done, total=None: None
        return
    if not console.is_terminal:
        yield _PlainProgress(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False, speed_estimate_period=60) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


class _PlainProgress:
    """A line every few seconds, for logs."""

    EVERY_SECONDS = 5.0

    def __init__(self, what: str) -> None:
        import time

        self._what, self._clock = what, time.monotonic
        self._started = self._said = self._clock()

    def __call__(self, done: int, total: int | None = None) -> None:
        now = self._clock()
        if now - self._said < self.EVERY_SECONDS and done != total:
            return
        self._said = now
        rate = done / max(now - self._started, 1e-9)
        left = (
            f" of {total:,}, {rate:,.0f}/s, {(total - done) / max(rate, 1e-9):,.0f} s left"
            if total
            else f", {rate:,.0f}/s"
        )
        tell(f"{self._what}: {done:,}{left}")


def shorten(text: Any, width: int) -> str:
    """One line of at most `width` characters, free of control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= width else line[: width - 1] + "…"

"""A scene server in a thread, for tests, and a gate through which its ticks go."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from isometry.scenes.server import SceneServer


class Gate:
    """Open: the physics ticks by the clock. Closed: only as many ticks happen as a test lets through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: int | None = None

    def __call__(self) -> bool:
        with self._lock:
            if self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def open(self) -> None:
        with self._lock:
            self._left = None

    def close(self) -> None:
        with self._lock:
            self._left = 0

    def let_through(self, ticks: int) -> None:
        with self._lock:
            self._left = (self._left or 0) + ticks


@contextlib.contextmanager
def running(server: SceneServer):
    """Gives the port."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    box = {}

    async def main():
        ready = loop.create_future()
        box["task"] = asyncio.current_task()
        waiting = asyncio.create_task(_tell(ready))
        try:
            await server.run("127.0.0.1", 0, ready=ready)
        except asyncio.CancelledError:
            pass
        finally:
            waiting.cancel()

    async def _tell(ready):
        box["port"] = await ready
        started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(400)
    try:
        yield box["port"]
    finally:
        loop.call_soon_threadsafe(box["task"].cancel)
        thread.join(20)
        loop.close()

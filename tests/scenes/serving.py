"""A scene server in a thread, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from isometry.scenes.server import SceneServer


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
    assert started.wait(30)
    try:
        yield box["port"]
    finally:
        loop.call_soon_threadsafe(box["task"].cancel)
        thread.join(20)
        loop.close()

"""Serves one session of a stage to several viewers: physics here, pictures there, only cage vertices on the wire."""

from __future__ import annotations

import asyncio
import hmac
import http
import json
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isometry.errors import InputError, IsometryError, MissingExtraError
from isometry.scenes.inputs import Log, apply_input
from isometry.scenes.stage import Stage
from isometry.scenes.wire import Wire

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as error:
    raise MissingExtraError("the scene page", "scene") from error

_MESSAGE = 16_384
_PER_SECOND = 400
_VIEWERS = 32
_HANDS_EACH = 2
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript"),
    "/splats.js": ("splats.js", "text/javascript"),
    "/hands.js": ("hands.js", "text/javascript"),
    "/link.js": ("link.js", "text/javascript"),
    "/sort.js": ("sort.js", "text/javascript"),
    "/select.js": ("select.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/vendor/three/three.module.min.js": ("vendor/three/three.module.min.js", "text/javascript"),
    "/vendor/three/three.core.min.js": ("vendor/three/three.core.min.js", "text/javascript"),
}
_POLICY = (
    "default-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; worker-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(eq=False)
class _Viewer:
    """One page. Its mailbox holds the newest frame only: a slow page skips ticks instead of falling behind."""

    connection: ServerConnection
    slot: int | None
    frame: bytes | None = None
    texts: list[str] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0
    window: float = 0.0
    taken: int = 0

    def send(self, text: dict[str, Any]) -> None:
        if len(self.texts) < 100:
            self.texts.append(json.dumps(text))
            self.wake.set()

    def show(self, frame: bytes) -> None:
        if self.frame is not None:
            self.dropped += 1
        self.frame = frame
        self.wake.set()


class SceneServer:
    """A running session.

    Args:
        stage: what is simulated.
        token: needed to connect, or None.
        extra: further pages by path, for tests.
        folder: of the scene, where its objects are kept as a collection for searches by meaning; None for names only.
        may_tick: asked before every tick; None ticks by the clock. Tests step the physics with it.

    The number of substeps follows the time that a tick takes (at most `stage`'s), and the page says so.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        token: str | None = None,
        extra: dict[str, tuple[bytes, str]] | None = None,
        may_tick: Callable[[], bool] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.stage = stage
        self._folder = folder
        self._may_tick = may_tick or (lambda: True)
        self.wire = Wire(stage)
        self.log = Log.start(stage)
        self._token = token
        self._extra = extra or {}
        self._wanted = stage.world.substeps
        self._viewers: set[_Viewer] = set()
        self._inputs: list[tuple[_Viewer | None, dict]] = []
        self._binding = self.wire.binding()
        self._edition = 0
        self._mean = 0.0
        self._since_change = 0
        self._began = time.monotonic()
        self.tick_milliseconds: list[float] = []

    async def run(
        self, host: str, port: int, *, ready: asyncio.Future | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve until cancelled. `ready` receives the port."""
        await asyncio.get_running_loop().run_in_executor(None, self.stage.world.prepare)
        async with serve(
            self._talk, host, port, process_request=self._respond, max_size=_MESSAGE, compression=None, ssl=tls,
            ping_interval=20, ping_timeout=20, max_queue=64,
        ) as server:  # fmt: skip
            if ready is not None:
                ready.set_result(next(iter(server.sockets)).getsockname()[1])
            await self._simulate()

    async def _simulate(self) -> None:
        loop = asyncio.get_running_loop()
        period = 1.0 / self.stage.world.rate
        following = loop.time()
        with ThreadPoolExecutor(1) as pool:
            while True:
                if self._viewers and self._may_tick():
                    await self._apply(pool)
                    began = time.perf_counter()
                    await loop.run_in_executor(pool, self.stage.world.step)
                    frame = self.wire.frame(self.stage.world.tick, int((time.monotonic() - self._began) * 1000))
                    for viewer in self._viewers:
                        viewer.show(frame)
                    self._pace((time.perf_counter() - began) * 1000, period * 1000)
                following = max(following + period, loop.time())
                await asyncio.sleep(following - loop.time())

    def _pace(self, milliseconds: float, budget: float) -> None:
        self.tick_milliseconds = [*self.tick_milliseconds[-599:], milliseconds]
        self._mean = 0.9 * self._mean + 0.1 * milliseconds if self._mean else milliseconds
        self._since_change += 1
        world = self.stage.world
        used = world.substeps
        if self._since_change >= 30:
            if self._mean > 0.9 * budget and used > 2:
                used = max(2, int(used * 0.75))
            elif self._mean * (used + 1) / used < 0.7 * budget and used < self._wanted:
                used += 1
            if used != world.substeps:
                self._inputs.append((None, {"do": "substeps", "value": used}))
            self._since_change = 0
            self._tell_all({"type": "status", **self.status()})

    def status(self) -> dict[str, Any]:
        """How the session is doing."""
        world = self.stage.world
        return {
            "tick": world.tick,
            "tick_ms": round(self._mean, 2),
            "substeps": world.substeps,
            "wanted_substeps": self._wanted,
            "viewers": len(self._viewers),
            "paused": world.paused,
            "gravity": world.gravity.tolist(),
            "softened": [round(float(share), 4) for share in world.softened],
            "lost": world.lost,
        }

    async def _apply(self, pool: ThreadPoolExecutor) -> None:
        waiting, self._inputs = self._inputs, []
        for viewer, message in waiting:
            try:
                if message.get("do") in {"select", "dissolve"}:  # takes seconds: pages stay connected meanwhile
                    self._tell_all({"type": "busy", "message": "Taking the splats of the selection from all sides…"})
                    found = await asyncio.get_running_loop().run_in_executor(pool, apply_input, self.stage, message)
                else:
                    found = apply_input(self.stage, message)
            except IsometryError as error:
                if viewer is not None:
                    viewer.send({"type": "error", "message": str(error)})
                continue
            self.log.add(self.stage.world.tick, message)
            if message["do"] == "grab" and viewer is not None:
                hand = message["hand"] - _HANDS_EACH * (viewer.slot or 0)
                rows = self.stage.world.held().get(message["hand"]) if found is not None else None
                grip = self.stage.world.grip(message["hand"]) if found is not None else None
                viewer.send({
                    "type": "grabbed", "hand": hand, "object": found, "vertices": [] if rows is None else rows.tolist(),
                    "offsets": [] if grip is None else grip.round(5).tolist(),
                })  # fmt: skip
            elif message["do"] in {"select", "dissolve"}:
                await self._show_anew(pool)
                if viewer is not None:
                    viewer.send({"type": "selected", "object": found})
            elif message["do"] in {"pause", "gravity", "material", "reset", "undo", "substeps", "transform"}:
                self._tell_all({"type": "status", **self.status()})

    async def _show_anew(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        self.wire = await loop.run_in_executor(pool, Wire, self.stage)
        self._binding = await loop.run_in_executor(pool, self.wire.binding)
        self._edition += 1
        for viewer in self._viewers:
            viewer.frame = None  # of the cages that are gone
            viewer.send(self._hello(viewer))

    def _hello(self, viewer: _Viewer) -> dict[str, Any]:
        about = {"type": "hello", "may_act": viewer.slot is not None, "edition": self._edition}
        return {**about, **self.wire.describe(), **self.status()}

    def _tell_all(self, text: dict[str, Any]) -> None:
        for viewer in self._viewers:
            viewer.send(text)

    async def _talk(self, connection: ServerConnection) -> None:
        taken = {viewer.slot for viewer in self._viewers}
        slot = next((number for number in range(4) if number not in taken), None)
        if len(self._viewers) >= _VIEWERS:
            await connection.close(1013, f"{_VIEWERS} viewers are connected already; try again later")
            return
        viewer = _Viewer(connection, slot)
        viewer.send(self._hello(viewer))
        self._viewers.add(viewer)
        viewer.show(self.wire.frame(self.stage.world.tick, int((time.monotonic() - self._began) * 1000)))
        writer = asyncio.create_task(self._write(viewer))
        try:
            async for message in connection:
                self._take(viewer, message)
        except ConnectionClosed:
            pass
        finally:
            self._viewers.discard(viewer)
            writer.cancel()
            if slot is not None:
                for hand in range(_HANDS_EACH):
                    self._inputs.append((None, {"do": "release", "hand": _HANDS_EACH * slot + hand}))

    async def _write(self, viewer: _Viewer) -> None:
        try:
            while True:
                await viewer.wake.wait()
                viewer.wake.clear()
                texts, viewer.texts = viewer.texts, []
                for text in texts:
                    await viewer.connection.send(text)
                frame, viewer.frame = viewer.frame, None
                if frame is not None:
                    await viewer.connection.send(frame)
        except ConnectionClosed:
            return

    def _take(self, viewer: _Viewer, text: str | bytes) -> None:
        now = time.monotonic()
        if now - viewer.window > 1.0:
            viewer.window, viewer.taken = now, 0
        viewer.taken += 1
        if viewer.taken > _PER_SECOND:
            if viewer.taken == _PER_SECOND + 1:
                viewer.send(
                    {"type": "error", "message": f"more than {_PER_SECOND} messages a second: the rest is dropped"}
                )
            return
        try:
            if not isinstance(text, str):
                raise InputError("inputs are JSON text")
            message = json.loads(text)
            if not isinstance(message, dict):
                raise InputError("an input is a JSON object")
        except (ValueError, RecursionError) as error:
            viewer.send({"type": "error", "message": f"this input cannot be read: {error}"})
            return
        if viewer.slot is None:
            viewer.send({"type": "error", "message": "four people are acting already: you can only watch"})
            return
        hand = message.get("hand")
        if hand is not None:
            if isinstance(hand, bool) or hand not in range(_HANDS_EACH):
                viewer.send({"type": "error", "message": f"'hand' must be 0 or 1 and is {str(hand)[:20]}"})
                return
            message["hand"] = _HANDS_EACH * viewer.slot + hand
        if len(self._inputs) < 4096:
            self._inputs.append((viewer, message))

    async def _respond(self, connection: ServerConnection, request: Request) -> Response | None:
        answer = self._answer(request)
        parts = urlsplit(request.path)
        if answer is not None or parts.path != "/search":
            return answer
        from isometry.scenes.objects.search import find_objects

        words = parse_qs(parts.query).get("q", [""])[0][:200]
        loop = asyncio.get_running_loop()  # the first search by meaning loads the encoder
        try:
            found = await loop.run_in_executor(None, find_objects, self.stage.scene, words, self._folder)
        except IsometryError as error:
            return _reply(http.HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}\n".encode())
        return _reply(http.HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _answer(self, request: Request) -> Response | None:
        """What a path is answered with; None where a session or a search begins."""
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        if parts.path in ("/session", "/binding", "/search", "/cages") and not self._allowed(query):
            return _reply(
                http.HTTPStatus.FORBIDDEN, b"a token is needed: open the address that 'isometry scene view' printed\n"
            )
        if parts.path == "/search":
            return None
        if parts.path == "/session":
            origin = request.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
                return _reply(http.HTTPStatus.FORBIDDEN, b"another site may not connect to this session\n")
            return None
        if parts.path == "/binding":
            return _reply(http.HTTPStatus.OK, self._binding, "application/octet-stream")
        if parts.path == "/cages":
            return _reply(http.HTTPStatus.OK, json.dumps(self.wire.cages()).encode(), "application/json")
        if parts.path in self._extra:
            body, kind = self._extra[parts.path]
            return _reply(http.HTTPStatus.OK, body, kind)
        if parts.path in _PAGE:
            name, kind = _PAGE[parts.path]
            body = resources.files("isometry.scenes").joinpath("page", name).read_bytes()
            return _reply(http.HTTPStatus.OK, body, kind)
        return _reply(http.HTTPStatus.NOT_FOUND, b"there is no such page\n")

    def _allowed(self, query: dict[str, list[str]]) -> bool:
        if self._token is None:
            return True
        return hmac.compare_digest(query.get("token", [""])[0].encode(), self._token.encode())


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a headset on the network needs: browsers give WebXR to https pages only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the certificate '{certificate}' and key '{key}' cannot be used: {error}") from error
    return context


def _reply(status: http.HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
    )
    return Response(status.value, status.phrase, headers, body)

"""What every request passes before it reaches a route: host, origin, token, size, concurrency, time."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from isometry.serving.limits import Limits
from isometry.serving.sign_in import SIGN_IN, SignIn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


def error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape of every refusal: one line, and no half surrogate pair, which JSON in UTF-8 cannot hold."""
    message = " ".join(message.encode("utf-8", "replace").decode().split())
    return JSONResponse({"error": {"message": message, "type": kind}}, status, headers)


class Guard:
    """ASGI middleware.

    Args:
        token: asked for as `Authorization: Bearer`, or as the cookie that `/sign-in` and `/?token=...` set (see
            `isometry.serving.sign_in`); None for nobody to be asked.
        hosts: names that the Host header may have (against DNS rebinding); None for any.
        observe: called with route, method, status and seconds of every request.
    """

    def __init__(
        self,
        app: Any,
        *,
        token: str | None,
        limits: Limits,
        hosts: Iterable[str] | None,
        observe: Callable[[str, str, int, float], None],
    ) -> None:
        self.app, self.limits, self.observe = app, limits, observe
        self._token = token.encode() if token is not None else None  # as bytes on the wire: UTF-8
        self._door = None if token is None else SignIn(token)
        self._hosts = None if hosts is None else frozenset(hosts)
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        begun = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                path = scope["path"]
                extra = () if path.startswith(("/docs", "/redoc")) else HEADERS
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        self.running += 1
        try:
            refusal, receive = await self._check(scope, receive)
            if refusal is not None:
                await refusal(scope, receive, answer)
                return
            await asyncio.wait_for(self.app(scope, receive, answer), self.limits.seconds)
        except TimeoutError:
            if not begun:
                late = error(503, f"no answer within {self.limits.seconds:g} seconds; ask for less", "Timeout")
                await late(scope, receive, answer)
        finally:
            self.running -= 1
            route = getattr(scope.get("route"), "path", "other")
            self.observe(route, scope["method"], status, time.perf_counter() - started)

    async def _check(self, scope: Scope, receive: Receive) -> tuple[Response | None, Receive]:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and _hostname(headers.get("host", "")) not in self._hosts:
            return error(421, "this server does not answer under that host name", "WrongHost"), receive
        origin = headers.get("origin")
        if (
            scope["method"] not in {"GET", "HEAD", "OPTIONS"}
            and origin
            and urlsplit(origin).netloc != headers.get("host")
        ):
            return error(
                403, "requests that change or compute something must come from this page", "WrongOrigin"
            ), receive
        if self.running > self.limits.concurrent:
            return error(429, "too many requests at once; try again", "TooManyRequests", {"Retry-After": "1"}), receive
        if self._door is not None and not _is_public(scope["path"]):
            if scope["path"] == SIGN_IN:
                refusal, receive = await self._bounded_body(headers, receive)
                return refusal or await self._door.visit(scope, receive), receive
            refusal = self._ask_token(scope, headers)
            if refusal is not None:
                return refusal, receive
        try:
            return await asyncio.wait_for(self._bounded_body(headers, receive), self.limits.arrival_seconds)
        except TimeoutError:
            seconds = self.limits.arrival_seconds
            return error(
                408, f"the body did not come within {seconds:g} seconds", "Slow", {"Connection": "close"}
            ), receive

    def _ask_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        assert self._token is not None
        given = headers.get("authorization", "")
        if given[:7].lower() == "bearer " and hmac.compare_digest(given[7:].strip().encode("latin-1"), self._token):
            return None
        assert self._door is not None
        if self._door.lets_in(headers):
            return None
        message = "a token is needed: send 'Authorization: Bearer TOKEN', or open /sign-in in a browser"
        refusal = error(401, message, "Unauthorized", {"WWW-Authenticate": "Bearer"})
        return self._door.lead_in(scope, headers) or refusal

    async def _bounded_body(self, headers: dict[str, str], receive: Receive) -> tuple[Response | None, Receive]:
        most = self.limits.body_bytes
        too_large = error(413, f"the body is larger than {most:,} bytes; send less at once", "TooLarge")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            return too_large, receive
        if length in {"", "0"} and "transfer-encoding" not in headers:
            return None, receive
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > most:
                return too_large, receive
        body, given = b"".join(parts), False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return None, replay


def _is_public(path: str) -> bool:
    """What anybody may have: whether the server lives, and the files of the page, which are the same everywhere."""
    return path == "/healthz" or path.startswith("/static/")


def _hostname(host: str) -> str:
    return host[: host.index("]") + 1].strip("[]") if host.startswith("[") and "]" in host else host.rsplit(":", 1)[0]

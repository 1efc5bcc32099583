"""How a person with a browser shows the token: once, in a form; then a cookie that scripts cannot read says it was shown.

The cookie holds a keyed hash and not the token, since browsers give cookies of one host to every port of it. Its name is
made of the token too, so that two servers on one host do not sign each other's visitors out. It comes along when a person
follows a link to this server, and never with what another site sends here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.responses import HTMLResponse, RedirectResponse, Response

SIGN_IN = "/sign-in"
_PAGE = Path(__file__).parent / "page" / "templates" / "sign_in.html"
_PAUSE = 0.5  # seconds before a wrong token is answered
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class SignIn:
    """The door of a server with a token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._shown = hmac.new(self._token, b"isometry page", hashlib.sha256).hexdigest()
        self._cookie = "isometry_" + hmac.new(self._token, b"isometry cookie", hashlib.sha256).hexdigest()[:12]

    def lets_in(self, headers: dict[str, str]) -> bool:
        """Whether the cookie of this token came along."""
        cookie: SimpleCookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookie and hmac.compare_digest(cookie[self._cookie].value.encode(), self._shown.encode())

    def lead_in(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """A person without the token is led to the form, `/?token=` signs in; None for programs."""
        if scope["method"] == "GET" and scope["path"] == "/":
            asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if hmac.compare_digest(asked.encode(), self._token):
                return self._enter("/", scope)
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = quote(scope["path"], safe="/") + (f"?{query}" if query else "")
            return RedirectResponse(f"{SIGN_IN}?next={quote(wanted, safe='')}", 303)
        return None

    async def visit(self, scope: Scope, receive: Receive) -> Response:
        """The form itself, and what is sent from it."""
        if scope["method"] == "GET":
            given = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            return self._form(_own_address(given.get("next", ["/"])[0]))
        if scope["method"] != "POST":
            return Response(status_code=405, headers={"Allow": "GET, POST"})
        body = (await receive()).get("body", b"")
        sent = parse_qs(body[:20_000].decode("utf-8", "replace"))
        wanted = _own_address(sent.get("next", ["/"])[0])
        if hmac.compare_digest(sent.get("token", [""])[0].strip().encode(), self._token):
            return self._enter(wanted, scope)
        await asyncio.sleep(_PAUSE)
        return self._form(wanted, "That is not the token of this server.", 403)

    def _enter(self, wanted: str, scope: Scope) -> Response:
        page = RedirectResponse(wanted, 303)
        page.set_cookie(
            self._cookie, self._shown, max_age=30 * 86400, httponly=True, samesite="lax", secure=scope["scheme"] == "https"
        )  # fmt: skip
        return page

    def _form(self, wanted: str, problem: str = "", status: int = 200) -> Response:
        said = f'<p class="status error" role="alert">{escape(problem)}</p>' if problem else ""
        page = _PAGE.read_text().replace("{{ next }}", escape(wanted, quote=True)).replace("{{ problem }}", said)
        return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})


def _own_address(wanted: str) -> str:
    """An address of this server; anything else becomes the start page, so that signing in leads nowhere else."""
    plain = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted
    return wanted if plain and wanted.isprintable() and not wanted.startswith(SIGN_IN) else "/"

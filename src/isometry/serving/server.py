"""Listening: address, port, start and graceful end."""

from __future__ import annotations

import ipaddress
import math
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from isometry.errors import InputError, IsometryError, StorageError
from isometry.search import Collection
from isometry.serving.app import LOOPBACK, make_app
from isometry.serving.connection import prompt_protocol
from isometry.serving.limits import Limits


def serve(
    collections: Sequence[Collection],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    writable: bool = False,
    open_browser: bool = False,
    limits: Limits | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests are finished first.

    Raises: `InputError` for an address beyond loopback without a token, `StorageError` when the port is taken.
    """
    local = is_loopback(host)
    if not local and not token:
        raise InputError(f"{host} can be reached from other machines; give a token (--token) or listen on 127.0.0.1")
    if token is not None and len(token) < 8:
        raise InputError("the token is shorter than 8 characters; choose a longer one")
    app = make_app(
        collections, token=token, writable=writable, limits=limits, hosts=(*LOOPBACK, host) if local else None
    )
    listening = _listen(host, port)
    for encoder in app.state.encoders.values():
        encoder.warm()
    threading.Thread(target=_warm, args=(collections,), name="first searches", daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    sys.stderr.write(f"Serving {', '.join(one.name for one in collections)} at {address} (Ctrl-C to end)\n")
    sys.stderr.flush()
    if open_browser:
        webbrowser.open(address + (f"?token={token}" if token else ""))
    with listening:
        run_app(app, listening, limits or Limits())


def _warm(collections: Sequence[Collection]) -> None:
    """Search once in each way: vectors are read, and code is compiled where it is not yet, before anyone waits for it."""
    for collection in collections:
        with suppress(IsometryError):
            for hit in collection.search(k=1).hits:
                itself = hit.id.replace("'", "''")
                for where in (None, "id != ''", f"id = '{itself}'"):
                    collection.search(like=hit.id, where=where)


def run_app(app: Any, listening: socket.socket, limits: Limits) -> None:
    """Run an application on a listening socket until Ctrl-C or SIGTERM, then let running requests end.

    A request lasts at most as long as the limits say, so that the end comes; a second Ctrl-C does not wait.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none",
        http=prompt_protocol(limits.arrival_seconds),
        timeout_graceful_shutdown=math.ceil(limits.seconds + limits.arrival_seconds) + 1,
    )  # fmt: skip
    with _ending_quietly():
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """uvicorn raises its signal again once it has ended well: that must not end us before files are closed."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, frame: None) if main else None
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port} and may be 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise StorageError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from error
    return listening

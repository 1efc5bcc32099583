"""Shared fixtures. Every test runs with the network blocked: only loopback connections are let through."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
_LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0"}


def _data_folder() -> Path | None:
    for folder in (os.environ.get("ISOMETRY_DATA"), ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the larger data sets ($ISOMETRY_DATA, or shared/data beside the checkout); skips where absent."""
    folder = _data_folder()
    if folder is None:
        pytest.skip("the larger data sets are absent: set ISOMETRY_DATA to their folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    real_connect, real_connect_ex, real_getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def check(sock: socket.socket, address: object) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6) and str(address[0]) not in _LOOPBACK:  # type: ignore[index]
            raise AssertionError(f"a test tried to reach {address}: tests run without a network")

    def connect(sock, address):
        check(sock, address)
        return real_connect(sock, address)

    def connect_ex(sock, address):
        check(sock, address)
        return real_connect_ex(sock, address)

    def getaddrinfo(host, *args, **kwargs):
        if host is not None and str(host) not in _LOOPBACK and str(host) != socket.gethostname():
            raise AssertionError(f"a test tried to look up {host}: tests run without a network")
        return real_getaddrinfo(host, *args, **kwargs)

    socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
    yield
    socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = (
        real_connect,
        real_connect_ex,
        real_getaddrinfo,
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the last lines, after the list of skipped tests
def pytest_terminal_summary(terminalreporter):
    """Say which tests of the pages were left out, and how to get them."""
    result = yield
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = [one.nodeid for one in skipped if "hromium" in str(one.longrepr)]
    if left_out:
        files = ", ".join(sorted({nodeid.split("::")[0] for nodeid in left_out}))
        terminalreporter.section("left out")
        terminalreporter.line(
            f"{len(left_out)} tests in a browser were left out, since no Chromium or Chrome was found ({files}). To run them:"
            " 'apt-get install chromium', or 'python -m playwright install chromium', then 'python -m pytest -m browser'."
        )
    return result

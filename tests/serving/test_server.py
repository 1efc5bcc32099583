"""The server as a process: its end under load, slow clients, many clients, a writer beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")
from isometry.search import Collection
from tests.serving.conftest import HashEncoder, papers

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(folder: Path, seconds: float, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The slow server and its port; killed at the end where it still runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.slow_server", str(folder), str(seconds), *options],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert started.stderr is not None
        line = started.stderr.readline()
        yield started, int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
    finally:
        started.kill()
        started.wait()
        for stream in (started.stderr, started.stdout):
            assert stream is not None
            stream.close()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_end_waits_for_running_requests(tmp_path, sign):
    """Searches and writes that wait for a slow encoder run are answered; then the server is gone, with exit code 0."""
    with process(tmp_path / "c", 1.0) as (server, port), ThreadPoolExecutor(24) as pool:
        address = f"http://127.0.0.1:{port}"
        searches = [pool.submit(httpx.get, f"{address}/search?query=river+{n}", timeout=60) for n in range(16)]
        new = [{"records": [{**papers(1)[0], "id": f"new {n}"}]} for n in range(4)]
        writes = [pool.submit(httpx.post, f"{address}/collections/c/records", json=one, timeout=60) for one in new]
        assert server.stdout.readline().startswith("encoding")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and httpx.get(f"{address}/healthz", timeout=30).status_code != 200:
            pass
        time.sleep(0.5)  # so that the others are there too; a run takes a second
        server.send_signal(sign)
        assert [one.result(60).status_code for one in searches] == [200] * 16
        assert [one.result(60).status_code for one in writes] == [200] * 4
        assert server.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")
    with Collection.open(tmp_path / "c", writable=True) as opened:
        assert all(opened.get([f"new {n}" for n in range(4)])) and opened.verify().ok


def test_slow_clients_are_let_go_and_do_not_keep_others_waiting(tmp_path):
    with process(tmp_path / "c", 0.0, "arrival_seconds=1", "concurrent=8") as (_, port):
        sockets = []
        for _ in range(30):  # heads and bodies that never end
            head = socket.create_connection(("127.0.0.1", port), timeout=20)
            head.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            sockets.append(head)
        body = socket.create_connection(("127.0.0.1", port), timeout=20)
        body.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        body.sendall(b"Content-Length: 1000\r\n\r\n{")
        silent = socket.create_connection(("127.0.0.1", port), timeout=20)
        assert httpx.get(f"http://127.0.0.1:{port}/search?query=river", timeout=20).status_code == 200
        for one in [*sockets, silent]:
            assert one.recv(1000) == b""
            one.close()
        refused = b""
        while part := body.recv(1000):
            refused += part
        body.close()
        assert refused.startswith(b"HTTP/1.1 408") and b'"type":"Slow"' in refused
        kept = socket.create_connection(("127.0.0.1", port), timeout=20)
        for _ in range(3):  # a kept connection serves many requests; a second head that never ends is cut all the same
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"}" not in answer:
                answer += kept.recv(4000)
            assert answer.startswith(b"HTTP/1.1 200")
        kept.sendall(b"GET /hea")
        assert kept.recv(10) == b""
        kept.close()


def test_many_clients_lose_nothing(tmp_path):
    """The benchmark, short: every answer 2xx or 429, every acknowledged write there after SIGTERM under load."""
    pytest.importorskip("sentence_transformers")
    done = subprocess.run(
        [sys.executable, "benchmarks/serving.py", "--clients", "50", "--seconds", "3", "--records", "60",
         "--max-requests", "20", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "serving.json").read_text())
    assert result["answered"] > 0 and result["acknowledged_writes"] > 0 and result["told_to_wait"] > 0
    assert (result["lost_writes"], result["wrong_answers"], result["unanswered"]) == (0, 0, 0)
    assert "| search |" in (tmp_path / "serving.md").read_text()


def test_a_writer_process_beside_readers_and_the_server(tmp_path):
    """One process writes whole versions; the server and a reader of their own see each as a whole, and the last one."""
    folder = tmp_path / "c"
    with Collection.create(folder, encoder=HashEncoder(), schema=None, text_columns=()) as made:
        made.upsert(
            [{"id": f"x{n}", "round": 0} for n in range(30)], HashEncoder().encode(["a"] * 30), made_by=made.fingerprint
        )
    program = (
        "import sys\nfrom isometry.search import Collection\nfrom tests.serving.conftest import HashEncoder\n"
        "with Collection.open(sys.argv[1], writable=True) as c:\n"
        "    for number in range(1, 21):\n"
        "        c.upsert([{'id': f'x{n}', 'round': number} for n in range(30)],\n"
        "                 HashEncoder().encode([f'w{number}'] * 30), made_by=c.fingerprint)\n"
        "        if number % 10 == 0: c.compact()\n"
    )  # fmt: skip
    serving = subprocess.Popen(
        [sys.executable, "-m", "isometry", "serve", str(folder), "--port", "0"], stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert serving.stderr is not None
    try:
        port = int(re.search(r":(\d+)/", serving.stderr.readline())[1])  # type: ignore[index]
        writer = subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=ROOT)
        seen: dict[str, list[set[int]]] = {"server": [], "reader": []}

        def ask_server() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                while writer.poll() is None or not seen["server"] or 20 not in seen["server"][-1]:
                    answer = client.get("/search", params={"k": 100}).raise_for_status().json()
                    assert answer["total"] == 30 == len(answer["hits"])
                    seen["server"].append({hit["record"]["round"] for hit in answer["hits"]})

        def ask_store() -> None:
            with Collection.open(folder) as reader:
                while writer.poll() is None or not seen["reader"] or 20 not in seen["reader"][-1]:
                    records = [record for batch in reader.iter_records() for record in batch.to_pylist()]
                    seen["reader"].append({record["round"] for record in records})

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(ask_server), pool.submit(ask_server), pool.submit(ask_store)]:
                done.result(200)
        assert writer.wait() == 0
        assert all(len(rounds) == 1 for held in seen.values() for rounds in held)
        assert max(seen["server"][-1]) == max(seen["reader"][-1]) == 20
    finally:
        serving.terminate()
        assert serving.wait(60) == 0
        serving.stderr.close()


def test_a_hundred_threads_stop_waiting_when_the_encoder_fails(tmp_path):
    """A failing encoder answers every waiting request, and the next run is as before."""
    from fastapi.testclient import TestClient

    from isometry.errors import InputError
    from isometry.serving import make_app

    gate = threading.Event()

    class Failing(HashEncoder):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            gate.wait(20)
            if any("bad" in one for one in inputs):
                raise InputError("the encoder cannot read this")
            return super().encode(inputs)

    with Collection.create(tmp_path / "c", encoder=HashEncoder()) as made:
        made.use(Failing())
        with TestClient(make_app([made])) as client, ThreadPoolExecutor(30) as pool:
            asked = [pool.submit(client.get, f"/search?query={'bad' if n % 3 == 0 else 'good'}{n}") for n in range(30)]
            gate.set()
            assert [one.result(60).status_code for one in asked] == [422 if n % 3 == 0 else 200 for n in range(30)]

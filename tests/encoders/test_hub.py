"""Hub names: from the local cache without a network, and fetched only where that is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from isometry.encoders import load_encoder
from tests.tiny_text import sentences

NAME, REVISION = "somebody/tiny", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(folder):
    """A hub on loopback that holds one model, and the list of paths that were asked of it."""
    asked: list[str] = []
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            content, kind = b'{"error": "not found"}', "application/json"
            name = path.removeprefix(f"/{NAME}/resolve/{REVISION}/")
            status = 200
            if path in (f"/api/models/{NAME}/revision/main", f"/api/models/{NAME}/revision/{REVISION}"):
                siblings = [{"rfilename": one} for one in sorted(files)]
                content = json.dumps({"id": NAME, "modelId": NAME, "sha": REVISION, "siblings": siblings}).encode()
            elif path == f"/api/models/{NAME}/tree/{REVISION}":
                sizes = {one: file.stat().st_size for one, file in files.items()}
                listed = [{"type": "file", "path": one, "size": size, "oid": one} for one, size in sizes.items()]
                content = json.dumps(listed).encode()
            elif name in files:
                content, kind = files[name].read_bytes(), "application/octet-stream"
            else:
                status = 404
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self):
            self.answer(True)

        def do_HEAD(self):
            self.answer(False)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def _index(cache: Path, endpoint: str, folder: Path, *more: str, name: str = NAME) -> subprocess.CompletedProcess[str]:
    offline = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    environment = {key: value for key, value in os.environ.items() if key not in offline}
    environment |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    source = folder / "texts.csv"
    source.write_text("id,text\na,w1 w2\nb,w3\n")
    command = [sys.executable, "-m", "isometry", "index", str(source), "--into", str(folder / "held")]
    return subprocess.run(
        [*command, "--encoder", name, "--json", *more], capture_output=True, text=True, env=environment, timeout=120
    )


def test_a_hub_model_is_fetched_when_asked_for_and_found_again_without_the_hub(hub, tmp_path):
    endpoint, asked = hub
    cache = tmp_path / "cache"
    refused = _index(cache, endpoint, tmp_path)
    assert refused.returncode == 2 and "--download" in refused.stderr and len(refused.stderr.splitlines()) <= 3
    assert not asked and not (tmp_path / "held").exists()
    fetched = _index(cache, endpoint, tmp_path, "--download")
    assert fetched.returncode == 0, fetched.stderr
    assert json.loads(fetched.stdout)["added"] == 2
    asked.clear()
    again = _index(cache, endpoint, tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["unchanged"] == 2
    assert not asked


def test_a_hub_that_lacks_the_model_or_is_away_is_one_sentence(hub, tmp_path):
    endpoint, _ = hub
    for address in (endpoint, "http://127.0.0.1:9"):
        answer = _index(tmp_path / "cache", address, tmp_path, "--download", name="somebody/else")
        assert answer.returncode == 2 and "somebody/else" in answer.stderr and "Traceback" not in answer.stderr
        assert not (tmp_path / "held").exists()


def test_a_snapshot_in_the_local_cache_loads_by_its_name(folder, tmp_path, monkeypatch):
    home = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(folder, home / "snapshots" / REVISION)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    by_name, by_folder = load_encoder(NAME), load_encoder(folder)
    assert by_name.describe().name == NAME and by_name.describe().digest == by_folder.describe().digest
    texts = sentences(5, 0)
    np.testing.assert_array_equal(by_name.encode(texts), by_folder.encode(texts))

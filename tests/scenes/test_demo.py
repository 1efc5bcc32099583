"""`isometry scene demo` on nothing but the core and the scene extra; `view` keeps what was made on its page."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect

from isometry.cli.main import main
from isometry.scenes import example_scene, load_scene, read_script, save_scene
from tests.scenes.test_pick import message

ONLY_THE_EXTRA = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "faiss", "fastapi", "matplotlib", "umap"):
    sys.modules[name] = None
from isometry.cli.main import main
main(["scene", "demo", "--no-browser", "--port", "0"])
"""


def started(arguments: list[str], **options) -> tuple[subprocess.Popen, str]:
    """A command that serves, and its address."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    lines: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        said = lines.get(timeout=200)
    except queue.Empty:
        process.kill()
        raise
    address = re.search(r"http://127\.0\.0\.1:\d+/", said)
    assert address, said + process.stderr.read()
    return process, address[0]


def stopped(process: subprocess.Popen) -> str:
    """What it complained about, after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=200)
    assert process.returncode == 0 and "Traceback" not in complaints
    return complaints


def test_it_opens_without_the_other_extras_and_stops_when_told():
    process, address = started([sys.executable, "-u", "-c", ONLY_THE_EXTRA])
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"<title>" in answer.read()
        stopped(process)
    finally:
        process.kill()


def test_view_keeps_objects_and_session_and_search_finds_them(tmp_path, capsys):
    whole = example_scene(splats=3000)
    save_scene(whole.with_objects((), np.zeros(len(whole.labels))), tmp_path / "s")
    command = [
        sys.executable,
        "-u",
        "-m",
        "isometry",
        "scene",
        "view",
        str(tmp_path / "s"),
        "--no-browser",
        "--port",
        "0",
    ]
    out, log = tmp_path / "made", tmp_path / "log.jsonl"
    process, address = started([*command, "--out", str(out), "--record", str(log)])
    try:
        with connect(address.replace("http", "ws") + "session", max_size=None) as socket:
            socket.send(json.dumps(message(whole, 1, name="shiny jelly")))
            for said in socket:
                if isinstance(said, str) and json.loads(said)["type"] in ("selected", "error"):
                    break
            assert json.loads(said) == {"type": "selected", "object": 0}
        assert "1 objects in" in stopped(process)
    finally:
        process.kill()
    kept = load_scene(out)
    assert [item.name for item in kept.objects] == ["shiny jelly"]
    assert ((kept.labels == 1) & (whole.labels == 1)).sum() > 0.9 * (whole.labels == 1).sum()
    with pytest.raises(SystemExit) as stop:
        main(["scene", "simulate", str(tmp_path / "s"), "--script", str(log), "--json"])
    assert stop.value.code == 0, "it fails where the session does not replay to the same state"
    assert json.loads(capsys.readouterr().out)["digest"] == read_script(log).digest
    with pytest.raises(SystemExit) as stop:
        main(["search", str(out), "jelly", "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["record"]["name"] == "shiny jelly"


@pytest.mark.slow
def test_an_ordinary_wheel_holds_all_that_the_demo_needs(tmp_path):
    """Built and opened as installed, outside the checkout."""
    pytest.importorskip("hatchling.build")
    root = Path(__file__).resolve().parents[2]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=200, cwd=root)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "installed")
    ours = root / "src" / "isometry" / "scenes"
    files = {path for path in ours.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {f"isometry/scenes/{path.relative_to(ours).as_posix()}" for path in files} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]
    code = "import sys, isometry; sys.stderr.write(isometry.__file__); " + ONLY_THE_EXTRA
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    process, address = started([sys.executable, "-u", "-c", code], env=environment, cwd=tmp_path)
    try:
        for name in ("", "app.js", "vendor/three/three.core.min.js", "binding", "cages"):
            with urllib.request.urlopen(address + name, timeout=60) as answer:
                assert answer.status == 200 and answer.read()
        assert str(tmp_path / "installed") in stopped(process), "the installed package answered"
    finally:
        process.kill()

"""Cut at every file call: what was acknowledged is there, nothing else is, and no hand is needed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isometry.errors import NotFoundError
from isometry.search import Collection
from tests.search.store import workload
from tests.search.store.disk import Call, Disk, read_log

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[str, list[Call]]:
    """The workload's file calls, recorded once."""
    return _record(tmp_path_factory)


@pytest.fixture(scope="module")
def recorded_several(tmp_path_factory) -> tuple[str, list[Call]]:
    """The same with several vectors a record."""
    return _record(tmp_path_factory, "several")


def _record(tmp_path_factory, *how: str) -> tuple[str, list[Call]]:
    if shutil.which("gcc") is None:
        pytest.skip("the recorder of file calls is C: install gcc to run the crash tests")
    folder = tmp_path_factory.mktemp("recorded")
    library, log, root = folder / "recorder.so", folder / "log", folder / "root"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "recorder.c", "-ldl", "-lpthread"], check=True
    )
    root.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_LOG": str(log)}
    subprocess.run(
        [sys.executable, "-m", "tests.search.store.workload", root / "store", root / "ACK", *how],
        env=environment, check=True, cwd=HERE.parents[2],
    )  # fmt: skip
    return str(root), read_log(log)


def test_recording_is_complete(recorded, tmp_path):
    """Replaying every call gives the store that the program left, so the model misses no kind of call."""
    root, calls = recorded
    disk = Disk(root)
    for call in calls:
        disk.apply(call)
    disk.leave(tmp_path / "left", "kill", random.Random(0))
    for file in Path(root, "store").rglob("*"):
        if file.is_file():
            assert (tmp_path / "left" / file.relative_to(root)).read_bytes() == file.read_bytes(), file.name
    assert {"c", "w", "s", "r", "u", "d"} <= {call.kind for call in calls}
    assert len(calls) > 400


def test_every_cut_leaves_what_was_acknowledged(recorded, tmp_path):
    _cut_everywhere(recorded, tmp_path, points=1020, seed=20261124)


def test_every_cut_leaves_what_was_acknowledged_of_several_vectors(recorded_several, tmp_path):
    _cut_everywhere(recorded_several, tmp_path, points=250, seed=20261125)


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_every_cut_in_every_way(recorded, tmp_path):
    _cut_everywhere(recorded, tmp_path, points=3 * len(recorded[1]) * 3, seed=7)


def _cut_everywhere(recorded, tmp_path, points: int, seed: int) -> None:
    root, calls = recorded
    chance = random.Random(seed)
    wanted: dict[int, list[str]] = {}
    order = [(number, how) for how in ("kill", "drop", "torn") for number in range(1, len(calls) + 1)]
    while len(order) < points:
        order += [(number, "torn") for number in range(1, len(calls) + 1)]
    for number, how in order if points >= len(order) else chance.sample(order, points):
        wanted.setdefault(number, []).append(how)
    states, disk, acknowledged, checked = workload.expected_states(), Disk(root), 0, 0
    for number, call in enumerate(calls, start=1):
        if call.path.endswith("/ACK"):
            acknowledged += call.kind == "w"
        else:
            disk.apply(call)
        for how in wanted.get(number, []):
            left = tmp_path / "left"
            disk.leave(left, how, chance)
            _check(left / "store", states, acknowledged, f"call {number} ({call.kind} {Path(call.path).name}), {how}")
            shutil.rmtree(left)
            checked += 1
    assert checked >= min(points, 1000)


def _check(folder: Path, states: list[dict[str, int]], acknowledged: int, where: str) -> None:
    try:
        collection = Collection.open(folder, writable=True)
    except NotFoundError:
        assert acknowledged == 0, where
        return
    with collection:
        ids, held = collection.vectors()
        found = {
            record["id"]: record["title"] for batch in collection.iter_records(4096) for record in batch.to_pylist()
        }
        editions = {identity: int(title.rsplit(" ", 1)[1]) for identity, title in found.items()}
        allowed = states[acknowledged : acknowledged + 2]
        assert editions in allowed, where
        for place in (0, len(ids) - 1) if ids else ():
            number, edition = int(ids[place][1:]), editions[ids[place]]
            want = workload.vectors(range(number, number + 1), edition)[0]
            np.testing.assert_allclose(held[place], want / np.linalg.norm(want), rtol=2e-6, err_msg=where)
        report = collection.verify()
        assert report.ok, (where, report.problems)


def test_kill_9_in_the_middle(tmp_path):
    """A real process, killed at a random moment, again and again on the same folder."""
    program = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from isometry.search import Collection\n"
        "from tests.search.store.workload import records, vectors, SCHEMA, DIMENSION\n"
        "from pathlib import Path\n"
        "path, start = Path(sys.argv[1]), int(sys.argv[2])\n"
        "if path.exists(): c = Collection.open(path, writable=True)\n"
        "else: c = Collection.create(path, dimension=DIMENSION, schema=SCHEMA, text_columns=['title'])\n"
        "print('ready', flush=True)\n"
        "n = start\n"
        "while True:\n"
        "    size = 400 if n % 3 == 0 else 2\n"
        "    c.upsert(records(range(n, n + size), 1), vectors(range(n, n + size), 1))\n"
        "    print(n + size, flush=True)\n"
        "    n += size\n"
    )
    folder, chance, safe = tmp_path / "store", random.Random(11), 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", program, folder, str(safe)], stdout=subprocess.PIPE, cwd=HERE.parents[2], text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + chance.uniform(0.02, 0.5)
        while time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        lines = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        safe = int(lines[-1]) if lines else safe
        with Collection.open(folder) as collection:
            held = set(collection.vectors()[0])
            assert {f"r{number}" for number in range(safe)} <= held
            assert collection.verify().ok
            safe = len(held)
    assert safe > 0

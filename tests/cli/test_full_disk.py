"""A disk that fills up while a collection is written: one sentence, and what was acknowledged before is there after."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from isometry.search import Collection
from tests.cli.test_index_command import records, write

# A process that may write no file beyond so many bytes meets the errors of a full disk at the next byte.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from isometry.cli.main import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize("kilobytes", [40, 200, 420])
def test_a_disk_that_fills_up_says_so_and_loses_nothing(run, tmp_path, kilobytes):
    first = write(tmp_path / "first.jsonl", records(20))
    assert run("index", first, "--into", tmp_path / "c").code == 0
    more = write(tmp_path / "more.jsonl", records(1200, edition=2))
    command = [sys.executable, "-c", LIMITED, str(kilobytes * 1024), "index", str(more), "--into", str(tmp_path / "c")]
    ended = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == "" and "Traceback" not in ended.stderr
    said = ended.stderr.strip().splitlines()[-1]
    assert said.startswith("isometry: ") and "free space" in said, said
    with Collection.open(tmp_path / "c") as opened:
        assert opened.verify().ok and len(opened) >= 20
        assert {f"p{n}" for n in range(20)} <= set(opened.vectors()[0])
    report = json.loads(run("index", more, "--into", tmp_path / "c", "--json").out)
    assert report["records"] == 1200
    with Collection.open(tmp_path / "c") as opened:
        assert opened.verify().ok and opened.get("p7")[0] == records(8, edition=2)[7]

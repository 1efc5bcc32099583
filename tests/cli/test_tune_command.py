"""isometry tune: from a folder to a front, a recommendation, and a rebuilt collection; wrong input and kills."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isometry.compression import SignBinarizer
from isometry.search import Collection, SearchPlan
from isometry.search.tuning import Candidate


@pytest.fixture
def folder(tmp_path):
    """300 records with given vectors."""
    values = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    with Collection.create(tmp_path / "things", dimension=16) as opened:
        opened.upsert([{"id": f"r{i}", "n": i} for i in range(300)], values)
    return tmp_path / "things"


@pytest.fixture
def few(monkeypatch):
    plans = [SearchPlan(), SearchPlan(index="codes", code=SignBinarizer(), shortlist=30), SearchPlan(index="cells")]
    monkeypatch.setattr("isometry.search.tuning.run.candidates", lambda *given: [Candidate(plan) for plan in plans])


def test_a_front_is_drawn_and_a_plan_recommended(run, folder, few):
    answer = run("tune", folder, "--recall", 0.99, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["recommended"]["candidate"]["plan"]["index"] in ("exact", "cells") and not found["applied"]
    assert found["budget"] == {"recall": 0.99} and found["nearest"] is None and len(found["measured"]) == 3
    assert found["queries"].startswith("no queries were given: the vectors of 60 held-out records")
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert not re.search(
        r"""(src|href)=["']|https?://(?!www\.w3\.org/2000/svg)|@[A-Z]""", page
    )  # nothing from elsewhere
    data = json.loads(re.search(r"const data = (\{.*?\}), colours", page).group(1))
    assert len(data["points"]) == 3 and sum(one["chosen"] for one in data["points"]) == 1
    again = run("tune", folder, "--recall", 0.99)
    assert "* recommended: " in again.out and "--apply rebuilds" in again.out and again.out.count("\n*") >= 1


def test_apply_rebuilds_the_collection(run, folder, few):
    answer = run("tune", folder, "--bytes-per-vector", 20, "--apply", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["applied"] and answer.json["recommended"]["bytes_per_vector"] <= 20
    with Collection.open(folder) as opened:
        assert opened.plan.index == "codes" and opened.info()["indexes"][0]["complete"]


def test_a_budget_that_nothing_meets_is_one_sentence(run, folder, few):
    answer = run("tune", folder, "--recall", 1, "--bytes-per-vector", 1, "--json")
    assert answer.code == 2 and answer.out == ""
    assert [line for line in answer.err.splitlines() if not line.startswith("tuning: ")] == answer.err.splitlines()[-1:]
    assert "the nearest is '" in answer.err and "bytes a vector in memory was asked for" in answer.err
    assert (folder / "cache" / "tune" / "front.html").is_file()
    with Collection.open(folder) as opened:
        assert opened.plan == SearchPlan()


def test_queries_come_from_a_file(run, folder, few, tmp_path):
    np.save(tmp_path / "q.npy", np.random.default_rng(1).standard_normal((20, 16)).astype(np.float32))
    answer = run("tune", folder, "--queries", tmp_path / "q.npy", "-k", 5, "--out", tmp_path / "out", "--json")
    assert answer.code == 0 and answer.json["queries"] == "20 query vectors that were given" and answer.json["k"] == 5
    assert (tmp_path / "out" / "front.png").is_file() and not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--recall", "1.2"], "a budget's recall is from above 0 to 1"),
        (["--p95-ms", "0"], "a budget's p95_ms is above 0"),
        (["-k", "0"], "k is 0"),
        (["--rows", "5"], "rows is 5"),
        (["--count", "2"], "the number of queries is 2"),
        (["--queries", "none.npy"], "none.npy is no .npy file"),
        (["--queries", "none.txt"], "there is no file none.txt"),
    ],
)
def test_bad_input_is_one_sentence(run, folder, given, message):
    answer = run("tune", folder, *given)
    assert answer.code == 2 and message in answer.err and len(answer.err.splitlines()) == 1 and answer.out == ""


def test_what_is_no_collection(run, tmp_path):
    answer = run("tune", tmp_path)
    assert answer.code == 2 and "is not a collection" in answer.err


def test_titles_stand_for_queries_of_texts(run, encoder, few, tmp_path):
    schema = pa.schema([("title", pa.string())])
    with Collection.create(tmp_path / "c", encoder=encoder, schema=schema, text_columns=["title"]) as opened:
        opened.upsert([{"id": f"p{i}", "title": f"paper {i} on {i % 7} things"} for i in range(120)])
    answer = run("tune", tmp_path / "c", "--no-exits", "--json")
    assert answer.code == 0, answer.err
    assert "'title' of 24 held-out records stands for them" in answer.json["queries"]
    exact = next(one for one in answer.json["measured"] if one["label"] == "exact")
    assert exact["recall"] == 1 and exact["p50_ms"] > exact["search_p50_ms"] > 0
    (tmp_path / "q.txt").write_text("".join(f"things of kind {i}\n" for i in range(12)))
    answer = run("tune", tmp_path / "c", "--no-exits", "--queries", tmp_path / "q.txt", "--json")
    assert answer.json["queries"] == "12 queries that were given"


def test_a_killed_run_goes_on(folder):
    command = [sys.executable, "-m", "isometry", "tune", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None:
        notes = list(folder.glob("cache/tune/*/measured.jsonl"))
        if notes and notes[0].read_bytes().count(b"\n") >= 2:
            break
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = next(folder.glob("cache/tune/*/measured.jsonl")).read_bytes()
    whole = before[: before.rindex(b"\n") + 1]
    done = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(done.stdout)
    notes = next(folder.glob("cache/tune/*/measured.jsonl")).read_bytes()
    assert notes.startswith(whole) and notes.count(b"\n") == len(found["measured"]) > whole.count(b"\n")

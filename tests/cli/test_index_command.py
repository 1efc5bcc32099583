"""isometry index, search, info, verify, compact, export: from files to answers, with wrong input and kills in between."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isometry.search import Collection

WORDS = [
    "graph",
    "vector",
    "search",
    "music",
    "river",
    "stone",
    "language",
    "protein",
    "galaxy",
    "market",
    "bridge",
    "poem",
]


def records(count: int, edition: int = 1) -> list[dict]:
    return [
        {"id": f"p{n}", "title": f"{WORDS[n % 12]} and {WORDS[n * 7 % 11]} {n}", "year": 2000 + n % 20, "score": n / 8 * edition,
         "open": n % 2 == 0}
        for n in range(count)
    ]  # fmt: skip


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.suffix in {".csv", ".tsv"}:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_every_format_gives_the_same_collection(run, tmp_path, name):
    answer = run("index", write(tmp_path / name, records(30)), "--into", tmp_path / "c", "--json")
    assert answer.code == 0, answer.err
    report = answer.json
    assert (report["records"], report["added"], report["updated"], report["rejected"]) == (30, 30, 0, 0)
    assert {"collection", "records", "added", "updated", "unchanged", "rejected", "rejects_file", "seconds"} <= set(
        report
    )
    with Collection.open(tmp_path / "c") as opened:
        assert opened.get("p7")[0] == {
            "title": f"{WORDS[7]} and {WORDS[49 % 11]} 7",
            "year": 2007,
            "score": 0.875,
            "open": False,
            "id": "p7",
        }
        assert opened.text_columns == ("title",)
        assert opened.count("year >= 2010 AND open") == sum(r["year"] >= 2010 and r["open"] for r in records(30))


def test_a_rerun_does_only_what_changed(run, tmp_path, encoder, monkeypatch):
    encoded: list[str] = []
    real = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts, **given: (encoded.extend(texts), real(texts, **given))[1])
    source = write(tmp_path / "a.jsonl", records(40))
    assert run("index", source, "--into", tmp_path / "c", "--json").json["added"] == 40
    assert len(encoded) == 40
    again = run("index", source, "--into", tmp_path / "c", "--json").json
    assert (again["added"], again["updated"], again["unchanged"]) == (0, 0, 40) and len(encoded) == 40
    rows = records(44)
    rows[3]["title"] = "quite another title"
    rows[4]["score"] = 99.5
    third = run("index", write(source, rows), "--into", tmp_path / "c", "--json").json
    assert (third["added"], third["updated"], third["unchanged"], third["records"]) == (4, 2, 38, 44)
    assert len(encoded) == 45


def test_stdin_and_json_purity(run, tmp_path, monkeypatch):
    text = "".join(json.dumps(row) + "\n" for row in records(5)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    answer = run("index", "-", "--format", "jsonl", "--into", tmp_path / "c", "--json")
    assert answer.code == 0 and answer.json["records"] == 5
    found = run("search", tmp_path / "c", "river", "-k", "3", "--json")
    assert [set(hit) for hit in found.json["hits"]] == [{"id", "score", "record"}] * 3
    assert set(found.json) >= {"query", "hits", "total", "plan", "milliseconds"}
    assert run("info", tmp_path / "c", "--json").json["encoder"]["name"] == "default"
    assert run("verify", tmp_path / "c", "--json").json["ok"] is True
    assert run("export", tmp_path / "c", tmp_path / "o.parquet", "--json").json["records"] == 5
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 5
    assert run("compact", tmp_path / "c", "--json").json["records"] == 5


def test_search_by_file_of_queries_facets_and_explain(run, tmp_path):
    run("index", write(tmp_path / "a.jsonl", records(60)), "--into", tmp_path / "c")
    (tmp_path / "q.txt").write_text("river stones\n\nmusic\n")
    many = run("search", tmp_path / "c", "--queries", tmp_path / "q.txt", "-k", 2, "--json").json
    assert [one["query"] for one in many] == ["river stones", "music"] and all(len(one["hits"]) == 2 for one in many)
    explained = run(
        "search", tmp_path / "c", "music", "--mode", "hybrid", "--explain", "--json", "--facets", "open"
    ).json
    assert explained["facets"]["open"] == [{"value": False, "count": 30}, {"value": True, "count": 30}]
    for hit in explained["hits"]:
        parts = [part["adds"] for name, part in hit["explanation"].items() if name != "formula"]
        assert hit["score"] == pytest.approx(sum(parts))
    text = run("search", tmp_path / "c", "music", "--mode", "text", "--where", "year > 2015")
    assert text.code == 0 and "music" in text.out
    assert run("search", tmp_path / "c", "--like", "p3", "-k", "2").code == 0


WRONG_SOURCES = {
    "missing.jsonl": None,
    "empty.jsonl": b"",
    "broken.jsonl": b'{"id": "a", "title": "x"}\n{"id": "b", "title": \n',
    "list.jsonl": b'{"id": "a", "title": "x"}\n[1, 2]\n',
    "noid.jsonl": b'{"id": "a", "title": "x"}\n{"id": null, "title": "y"}\n',
    "twice.jsonl": b'{"id": "a", "title": "x"}\n{"id": "b", "title": "y"}\n{"id": "a", "title": "z"}\n',
    "notext.jsonl": b'{"id": "a", "title": "x"}\n{"id": "b", "title": "   "}\n',
    "latin.jsonl": b'{"id": "a", "title": "x"}\n{"id": "b", "title": "\xe9"}\n',
    "short.csv": b"id,title,n\na,x,1\nb,y\n",
    "long.csv": b"id,title\na,x\nb,y,z,w\n",
    "quote.csv": b'id,title\na,"x\nb,y\n',
    "nul.csv": b"id,title\na\x00b,x\n",
    "text.parquet": b"this is no parquet file",
    "cut.gz": gzip.compress(b'{"id": "a", "title": "x"}\n' * 100)[:-20],
}


@pytest.mark.parametrize("name", WRONG_SOURCES)
def test_wrong_sources_are_one_sentence_and_change_nothing(run, tmp_path, name):
    run("index", write(tmp_path / "good.jsonl", records(5)), "--into", tmp_path / "c")
    before = _bytes(tmp_path / "c")
    content = WRONG_SOURCES[name]
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content)
    extra = ("--format", "jsonl") if name.endswith(".gz") else ()
    for target in ("c", "new"):
        answer = run("index", source, "--into", tmp_path / target, "--json", *extra)
        assert answer.code == 2, (answer.err, answer.out)
        assert answer.out == "" and "Traceback" not in answer.err
        last = answer.err.strip().splitlines()[-1]
        assert last.startswith("isometry: ") and name in last
    assert not (tmp_path / "new").exists()
    assert _bytes(tmp_path / "c") == before


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "lock"
    }


def test_skipped_rows_are_set_aside_with_their_reasons(run, tmp_path):
    rows = [json.dumps(row) for row in records(10)]
    rows[4] = '{"id": "p4", "title": '
    rows[7] = json.dumps({"id": "p1", "title": "a second p1", "year": 1, "score": 1.0, "open": True})
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n")
    answer = run("index", tmp_path / "a.jsonl", "--into", tmp_path / "c", "--on-bad-row", "skip", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["records"], answer.json["rejected"]) == (8, 2)
    rejects = [json.loads(line) for line in Path(answer.json["rejects_file"]).read_text().splitlines()]
    assert [reject["row"] for reject in rejects] == [5, 8]
    assert all(reject["reason"] and reject["file"] for reject in rejects)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["index", "good.jsonl", "--into", "new", "--text", "titel"], "title"),
        (["index", "good.jsonl", "--into", "new", "--id", "nr"], "nr"),
        (["index", "good.jsonl", "--into", "new", "--encoder", "nowhere/at-all"], "nowhere/at-all"),
        (["index", "good.jsonl", "--into", "new", "--types", "year"], "--types"),
        (["index", "good.jsonl", "--into", "new", "--on-bad-row", "maybe"], "maybe"),
        (["index", "good.jsonl", "--into", "good.jsonl"], "good.jsonl"),
        (["index", "good.jsonl"], "--into"),
        (["search", "c", "x", "--where", "yeer > 3"], "did you mean 'year'"),
        (["search", "c", "x", "--where", "1; DROP TABLE records"], "filter"),
        (["search", "c", "x", "-k", "0"], "k is 0"),
        (["search", "c", "x", "--mode", "magic"], "magic"),
        (["search", "c", ""], "empty"),
        (["search", "c", "--queries", "none.txt"], "none.txt"),
        (["search", "c", "--like", "nobody"], "nobody"),
        (["search", "c", "x", "--image", "good.jsonl"], "not query and image"),
        (["search", "nothing", "x"], "is not a collection"),
        (["info", "nothing"], "is not a collection"),
        (["verify", "nothing"], "is not a collection"),
        (["export", "c", "no/such/folder/x.parquet"], "no/such/folder"),
        (["compact", "c", "--fast"], "--fast"),
        (["serch", "c"], "did you mean 'search'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(run, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    run("index", write(tmp_path / "good.jsonl", records(4)), "--into", "c")
    answer = run(*arguments)
    assert answer.code == 2 and answer.out == ""
    assert says in answer.err.splitlines()[-1] and "Traceback" not in answer.err
    assert not (tmp_path / "new").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300) | st.text(max_size=200).map(str.encode),
    st.sampled_from(["x.csv", "x.jsonl", "x.parquet", "x.tsv"]),
)
def test_no_bytes_make_a_traceback_or_a_half_written_collection(run, tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / name).write_bytes(content)
    answer = run("index", folder / name, "--into", folder / "c", "--json")
    assert answer.code in (0, 2), answer.err
    if answer.code == 2:
        assert not (folder / "c").exists() and answer.out == ""
    else:
        with Collection.open(folder / "c") as opened:
            assert opened.verify().ok and len(opened) == answer.json["records"]


def test_long_and_odd_texts(run, tmp_path):
    rows = [
        {"id": "long", "title": "word " * 200_000},
        {"id": "odd", "title": "tab\there \x07 bell \u202e turned \ud83d\ude42 smile"},
        {"id": "mixed\u00e9 id/with?marks", "title": "日本語 текст"},
    ]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = run("index", source, "--into", tmp_path / "c", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["records"] == 3 and answer.json["truncated"] == 1
    with Collection.open(tmp_path / "c") as opened:
        assert len(opened.get("long")[0]["title"]) >= 999_999
        assert opened.get("mixed\u00e9 id/with?marks")[0] is not None


def test_a_run_that_is_killed_goes_on_to_the_same_end(tmp_path):
    """kill -9 at random moments of real runs, then one run to the end: the same as without the cuts."""
    rows = records(1500)
    source = write(tmp_path / "a.jsonl", rows)
    command = [sys.executable, "-m", "isometry", "index", source, "--into", tmp_path / "c"]
    chance = random.Random(4)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        database = tmp_path / "c" / "collection.sqlite"
        while not database.exists() and process.poll() is None:
            time.sleep(0.01)
        until = time.monotonic() + chance.uniform(0.1, 2.5)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=environment)
    report = json.loads(finished.stdout)
    assert report["records"] == 1500 and report["added"] + report["unchanged"] == 1500
    with Collection.open(tmp_path / "c") as opened:
        found = {record["id"]: record for batch in opened.iter_records() for record in batch.to_pylist()}
        assert found == {row["id"]: row for row in rows} and opened.verify().ok
        ids, vectors = opened.vectors()
        again = opened.encoder.encode([found[one]["title"] for one in ids[:64]])
        assert (abs(vectors[:64] - again) < 2e-2).all()

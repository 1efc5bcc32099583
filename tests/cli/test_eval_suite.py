"""`isometry eval MODEL... --suite NAME`: tables, JSON, reports, resumption, and wrong usage in one sentence."""

from __future__ import annotations

import json

import pytest

import isometry.evaluation.suites as suites
from isometry.cli.main import main
from isometry.evaluation.suites import SuiteTask

from ..evaluation.tasks.letters import all_tasks


@pytest.fixture(autouse=True)
def made_of_letters(monkeypatch, tmp_path):
    """A suite of small synthetic tasks in place of the local ones; caches in the test's own folder."""
    tasks = tuple(
        SuiteTask(task.name, task.kind, "text/stsb.parquet", lambda find, task=task: task)
        for task in all_tasks().values()
    )
    monkeypatch.setitem(suites.SUITES, "local-small", tasks)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "text").mkdir(parents=True)
    (tmp_path / "data" / "text" / "stsb.parquet").touch()
    monkeypatch.setenv("ISOMETRY_DATA", str(tmp_path / "data"))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["eval", *map(str, arguments)])
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


def test_baselines_over_a_suite(capsys, tmp_path):
    out = tmp_path / "out"
    models = ("characters", "words#dimensions=64", "lsa", "random")
    code, text, errors = run(capsys, *models, "--suite", "local-small", "--out", out, "--select", "--json")
    assert code == 0, errors
    document = json.loads(text)
    assert document["suite"] == "local-small" and len(document["tasks"]) == 7
    assert {one["model"] for one in document["models"]} == set(models)
    assert document["models"][-1]["model"] == "random"
    words = next(one for one in document["models"] if one["model"] == "words#dimensions=64")
    assert words["dimension"] == 64
    low, high = words["tasks"]["s"]["interval"]
    assert low < words["tasks"]["s"]["value"] < high
    assert len(document["comparisons"]) == 3
    cuts = document["selection"]["hard_negatives"]
    assert cuts["pairs"] == sorted(cuts["pairs"]) and all(-1 <= agreement <= 1 for agreement in cuts["agreement"])
    assert (out / "report.html").is_file() and (out / "report.md").is_file()
    assert len(list((out / "results").rglob("s.json"))) == 4
    assert (tmp_path / "cache" / "isometry" / "vectors").is_dir()
    code, again, errors = run(capsys, *models, "--suite", "local-small", "--out", out, "--select", "--json")
    assert code == 0 and errors.count("7 of 7 results were in") == 4
    second = json.loads(again)
    for one in (*document["models"], *second["models"]):
        one.pop("texts_per_second")
    assert second == document


def test_a_person_gets_a_table(capsys):
    code, text, _ = run(capsys, "words", "random", "--suite", "local-small", "--task", "s", "--task", "b")
    assert code == 0
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["model", "rank"] and lines[1].split()[:2] == ["words", "1"]
    assert "words - random: +" in text and "of 2 (Holm)" in text


def test_a_report_goes_where_it_is_asked_for(capsys, tmp_path):
    code, _, errors = run(
        capsys, "words", "--suite", "local-small", "--task", "s", "--report", tmp_path / "one.md", "--json"
    )
    assert code == 0, errors
    assert (tmp_path / "one.md").read_text().startswith("# Suite local-small")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("words", "--suite", "local-large"), "no suite 'local-large'"),
        (("words", "--suite", "local-small", "--task", "sx"), "no task 'sx'; did you mean 's'?"),
        (("words", "words", "--suite", "local-small"), "stands twice"),
        (("words", "random", "--suite", "local-small", "--select"), "give at least 3, not 2"),
        (("words", "--suite", "local-small", "-k", "5"), "judge a BEIR folder: not with --suite"),
        (("words", "--suite", "local-small", "--mode", "text"), "not with --suite"),
        (("nowhere", "--suite", "local-small"), "no encoder 'nowhere'"),
        (("lsa#dimensions=0", "--suite", "local-small"), "at least one dimension"),
        (("static#dimensions=9", "--suite", "local-small"), "leave '#dimensions' out"),
        (("words",), "give --data FOLDER (BEIR) or --suite NAME"),
        (("words", "random", "--data", "x"), "several need --suite"),
        (("words", "--data", "x", "--task", "s"), "need --suite"),
        (("words", "--suite", "mteb"), "--suite mteb needs --task"),
    ],
)
def test_wrong_usage_is_one_sentence(capsys, arguments, words):
    code, text, errors = run(capsys, *arguments)
    assert (code, text) == (2, "")
    assert words in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_missing_data_set_is_one_sentence(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, errors = run(capsys, "words", "--suite", "local-small", "--data", tmp_path / "empty")
    assert code == 2
    assert "data set 'text/stsb.parquet' is not in" in errors


def test_mteb_without_a_network_is_one_sentence(capsys, tmp_path):
    pytest.importorskip("mteb", reason="mteb is not installed: pip install 'isometry[mteb]'")
    code, _, errors = run(capsys, "words", "--suite", "mteb", "--task", "STS12")
    assert code == 2 and "--out FOLDER is needed" in errors
    code, _, errors = run(capsys, "words", "--suite", "mteb", "--task", "STS12", "--out", tmp_path, "--json")
    assert code == 1 and "the data of mteb's task 'STS12' could not be loaded" in errors
    code, _, errors = run(capsys, "words", "--suite", "MTEB(eng, v2)", "--task", "STS99", "--out", tmp_path)
    assert code == 2 and "'MTEB(eng, v2)' has no task 'STS99'" in errors


@pytest.mark.slow
def test_models_of_the_house_over_real_tasks(capsys, tmp_path, shared_data, monkeypatch):
    monkeypatch.undo()
    options = ("--suite", "local-small", "--task", "STSB", "--task", "MRPC", "--cache", tmp_path, "--data", shared_data)
    code, text, errors = run(capsys, "default", "static", "random", *options, "--json")
    assert code == 0, errors
    order = [one["model"] for one in json.loads(text)["models"]]
    assert order == ["default", "static", "random"]

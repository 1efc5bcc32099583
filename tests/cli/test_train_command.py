"""From rows to a model to a collection to an answer, on a model of some thousand weights."""

from __future__ import annotations

import csv
import json

import pytest

from tests.tiny_text import sentences, tiny_model


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_model(folder, layers=2).save(str(folder / "model"))
    return folder / "model"


def table(path, **columns):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return path


def options(start, *more):
    return ["--model", start, "--steps", 2, "--batch-size", 8, *more]


def test_the_road_from_rows_to_an_answer(run, start, tmp_path):
    texts = sentences(16)
    rows = table(tmp_path / "rows.csv", anchor=texts, positive=[f"{text} w1" for text in texts])
    for seed in (0, 1):
        done = run(
            "train", "contrastive", "--data", rows, "--out", tmp_path / f"m{seed}", *options(start, "--seed", seed)
        )
        assert done.code == 0 and f"the model is in {tmp_path / f'm{seed}'}" in done.err and "rows/s" in done.err
    merged = run("merge", tmp_path / "m0", tmp_path / "m1", "--out", tmp_path / "merged", "--json")
    assert merged.code == 0 and merged.json["method"] == "soup"
    source = table(tmp_path / "corpus.csv", id=range(16), text=texts)
    made = run("index", source, "--into", tmp_path / "store", "--encoder", tmp_path / "merged", "--json")
    assert made.code == 0 and made.json["records"] == 16
    found = run("search", tmp_path / "store", texts[5], "-k", 1, "--json")
    (hit,) = found.json["hits"]
    assert hit["id"] == "5" and hit["score"] == pytest.approx(1, abs=1e-3)


def test_the_road_of_a_residual_pair(run, start, tmp_path):
    texts = sentences(16)
    rows = table(
        tmp_path / "rows.csv", query=[f"{text} w1" for text in texts], document=texts, context=sentences(16, 1)
    )
    given = ["--data", rows, "--beside", start, "--mine", 2, "--miner", start]
    done = run("train", "sitemb", *given, "--out", tmp_path / "pair", *options(start))
    assert done.code == 0 and "16 of 16 positives are read with their context behind them" in done.err
    situated = [f"{text} [SEP] {around}" for text, around in zip(texts, sentences(16, 1), strict=True)]
    source = table(tmp_path / "corpus.csv", id=range(16), situated=situated)
    made = run("index", source, "--text", "situated", "--into", tmp_path / "store", "--encoder", tmp_path / "pair")
    assert made.code == 0
    assert run("search", tmp_path / "store", situated[3], "-k", 1, "--json").json["hits"][0]["id"] == "3"


def test_examples_are_shown_before_anchors(run, start, tmp_path):
    texts = sentences(16, low=2, high=4)
    rows = table(tmp_path / "rows.csv", anchor=texts, positive=sentences(16, 1))
    done = run(
        *("train", "contrastive", "--data", rows, "--out", tmp_path / "m", "--examples", 3, "--instruction", "w5 w6"),
        *options(start, "--json"),
    )
    assert done.code == 0 and json.loads((tmp_path / "m" / "isometry_run.json").read_text())["examples"] == 3
    done = run("train", "contrastive", "--data", rows, "--out", tmp_path / "n", "--examples", 3, *options(start))
    assert done.code == 2 and "give --instruction" in done.err and not (tmp_path / "n").exists()


def test_several_data_sets(run, start, tmp_path):
    one = table(tmp_path / "one.csv", anchor=sentences(12), positive=sentences(12, 1))
    two = table(tmp_path / "two.csv", query=sentences(12, 2), document=sentences(12, 3), instruction=["w5"] * 12)
    given = ["train", "contrastive", "--data", one, "--data", two, "--mixing", 1, "--hold-out", 0.1]
    done = run(*given, "--out", tmp_path / "m", *options(start, "--json"))
    assert done.code == 0 and done.json["report"]["rows"] == 24
    kept = json.loads((tmp_path / "m" / "isometry_run.json").read_text())
    assert (kept["data"], kept["more_data"], kept["mixing"]) == (str(one), [str(two)], 1)
    again = run("train", tmp_path / "m" / "isometry_run.json", "--out", tmp_path / "again", "--json")
    assert again.code == 0 and again.json["losses"] == done.json["losses"]
    labelled = table(tmp_path / "three.csv", text=["a", "b"], label=["x", "y"])
    done = run("train", "contrastive", "--data", one, "--data", labelled, "--out", tmp_path / "n", *options(start))
    assert done.code == 2 and "data set 2 is labelled with the columns text" in done.err


def test_ids_may_repeat(run, start, tmp_path):
    rows = table(tmp_path / "rows.csv", id=[1] * 8, anchor=sentences(8), positive=sentences(8, 1))
    done = run("train", "contrastive", "--data", rows, "--out", tmp_path / "m", *options(start, "--json"))
    assert done.code == 0 and done.json["report"]["rows"] == 8


@pytest.mark.parametrize(
    ("columns", "recipe", "said"),
    [
        ({"title": ["a", "b"]}, "contrastive", "has the columns title"),
        (
            {"a": [1, 2], "b": [3, 4]},
            "contrastive",
            "rows.csv has the columns a, b; training takes anchor and positive",
        ),
        ({"anchor": [7, 8], "positive": ["a", "b"]}, "contrastive", "row 1, column 'anchor': 7 is no text"),
        ({"text": ["a", "b"], "label": ["x", "x"]}, "contrastive", "there is one class only, 'x'"),
        ({"anchor": ["a", "a"], "positive": ["a", "a"]}, "contrastive", "all 4 texts are the same text"),
        ({"anchor": ["a", "b"], "positive": ["", "b"]}, "contrastive", "row 1, column 'positive': an empty text"),
        ({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 1]}, "graded", "every score is 1"),
    ],
    ids=["columns", "numbers", "number", "class", "same", "empty", "scores"],
)
def test_rows_that_teach_nothing(columns, recipe, said, run, start, tmp_path):
    rows = table(tmp_path / "rows.csv", **columns)
    done = run("train", recipe, "--data", rows, "--out", tmp_path / "m", *options(start))
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.training").exists()


def test_what_is_cut_is_counted_and_foreign_code_refused(run, start, tmp_path):
    rows = table(tmp_path / "rows.csv", anchor=sentences(8), positive=[" ".join(["w1"] * 50), *sentences(7, 1)])
    done = run("train", "contrastive", "--data", rows, "--out", tmp_path / "m", *options(start))
    assert done.code == 0 and "1 of 16 texts are longer than the model's 32 tokens and will be cut" in done.err
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    done = run("train", "contrastive", "--data", rows, "--out", tmp_path / "n", *options(tmp_path / "m"))
    assert done.code == 2 and "code of its own" in done.err and not (tmp_path / "n").exists()

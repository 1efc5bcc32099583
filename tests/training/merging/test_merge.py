from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from isometry.cli.main import main
from isometry.errors import ExistsError, InputError
from isometry.training import TrainingData, preset, train
from isometry.training.merging import METHODS, merge_models, ties
from tests.tiny_text import sentences, tiny_model


def pairs(seed):
    anchors = sentences(16, seed)
    return TrainingData("pairs", {"anchor": anchors, "positive": [f"{text} w{seed}" for text in anchors]})


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A start and two models trained from it."""
    folder = tmp_path_factory.mktemp("family")
    tiny_model(folder).save(str(folder / "start"))
    for name, seed in (("a", 1), ("b", 2)):
        run = preset("contrastive", model=str(folder / "start"), steps=4, batch_size=8, learning_rate=1e-3)
        train(run, folder / name, data=pairs(seed))
    return folder


def weights(path):
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_an_ordinary_model(method, family, tmp_path):
    models = [family / "a", family / "b"]
    position = merge_models(models, tmp_path / "m", method, data=pairs(3), steps=3, batch_size=8)
    assert (position is not None) == (method == "self-positioning")
    vectors = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(sentences(3))
    assert np.isfinite(vectors).all()
    merged, a, b = weights(tmp_path / "m"), weights(family / "a"), weights(family / "b")
    assert merged.keys() == a.keys()
    if method == "soup":
        for name in a:
            torch.testing.assert_close(merged[name], (a[name] + b[name]) / 2, atol=1e-6, rtol=1e-5)
    note = json.loads((tmp_path / "m" / "isometry_merge.json").read_text())
    assert (note["method"], note["base"]) == (method, str(family / "start"))
    assert f"`a`, `b` by `{method}`" in (tmp_path / "m" / "README.md").read_text()


def test_a_merged_model_merges_again(family, tmp_path):
    merge_models([family / "a", family / "b"], tmp_path / "m")
    merge_models([tmp_path / "m", family / "a"], tmp_path / "n")
    merged, a, b = weights(tmp_path / "n"), weights(family / "a"), weights(family / "b")
    for name in a:
        torch.testing.assert_close(merged[name], 0.75 * a[name] + 0.25 * b[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["soup", "slerp", "fisher", "regmean"])
def test_merging_a_model_with_itself_gives_it_back(method, family, tmp_path):
    merge_models([family / "a", family / "a"], tmp_path / "m", method, data=pairs(3), steps=2, batch_size=8)
    merged, a = weights(tmp_path / "m"), weights(family / "a")
    for name in a:
        torch.testing.assert_close(merged[name], a[name], atol=2e-5, rtol=1e-4)


def test_scale_zero_is_the_start(family, tmp_path):
    merge_models([family / "a", family / "b"], tmp_path / "m", "task", scale=0.0)
    merged, start = weights(tmp_path / "m"), weights(family / "start")
    assert all(torch.equal(merged[name], start[name]) for name in start)


def test_search_repeats_itself_and_does_not_touch_its_inputs(family, tmp_path):
    before = weights(family / "a")
    found = [
        merge_models([family / "a", family / "b"], tmp_path / name, "self-positioning", data=pairs(3), steps=4)
        for name in ("x", "y")
    ]
    assert found[0] == found[1]
    after = weights(family / "a")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_merged_is_said(family, tmp_path):
    both = [family / "a", family / "b"]
    with pytest.raises(InputError, match="two models"):
        merge_models(both[:1], tmp_path / "m")
    with pytest.raises(InputError, match="--data"):
        merge_models(both, tmp_path / "m", "fisher")
    with pytest.raises(InputError, match="no method 'mix'"):
        merge_models(both, tmp_path / "m", "mix")
    with pytest.raises(InputError, match="its start is unknown"):
        merge_models([family / "start", family / "a"], tmp_path / "m")
    with pytest.raises(ExistsError):
        merge_models(both, family / "a")
    tiny_model(tmp_path, layers=2).save(str(tmp_path / "small"))
    with pytest.raises(InputError, match="do not share an architecture"):
        merge_models([family / "a", tmp_path / "small"], tmp_path / "m", base=str(family / "start"))
    assert not (tmp_path / "m").exists()


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


def test_train_and_merge_on_the_command_line(family, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    texts = pairs(5).texts
    lines = [json.dumps({"query": q, "document": d}) for q, d in zip(texts["anchor"], texts["positive"], strict=True)]
    rows.write_text("\n".join(lines))
    common = ("--model", family / "start", "--steps", 2, "--batch-size", 8, "--json")
    code, out, err = call(capsys, "train", "contrastive", "--data", rows, "--out", tmp_path / "one", *common)
    assert code == 0 and json.loads(out)["steps"] == 2
    assert "step 2 of 2" in err and "rows/s" in err
    code, _, _ = call(capsys, "train", tmp_path / "one" / "isometry_run.json", "--out", tmp_path / "two")
    assert code == 0
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    code, out, _ = call(capsys, "merge", tmp_path / "one", family / "a", "--out", tmp_path / "m", "--json")
    assert code == 0 and json.loads(out)["method"] == "soup"


def test_wrong_calls_say_one_sentence(family, tmp_path, capsys):
    code, out, err = call(capsys, "train", "contrastiv", "--out", tmp_path / "m")
    assert code == 2 and not out and "did you mean 'contrastive'" in err
    code, _, err = call(capsys, "train", "contrastive", "--out", tmp_path / "m")
    assert code == 2 and "--data" in err
    code, _, err = call(capsys, "train", "contrastive", "--out", tmp_path / "m", "--pooling", "max")
    assert code == 2 and "pooling is one of" in err
    code, _, err = call(capsys, "merge", tmp_path / "nothing", tmp_path / "else", "--out", tmp_path / "m")
    assert (code == 2 and "its start is unknown" in err) or "no model" in err


@pytest.mark.parametrize("method", ["soup", "task", "ties", "dare"])
def test_mergekit_agrees_where_nothing_is_trimmed(method, family, tmp_path):
    pytest.importorskip("mergekit", reason="mergekit is not installed: pip install 'isometry[merge]'")
    models = [family / "a", family / "b"]
    for name, mergekit in (("ours", False), ("theirs", True)):
        merge_models(models, tmp_path / name, method, keep=1.0, scale=0.7, mergekit=mergekit)
    ours, theirs = weights(tmp_path / "ours"), weights(tmp_path / "theirs")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5, msg=name)


def test_mergekit_trims_as_we_do_one_tensor_at_a_time(family, tmp_path):
    pytest.importorskip("mergekit", reason="mergekit is not installed: pip install 'isometry[merge]'")
    merge_models([family / "a", family / "b"], tmp_path / "theirs", "ties", keep=0.5, mergekit=True)
    theirs, start = weights(tmp_path / "theirs"), weights(family / "start")
    for name, first in start.items():
        vectors = torch.stack([(weights(family / one)[name] - first).flatten() for one in ("a", "b")])
        expected = first.flatten() + ties(vectors, keep=0.5)
        torch.testing.assert_close(theirs[name].flatten(), expected, atol=1e-6, rtol=1e-5, msg=name)


def test_what_mergekit_is_asked(family, tmp_path, monkeypatch):
    asked = []

    def merge(models, method="linear", *, base_model=None, parameters=None):
        asked.append((method, base_model is not None, parameters))
        return models[1]

    monkeypatch.setattr(SentenceTransformer, "merge", merge)
    models = [family / "a", family / "b"]
    merge_models(models, tmp_path / "s", "soup", weights=[3, 1], mergekit=True)
    merge_models(models, tmp_path / "t", "ties", keep=0.3, mergekit=True)
    merge_models(models, tmp_path / "d", "dare", keep=0.5, weights=[3, 1], scale=0.5, mergekit=True)
    assert asked == [
        ("linear", False, {"weight": [3, 1]}),
        ("ties", True, {"weight": [1.0, 1.0], "density": 0.3, "normalize": True}),
        ("dare_linear", True, {"weight": [0.75, 0.25], "density": 0.5, "normalize": False}),
    ]
    whole, half, b, start = (
        weights(folder) for folder in (tmp_path / "t", tmp_path / "d", models[1], family / "start")
    )
    for name in b:
        torch.testing.assert_close(whole[name], b[name], atol=1e-6, rtol=0)
        torch.testing.assert_close(half[name], (b[name] + start[name]) / 2, atol=1e-6, rtol=0)
    assert json.loads((tmp_path / "t" / "isometry_merge.json").read_text())["mergekit"] is True


def test_mergekit_that_is_not_there_or_has_no_such_method(family, tmp_path, monkeypatch, capsys):
    def merge(*args, **kwargs):
        raise ImportError("no mergekit")

    monkeypatch.setattr(SentenceTransformer, "merge", merge)
    given = ["merge", str(family / "a"), str(family / "b"), "--out", str(tmp_path / "m"), "--mergekit"]
    for more, said in ((["--method", "ties"], "pip install 'isometry[merge]'"), (["--method", "slerp"], "not slerp")):
        with pytest.raises(SystemExit) as stop:
            main([*given, *more])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and said in error and "Traceback" not in error
        assert not (tmp_path / "m").exists()

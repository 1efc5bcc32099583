"""The papers' own trainings take a step on tiny random models of their real classes."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from isometry.cli.main import main
from isometry.encoders.text import attention_mode, load_text_model
from isometry.errors import InputError, NotFoundError
from isometry.recipes import catalogue
from isometry.training import FULL_SCALE, PRESETS, TrainingData, TrainingRun, full_scale, read_training_data, train
from tests.tiny_text import sentences, tiny_model

KINDS = {
    "mistralai/Mistral-7B-v0.1": "mistral",
    "Qwen/Qwen2-0.5B": "qwen2",
    "Qwen/Qwen3-Embedding-8B": "qwen3",
    "google-bert/bert-base-uncased": "bert",
    "BAAI/bge-base-en-v1.5": "bert",
    "BAAI/bge-m3": "xlm-roberta",
}
STAGES = [(name, number) for name, full in FULL_SCALE.items() for number in range(len(full.stages))]
# What a test model and a test's patience cannot hold; everything else of a run is the paper's.
SMALL = {"batch_size": 4, "steps": 1, "accumulate": 1, "max_tokens": 16, "latents": 4, "heads": 2, "head_dimension": 16}


def shrunk(run: TrainingRun, start: str, layers: int) -> TrainingRun:
    changes = {name: value for name, value in SMALL.items() if getattr(run, name)}
    changes |= {"model": start, "data": "", "steps": 1, "batch_size": 4, "hold_out": 0.0, "patience": 0}
    changes |= {name: 1 for name in ("mini_batch_size", "mine") if getattr(run, name)}
    changes |= {name: start for name in ("guide", "miner") if getattr(run, name)}
    if run.ladder:
        changes["ladder"] = (*((n, 16) for n in range(1, layers)), (layers, 32))
    if run.mine:
        changes["mine_ranks"] = (0, 8)
    return replace(run, **changes)


@pytest.mark.parametrize(("name", "number"), STAGES, ids=[f"{name}-{number + 1}" for name, number in STAGES])
def test_every_stage_takes_a_step(name, number, tmp_path):
    run = FULL_SCALE[name].stages[number]
    tiny_model(tmp_path, KINDS[run.model], layers=2).save(str(tmp_path / "start"))
    small = shrunk(run, str(tmp_path / "start"), 2)
    anchors = sentences(12)
    texts = {"text": anchors} if run.loss == "masked" else {"anchor": anchors, "positive": sentences(12, 1)}
    if not run.in_batch and not run.mine:
        texts["negative"] = sentences(12, 2)
    result = train(small, tmp_path / "m", data=TrainingData("plain" if run.loss == "masked" else "pairs", texts))
    assert result.steps == 1 and all(np.isfinite(loss) for _, loss in result.losses)
    model = load_text_model(tmp_path / "m", device="cpu")
    assert np.isfinite(model.encode(["w1 w2"])).all()
    if run.attention != "keep":
        assert attention_mode(model) == run.attention


def test_every_text_recipe_has_its_paper_s_training():
    text = {recipe.name: recipe.paper for recipe in catalogue() if recipe.paper in (2, 3, 5, 6, 10, 23, 42, 48, 55)}
    assert {name: full.paper for name, full in FULL_SCALE.items()} == text
    for name, full in FULL_SCALE.items():
        assert all(run.model in KINDS and run.data.startswith("hub:") for run in full.stages), name
        assert all(run.recipe in PRESETS for run in full.stages)


def test_runs_differ_from_the_papers_in_nothing_but_what_is_small():
    run = FULL_SCALE["nv-embed"].stages[1]
    small = shrunk(run, "x", 2)
    changed = {field.name for field in fields(run) if getattr(run, field.name) != getattr(small, field.name)}
    assert changed <= {*SMALL, "model", "data", "mine", "mine_ranks", "miner"}
    assert (run.in_batch, run.hard, run.learning_rate, run.lora) == (False, "own", 1.5e-5, 16)


def test_wrong_names_and_stages(tmp_path, capsys):
    with pytest.raises(NotFoundError, match="did you mean 'starbucks'"):
        full_scale("starbuks")
    with pytest.raises(SystemExit) as stop:
        main(["train", "starbucks", "--scale", "full", "--stage", "3", "--out", str(tmp_path / "m")])
    assert stop.value.code == 2 and "has 2 stage(s)" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["train", "starbucks", "--scale", "full", "--stage", "2", "--out", str(tmp_path / "m")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "--download" in error and "Traceback" not in error


def test_texts_are_taken_out_of_nested_rows(monkeypatch):
    import datasets

    rows = {
        "query": ["what is it", "who was it"],
        "positive_passages": [[{"docid": "1", "title": "It", "text": "is this"}], [{"title": "", "text": "someone"}]],
        "negative_passages": [[], []],
    }
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options["split"], options["download_config"].local_files_only))
        return datasets.Dataset.from_dict(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = read_training_data("hub:Tevatron/msmarco-passage")
    assert data.texts == {"anchor": rows["query"], "positive": ["It is this", "someone"]}
    assert asked == [(("Tevatron/msmarco-passage", None), "train", True)]
    rows = {"query": [["Find it", "a"]], "pos": [["Find it", "b"]], "neg": [["Find it", "c"]]}
    assert read_training_data("hub:x/y/z", download=True).texts == {
        "anchor": ["a"],
        "positive": ["b"],
        "negative": ["c"],
    }
    assert asked[1] == (("x/y", "z"), "train", False)

    def refuse(*names, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(NotFoundError, match="--download fetches it"):
        read_training_data("hub:x/y")


def test_a_batch_divides_among_processes(monkeypatch, tmp_path):
    from isometry.training import _trainer

    monkeypatch.setattr(_trainer, "world", lambda: (0, 3))
    with pytest.raises(InputError, match="does not divide among 3"):
        _trainer.make_trainer(TrainingRun(batch_size=4), tmp_path, None, None, {"anchor": ["a"]}, None, None)

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from isometry.encoders import load_encoder
from isometry.encoders.text import attention_mode, load_text_model
from isometry.errors import DivergedError, ExistsError, InputError, NotFoundError
from isometry.training import TrainingData, TrainingRun, preset, read_training_data, train, train_stages
from tests.tiny_text import sentences, tiny_model
from tests.training.small_runs import pairs, run_of


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_model(folder).save(str(folder / "model"))
    return str(folder / "model")


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_trains_saves_and_repeats_itself(start, tmp_path):
    steps = []
    result = train(run_of(start), tmp_path / "a", data=pairs(), progress=lambda step: steps.append(step))
    assert result.steps == 6 and result.losses[-1][1] < result.losses[0][1]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6] and steps[-1].total == 6
    assert steps[-1].loss is not None and steps[-1].rows_per_second > 0
    assert not same(weights(tmp_path / "a"), load_file(f"{start}/model.safetensors"))
    train(run_of(start), tmp_path / "b", data=pairs())
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    train(run_of(start, seed=1), tmp_path / "c", data=pairs())
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))
    assert TrainingRun.from_json(tmp_path / "a" / "isometry_run.json") == run_of(start)
    assert list((tmp_path / "a.training" / "tensorboard").iterdir())
    assert not list((tmp_path / "a.training").glob("checkpoint-*"))
    card = (tmp_path / "a" / "README.md").read_text()
    assert "InfoNCE" in card and "sentence-transformers" in card
    assert "Recipe `contrastive`" in card and "on 24 rows of data in memory: 6 steps of 8 rows" in card
    assert f"- loss {result.losses[-1][1]:.4f} at step 6" in card and "trust_remote_code" not in card
    texts = sentences(5, 3)
    theirs = SentenceTransformer(str(tmp_path / "a"), device="cpu").encode(texts)
    ours = load_encoder(str(tmp_path / "a"), precision="float32").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_weights(start, tmp_path):
    train(run_of(start), tmp_path / "whole", data=pairs())
    with pytest.raises(KeyboardInterrupt):
        train(run_of(start), tmp_path / "m", data=pairs(), progress=lambda step: step.step < 4)
    assert not (tmp_path / "m").exists() and list((tmp_path / "m.training").glob("checkpoint-4"))
    with pytest.raises(InputError, match="other settings"):
        train(run_of(start, seed=3), tmp_path / "m", data=pairs(), resume=True)
    result = train(run_of(start), tmp_path / "m", data=pairs(), resume=True)
    assert result.steps == 6
    assert same(weights(tmp_path / "m"), weights(tmp_path / "whole"))
    with pytest.raises(ExistsError):
        train(run_of(start), tmp_path / "m", data=pairs())
    with pytest.raises(NotFoundError, match="nothing to resume"):
        train(run_of(start), tmp_path / "n", data=pairs(), resume=True)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("contrastive", {"lora": 4}, id="adapters"),
        pytest.param("nv-embed", {}, id="latents"),
        pytest.param("smae", {}, id="masked"),
        pytest.param("pooling", {}, id="layers", marks=pytest.mark.slow),
        pytest.param("2dmse", {}, id="drawn-sizes", marks=pytest.mark.slow),
        pytest.param("contrastive", {"accumulate": 2, "length_window": 2}, id="accumulated", marks=pytest.mark.slow),
        pytest.param("contrastive", {"precision": "bfloat16"}, id="bfloat16", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_run_goes_on_to_the_same_weights(name, changes, start, tmp_path):
    run = run_of(start, name, **changes)
    data = read_training_data({"text": sentences(24, low=5)}) if name == "smae" else pairs()
    train(run, tmp_path / "whole", data=data)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "m", data=data, progress=lambda step: step.step < 4)
    train(run, tmp_path / "m", data=data, resume=True)
    whole, again = (
        {str(file.relative_to(tmp_path / one)): load_file(file) for file in (tmp_path / one).rglob("*.safetensors")}
        for one in ("whole", "m")
    )
    assert whole.keys() == again.keys()
    assert all(same(whole[file], again[file]) for file in whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(start, tmp_path):
    import signal
    import subprocess
    import sys
    import time

    rows = tmp_path / "rows.jsonl"
    texts = pairs(64).texts
    rows.write_text("\n".join(json.dumps({k: v[i] for k, v in texts.items()}) for i in range(64)))
    options = ["--data", str(rows), "--model", start, "--steps", "400", "--batch-size", "8", "--save-every", "20"]

    def command(out, *more):
        return [sys.executable, "-m", "isometry", "train", "contrastive", *options, "--out", str(tmp_path / out), *more]

    subprocess.run(command("whole"), check=True, capture_output=True, timeout=240)
    going = subprocess.Popen(command("m"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "m.training").glob("checkpoint-*/trainer_state.json")):
        assert going.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.05)
    going.send_signal(signal.SIGKILL)
    assert going.wait() == -signal.SIGKILL and not (tmp_path / "m").exists()
    subprocess.run(command("m", "--resume"), check=True, capture_output=True, timeout=240)
    assert same(weights(tmp_path / "m"), weights(tmp_path / "whole"))


def test_a_checkpoint_cut_short_is_passed_over(start, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(run_of(start, steps=9), tmp_path / "m", data=pairs(), progress=lambda step: step.step < 7)
    last = max((tmp_path / "m.training").glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    (last / "trainer_state.json").write_text('{"epoch": 1.')
    seen = []
    train(
        run_of(start, steps=9), tmp_path / "m", data=pairs(), resume=True, progress=lambda step: seen.append(step.step)
    )
    assert seen[0] == 7 and seen[-1] == 9


def test_a_loss_that_is_no_number_stops_with_the_batch_and_the_checkpoint_named(start, tmp_path, monkeypatch):
    from isometry.training.losses import InfoNCE

    real, calls = InfoNCE.compute_loss_from_embeddings, []

    def broken(self, *args, **kwargs):
        calls.append(1)
        return real(self, *args, **kwargs) * (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(InfoNCE, "compute_loss_from_embeddings", broken)
    with pytest.raises(DivergedError, match=r"step 5 is nan; its batch begins with the text 'w\d+ .*checkpoint-3'"):
        train(run_of(start), tmp_path / "m", data=pairs())
    assert not (tmp_path / "m").exists()
    load_text_model(tmp_path / "m.training" / "checkpoint-3")


def test_broken_weights_are_never_saved(start, tmp_path, monkeypatch):
    from isometry.training.losses import InfoNCE

    def poison(self, embeddings, *args, **kwargs):
        return torch.sqrt((embeddings[0] * 0).sum())  # value 0, gradient no number

    monkeypatch.setattr(InfoNCE, "compute_loss_from_embeddings", poison)
    with pytest.raises(DivergedError, match="after step 1"):
        train(run_of(start, steps=3, save_every=1), tmp_path / "m", data=pairs())


@pytest.mark.parametrize(
    "name", ["pooling", "starbucks", "nv-embed", "kalm", "2dmse", "lg-anna", "sitemb", "gistembed"]
)
def test_every_preset_takes_a_step(name, start, tmp_path):
    changes = {"guide": start} if name == "gistembed" else {}
    run = run_of(start, name, steps=2, **changes)
    result = train(run, tmp_path / "m", data=pairs())
    assert result.steps == 2 and all(np.isfinite(loss) for _, loss in result.losses)
    assert np.isfinite(load_text_model(tmp_path / "m", device="cpu").encode(["w1 w2"])).all()
    if run.mine:
        assert "candidates" in result.notes[0]


def test_plain_texts_pre_train_all_sizes_of_a_ladder(start, tmp_path):
    plain = read_training_data({"text": sentences(16, low=5)})
    assert plain.kind == "plain"
    result = train(run_of(start, "smae", steps=4), tmp_path / "m", data=plain)
    assert result.steps == 4 and all(np.isfinite(loss) for _, loss in result.losses)
    trained, before = weights(tmp_path / "m"), load_file(f"{start}/model.safetensors")
    assert trained.keys() == before.keys() and not same(trained, before)
    assert train(run_of(str(tmp_path / "m"), "starbucks", steps=2), tmp_path / "s", data=pairs()).steps == 2
    with pytest.raises(InputError, match="recipe 'smae'"):
        train(run_of(start), tmp_path / "x", data=plain)
    with pytest.raises(InputError, match="recipe 'smae'"):
        train(run_of(start, "smae"), tmp_path / "x", data=pairs())


def test_graded_and_labelled_data(start, tmp_path):
    graded = TrainingData("graded", {"anchor": sentences(12), "positive": sentences(12, 1)}, [i / 2 for i in range(12)])
    assert train(run_of(start, "graded", steps=2), tmp_path / "g", data=graded).steps == 2
    labelled = TrainingData("labelled", {"text": sentences(12)}, ["a", "b", "c"] * 4)
    assert train(run_of(start, steps=2), tmp_path / "l", data=labelled).steps == 2
    own = run_of(start, steps=2, in_batch=False, hard="own")
    assert train(own, tmp_path / "o", data=labelled).steps == 2
    with pytest.raises(InputError, match="cosent"):
        train(run_of(start), tmp_path / "x", data=graded)
    with pytest.raises(InputError, match="--mine"):
        train(own, tmp_path / "x", data=pairs())


def test_holding_out_stops_early_and_reports(start, tmp_path):
    run = run_of(start, hold_out=0.25, patience=1, learning_rate=0.5, steps=12, save_every=2)
    result = train(run, tmp_path / "m", data=pairs(32))
    assert result.evaluation_losses and result.steps < 12
    best, lowest = min(result.evaluation_losses, key=lambda found: found[1])
    assert f"stopped after step {result.steps} of 12" in result.notes[-1]
    assert result.notes[-1].endswith(f"those of step {best}, where it was {lowest:.4f}")
    stopped = train(replace(run, steps=best, hold_out=0.25, patience=0), tmp_path / "best", data=pairs(32))
    assert stopped.steps == best
    with pytest.raises(InputError, match="held out"):
        preset("contrastive", patience=2)


def test_adapters_are_merged_into_ordinary_weights(start, tmp_path):
    train(run_of(start, lora=4, learning_rate=1e-2), tmp_path / "m", data=pairs())
    trained, before = weights(tmp_path / "m"), load_file(f"{start}/model.safetensors")
    assert trained.keys() == before.keys()
    changed = {name for name in before if not torch.equal(trained[name], before[name])}
    assert changed and all("attention.self" in name for name in changed)
    every = run_of(start, lora=2, lora_alpha=8, lora_dropout=0.1, lora_layers="all", learning_rate=1e-2)
    train(every, tmp_path / "n", data=pairs())
    trained = weights(tmp_path / "n")
    changed = {name for name in before if not torch.equal(trained[name], before[name])}
    assert any("intermediate.dense" in name for name in changed) and not any("LayerNorm" in name for name in changed)


@pytest.mark.parametrize(("pooling", "mode"), [("weighted", "weightedmean"), ("last-token", "lasttoken")])
def test_sentence_transformers_own_poolers_by_name(pooling, mode, start, tmp_path):
    train(run_of(start, pooling=pooling, steps=2), tmp_path / "m", data=pairs())
    assert SentenceTransformer(str(tmp_path / "m"), device="cpu")[1].pooling_mode == mode


def test_frozen_layers_stay(start, tmp_path):
    train(run_of(start, freeze=3), tmp_path / "m", data=pairs())
    trained, before = weights(tmp_path / "m"), load_file(f"{start}/model.safetensors")
    changed = {name for name in before if not torch.equal(trained[name], before[name])}
    assert changed and all(name.startswith("encoder.layer.3") for name in changed)
    with pytest.raises(InputError, match="at most 3"):
        train(run_of(start, freeze=4), tmp_path / "x", data=pairs())


def test_instructions_reach_the_anchor_and_the_saved_prompt(start, tmp_path):
    train(run_of(start, instruction="w5 w6", steps=2), tmp_path / "m", data=pairs())
    assert load_text_model(tmp_path / "m").prompts["query"] == "Instruct: w5 w6\nQuery: "
    rows = TrainingData("pairs", pairs().texts, [], ["w9"] * 24)
    assert train(run_of(start, steps=2), tmp_path / "r", data=rows).steps == 2


def test_bfloat16_and_gradient_caching(start, tmp_path):
    assert train(run_of(start, precision="bfloat16", steps=2), tmp_path / "b", data=pairs()).steps == 2
    cached = train(run_of(start, mini_batch_size=3, steps=2), tmp_path / "c", data=pairs())
    assert cached.steps == 2


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_decoders_switch_their_mask_and_train(kind, tmp_path):
    tiny_model(tmp_path, kind, layers=2).save(str(tmp_path / "start"))
    run = run_of(str(tmp_path / "start"), attention="bidirectional", pooling="latent", steps=2)
    train(run, tmp_path / "m", data=pairs())
    assert attention_mode(load_text_model(tmp_path / "m", device="cpu")) == "bidirectional"


def test_stages_hand_the_model_on(start, tmp_path):
    stages = [run_of(start, steps=2), run_of("ignored", steps=2, in_batch=False, hard="own")]
    data = tmp_path / "rows.jsonl"
    rows = pairs(16, negatives=1).texts
    data.write_text("\n".join(json.dumps({k: v[i] for k, v in rows.items()}) for i in range(16)))
    results = train_stages([replace(stage, data=str(data)) for stage in stages], tmp_path / "m")
    assert [result.steps for result in results] == [2, 2]
    assert not same(weights(tmp_path / "m.stage-1"), weights(tmp_path / "m"))
    assert TrainingRun.from_json(tmp_path / "m" / "isometry_run.json").model == str(tmp_path / "m.stage-1")


def test_folders_that_want_code_are_refused(start, tmp_path):
    import shutil

    shutil.copytree(start, tmp_path / "evil")
    config = json.loads((tmp_path / "evil" / "config.json").read_text())
    (tmp_path / "evil" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(InputError, match="code of its own"):
        train(run_of(str(tmp_path / "evil")), tmp_path / "m", data=pairs())


def test_data_files_and_their_faults(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("query,document,negative\na b,c d,e\n")
    data = read_training_data(path)
    assert data.kind == "pairs" and data.texts == {"anchor": ["a b"], "positive": ["c d"], "negative": ["e"]}
    with pytest.raises(InputError, match=r"row 2, column 'anchor': an empty text"):
        read_training_data({"anchor": ["a", " "], "positive": ["b", "c"]})
    with pytest.raises(InputError, match=r"row 1, column 'score': 'x' is no number"):
        read_training_data({"sentence1": ["a"], "sentence2": ["b"], "score": ["x"]})
    with pytest.raises(InputError, match=r"row 2, column 'score': 'inf' is no number"):
        read_training_data({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.0, float("inf")]})
    with pytest.raises(InputError, match="has the columns title"):
        read_training_data({"title": ["a"]})
    with pytest.raises(InputError, match="no rows"):
        read_training_data({"anchor": [], "positive": []})
    with pytest.raises(InputError, match="row 2, column 'label'"):
        read_training_data({"text": ["a", "b"], "label": ["x", None]})


def test_columns_of_other_names(tmp_path):
    rows = {"title": ["a", "b"], "abstract": ["c", "d"], "score": [1, 2], "text": ["x", "y"]}
    data = read_training_data(rows, columns="anchor=title, positive=abstract")
    assert data == TrainingData("pairs", {"anchor": ["a", "b"], "positive": ["c", "d"]})
    scored = read_training_data(rows, columns="anchor=title,positive=abstract,score=score")
    assert (scored.kind, scored.targets) == ("graded", [1.0, 2.0])
    with pytest.raises(InputError, match="has no column 'titel'; did you mean 'title'"):
        read_training_data(rows, columns="anchor=titel,positive=abstract")
    with pytest.raises(InputError, match="'query' is none of anchor, positive"):
        read_training_data(rows, columns="query=title")


def test_labels_say_which_rows_are_pairs(start, tmp_path):
    texts = {"question": sentences(24), "answer": [f"{text} w1" for text in sentences(24)]}
    judged = read_training_data({**texts, "label": [1, 0, 1] * 8})
    assert (judged.kind, judged.targets[:3]) == ("judged", [1.0, 0.0, 1.0])
    result = train(run_of(start, steps=2, batch_size=8), tmp_path / "m", data=judged)
    assert result.notes == ("8 of 24 rows are labelled as no pairs and left out",) and result.report.rows == 16
    assert train(run_of(start, "graded", steps=2), tmp_path / "g", data=judged).report.notes[-1].startswith("scores")
    words = ["entailment", "neutral", "contradiction", "-"] * 6
    assert read_training_data({**texts, "label": words}).targets == [1.0, 0.0, 0.0, 0.0] * 6
    with pytest.raises(InputError, match="row 2, column 'label': 'sports' does not say"):
        read_training_data({**texts, "label": [1, "sports"] + [0] * 22})
    with pytest.raises(InputError, match="none of 24 rows is labelled as a pair"):
        train(run_of(start), tmp_path / "x", data=read_training_data({**texts, "label": [0] * 24}))


def test_run_files_name_the_nearest_setting(tmp_path):
    (tmp_path / "run.json").write_text('{"temprature": 1}')
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        TrainingRun.from_json(tmp_path / "run.json")
    with pytest.raises(NotFoundError, match="did you mean 'starbucks'"):
        preset("starbuck")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": "8"}, "batch_size takes a whole number, not '8'"),
        ({"steps": 1.5}, "steps takes a whole number"),
        ({"in_batch": 1}, "in_batch takes true or false"),
        ({"learning_rate": float("inf")}, "learning_rate takes a finite number"),
        ({"pooling": "max"}, "pooling is one of keep, mean"),
        ({"ladder": ((1, 2, 3),)}, "ladder takes"),
        ({"freeze": -1}, "freeze is at least 0"),
        ({"warmup": 2.0}, "0 to 1, not 2.0"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        TrainingRun(**settings)


def test_a_learned_temperature_is_trained(start, tmp_path):
    from isometry.training import build_loss

    assert build_loss(run_of(start, learn_temperature=True), load_text_model(start)).log_scale is not None
    fixed = train(run_of(start), tmp_path / "a", data=pairs())
    learned = train(run_of(start, learn_temperature=True, learning_rate=0.05), tmp_path / "b", data=pairs())
    assert fixed.losses[0][1] == pytest.approx(learned.losses[0][1]) and fixed.losses != learned.losses


def test_stages_of_a_file_go_on_where_they_stopped(start, tmp_path, capsys):
    from dataclasses import asdict

    from isometry.cli.main import main

    data = tmp_path / "rows.jsonl"
    rows = pairs(16, negatives=1).texts
    data.write_text("\n".join(json.dumps({k: v[i] for k, v in rows.items()}) for i in range(16)))
    stages = [run_of(start), run_of("whatever", in_batch=False, hard="own")]
    (tmp_path / "stages.json").write_text(json.dumps([asdict(stage) for stage in stages]))

    def call(out, *more):
        given = ["train", str(tmp_path / "stages.json"), "--data", str(data), "--out", str(tmp_path / out), *more]
        with pytest.raises(SystemExit) as stop:
            main(given)
        return stop.value.code, capsys.readouterr()

    code, found = call("whole", "--json")
    told = json.loads(found.out)
    assert code == 0 and [stage["steps"] for stage in told["stages"]] == [6, 6]
    assert "stage 2 of 2" in found.err and told["model"] == str(tmp_path / "whole")
    first = [replace(stage, data=str(data)) for stage in stages]
    train(first[0], tmp_path / "m.stage-1")
    second = replace(first[1], model=str(tmp_path / "m.stage-1"))
    with pytest.raises(KeyboardInterrupt):
        train(second, tmp_path / "m", progress=lambda step: step.step < 4)
    code, found = call("m", "--resume")
    assert code == 0 and "stage 1 of 2" not in found.err
    assert same(weights(tmp_path / "m"), weights(tmp_path / "whole"))
    code, found = call("m", "--resume")
    assert code == 0 and "nothing is left to do" in found.err
    code, found = call("m")
    assert code == 2 and "is there already" in found.err


def test_any_setting_on_the_command_line(start, tmp_path, capsys):
    from isometry.cli.main import main

    data = tmp_path / "rows.jsonl"
    rows = pairs(16).texts
    data.write_text("\n".join(json.dumps({k: v[i] for k, v in rows.items()}) for i in range(16)))
    common = ["train", "contrastive", "--data", str(data), "--model", start, "--steps", "1", "--batch-size", "4"]
    more = ["--set", "focal=0.5", "--set", 'directions=["query_to_doc","doc_to_query"]', "--set", "schedule=cosine"]
    with pytest.raises(SystemExit) as stop:
        main([*common, *more, "--out", str(tmp_path / "m")])
    assert stop.value.code == 0
    run = TrainingRun.from_json(tmp_path / "m" / "isometry_run.json")
    assert (run.focal, run.directions, run.schedule) == (0.5, ("query_to_doc", "doc_to_query"), "cosine")
    capsys.readouterr()
    for given, said in (("focl=1", "did you mean 'focal'"), ("focal", "NAME=VALUE"), ("focal=x", "a finite number")):
        with pytest.raises(SystemExit) as stop:
            main([*common, "--set", given, "--out", str(tmp_path / "x")])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and said in error and "Traceback" not in error

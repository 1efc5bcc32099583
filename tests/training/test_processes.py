"""Two processes train what one trains: the same command, the same batches, the same weights."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from isometry.cli.main import main
from tests.tiny_text import sentences, tiny_model

CONTRASTIVE = ["contrastive", "--length-window", "1"]
CACHED = ["contrastive", "--mini-batch-size", "2"]
LADDER = ["starbucks"]
SHARED = ["--steps", "5", "--batch-size", "8", "--learning-rate", "1e-3", "--save-every", "3", "--json"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A start and 24 pairs: both without dropout's dice, which every process throws for itself."""
    folder = tmp_path_factory.mktemp("processes")
    model = tiny_model(folder, layers=2)
    model[0].auto_model.config.hidden_dropout_prob = model[0].auto_model.config.attention_probs_dropout_prob = 0.0
    model.save(str(folder / "start"))
    with (folder / "rows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["anchor", "positive"])
        rows.writerows((text, f"{text} w1") for text in sentences(24))
    return folder


def command(folder, out, recipe):
    given = ["--data", str(folder / "rows.csv"), "--model", str(folder / "start"), "--out", str(out)]
    return ["train", *recipe, *given, *SHARED]


def in_one(folder, out, recipe, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command(folder, out, recipe))
    assert stop.value.code == 0
    return json.loads(capsys.readouterr().out)


def close(first, second, tolerance=2e-5):
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=tolerance, rtol=0, msg=name)


def moved(folder, out):
    one, two = load_file(folder / "start" / "model.safetensors"), load_file(out / "model.safetensors")
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [CONTRASTIVE, CACHED, LADDER], ids=["contrastive", "cached", "ladder"])
def test_two_processes_give_the_weights_of_one(recipe, world, tmp_path, capsys):
    alone = in_one(world, tmp_path / "one", recipe, capsys)
    asked = [sys.executable, "-m", "isometry", *command(world, tmp_path / "two", recipe), "--processes", "2"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    assert together["steps"] == alone["steps"] == 5 and together["losses"]
    assert moved(world, tmp_path / "one") > 1e-3
    close(tmp_path / "one", tmp_path / "two")
    assert done.stderr.count("step 5 of 5") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_accelerate_starts_the_same_command(world, tmp_path, capsys):
    in_one(world, tmp_path / "one", CONTRASTIVE, capsys)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "isometry"]
    done = subprocess.run(
        [*launch, *command(world, tmp_path / "two", CONTRASTIVE)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 5
    close(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_wrong_input_is_one_sentence_in_several_processes_too(world, tmp_path):
    asked = [sys.executable, "-m", "isometry", *command(world, tmp_path / "m", CONTRASTIVE), "--processes", "2"]
    asked[asked.index("8")] = "7"
    done = subprocess.run(asked, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "isometry: a batch of 7 rows does not divide among 2 processes"
    assert "Traceback" not in done.stderr and not (tmp_path / "m").exists()


def test_no_process_is_refused(world, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command(world, tmp_path / "m", CONTRASTIVE), "--processes", "0"])
    assert stop.value.code == 2 and "at least one trains" in capsys.readouterr().err

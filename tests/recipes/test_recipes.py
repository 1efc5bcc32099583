"""Every recipe of the catalogue keeps the contract; FastRP proves itself at the smallest scale."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from isometry import recipes
from isometry.cli.main import main
from isometry.errors import InputError, NotFoundError
from isometry.evaluation import Evidence
from isometry.evaluation.evidence import SCALES

EVIDENCE = Path(__file__).resolve().parents[2] / "evidence"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


@pytest.mark.parametrize("recipe", recipes.catalogue(), ids=lambda recipe: recipe.name)
def test_contract(recipe):
    assert recipe.name.replace("-", "_") in recipes.__all__
    assert 1 <= recipe.paper <= 58
    assert set(recipe.scales) <= set(SCALES)
    assert recipe.seeds.keys() == recipe.claims.keys()
    assert all(
        claims and count >= 3 for claims, count in zip(recipe.claims.values(), recipe.seeds.values(), strict=True)
    )
    for part in recipe.parts:
        module, _, name = part.rpartition(".")
        assert name in importlib.import_module(module).__all__, f"{part} is not public"


def test_catalogue_is_the_folder():
    files = {path.stem for path in Path(recipes.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(recipes.__all__)


@pytest.mark.parametrize("path", sorted(EVIDENCE.glob("*.json")), ids=lambda path: path.stem)
def test_committed_evidence_follows_from_its_values(path):
    evidence = Evidence.load(path)
    claims = recipes.load_recipe(evidence.recipe).claims[evidence.scale]
    assert tuple(line.claim for line in evidence.claims) == claims


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(NotFoundError, match="did you mean 'fastrp'"):
        recipes.load_recipe("fastrpp")
    with pytest.raises(NotFoundError, match="'isometry recipes' lists them"):
        recipes.load_recipe("zzz")
    with pytest.raises(InputError, match="no scale 'huge'"):
        recipes.load_recipe("fastrp").prove("huge")
    with pytest.raises(InputError, match="at least 3"):
        recipes.load_recipe("fastrp").prove("tiny", seeds=2)


def test_prove_and_recipes_on_the_command_line(shared_data, tmp_path, capsys):
    out = tmp_path / "evidence"
    code, text, progress = run(
        capsys,
        "prove",
        "fastrp",
        "--scale",
        "tiny",
        "--data",
        str(shared_data),
        "--out",
        str(out),
        "--strict",
        "--json",
    )
    assert code == 0
    document = json.loads(text)
    assert document["verdict"] == "supports"
    assert [line["verdict"] for line in document["claims"]] == ["supports"] * 3
    assert document == json.loads((out / "fastrp.tiny.json").read_text())
    assert "4 of 4" in progress
    code, text, _ = run(capsys, "recipes", "--evidence", str(out), "--json")
    rows = {row["recipe"]: row for row in json.loads(text)}
    assert code == 0
    assert rows["fastrp"]["evidence"] == {"tiny": "supports"}
    assert rows["fastrp"]["paper"] == 30


def test_prove_says_what_is_missing(tmp_path, capsys):
    code, text, error = run(capsys, "prove", "fastrp", "--data", str(tmp_path), "--scale", "tiny", "--json")
    assert (code, text) == (2, "")
    assert "data set 'graphs/blogcatalog.npz' is not in" in error
    code, _, error = run(capsys, "prove", "fastpr")
    assert code == 2
    assert "did you mean 'fastrp'?" in error

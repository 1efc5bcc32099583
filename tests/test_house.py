"""The house rules: imports go one way, the package is light, catalogues are true, nothing open is left behind."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "isometry"

# A room may import itself and what stands here; `types` and `errors` are everybody's.
MAY_USE = {
    "records": set(),
    "encoders": {"records"},
    "compression": {"records", "encoders"},
    "search": {"records", "encoders", "compression"},
    "evaluation": set(),
    "training": {"records", "encoders", "compression", "search", "evaluation"},
    "graphs": {"records", "compression", "evaluation"},
    "scenes": {"records", "encoders", "search", "evaluation"},
    "testing": {"evaluation"},
    "serving": {"records", "encoders", "compression", "search", "evaluation", "training", "graphs"},
    "recipes": None,  # everything but the shells
    "cli": None,
}
SHELLS = {"cli", "recipes", "serving"}


def _imports(file: Path) -> set[str]:
    """First room of every import of ours in a file, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "isometry" else [f"isometry.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("isometry.")}
    return found


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(file: Path) -> str:
    parts = file.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else ""


def test_every_room_is_on_the_plan():
    rooms = {_room(file) for file in _files()} - {""}
    assert rooms <= set(MAY_USE), rooms - set(MAY_USE)


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_one_way(file):
    room, used = _room(file), _imports(file) - {"types", "errors", "__version__", "IsometryError", "Collection"}
    if room == "":
        assert file.name in {"__init__.py", "__main__.py"} or not used, f"{file.name} imports {used}"
        return
    allowed = MAY_USE[room]
    others = used - {room}
    if allowed is None:
        allowed = set(MAY_USE) - SHELLS if room == "recipes" else set(MAY_USE)
    assert others <= allowed, f"{room} may not import {others - allowed}"


def test_import_isometry_is_light():
    code = (
        "import sys, isometry, isometry.types, isometry.errors\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numba', 'faiss', 'fastapi', 'matplotlib', 'pandas',"
        " 'sqlite3', 'rich', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_starts_without_torch():
    code = "import sys\nfrom isometry.cli.main import _run\n_run(['--help'], False)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("room", sorted(set(MAY_USE) - {"cli", "recipes"}))
def test_catalogues_are_true(room):
    if not (SOURCE / room).is_dir():
        pytest.skip(f"there is no room {room} yet")
    module = importlib.import_module(f"isometry.{room}")
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_nothing_is_left_open_and_nothing_runs_code_from_files(file):
    text = file.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", text)
    assert not re.search(r"\bpickle\.loads?\(|allow_pickle=True|(?<![\w.])eval\(|(?<![\w.])exec\(", text)
    assert not re.search(r"torch\.load\((?!.*weights_only=True)", text)
    assert not re.search(r"""["'\s(=]/(work|farm|root)/""", text), "a path of one machine"


def test_errors_say_their_exit_code_and_stand_in_the_drawing():
    from isometry import errors

    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    for name, kind in classes.items():
        if issubclass(kind, Exception) and kind.__module__ == "isometry.errors":
            assert issubclass(kind, errors.IsometryError) and kind.exit_code in (1, 2)
            assert name in (errors.__doc__ or "")


def test_every_verb_has_its_file():
    from isometry.cli.main import VERBS

    for verb in VERBS:
        assert importlib.import_module(f"isometry.cli.{verb}_command").app is not None
    files = {file.name.removesuffix("_command.py") for file in (SOURCE / "cli").glob("*_command.py")}
    assert files == set(VERBS)

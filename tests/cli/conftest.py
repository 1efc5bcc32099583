"""Running the command line inside the test process, with the bundled encoder loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Answer:
    """What a run of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def encoder():
    pytest.importorskip("sentence_transformers")
    from isometry.encoders import load_encoder

    return load_encoder("default")


@pytest.fixture
def run(capsys, monkeypatch, encoder) -> Callable[..., Answer]:
    """`run("index", source, "--into", folder)`; the default encoder is the one loaded already."""
    import isometry.encoders
    from isometry.cli.main import _run

    real = isometry.encoders.load_encoder
    monkeypatch.setattr(
        isometry.encoders,
        "load_encoder",
        lambda name="default", **given: (
            encoder if name == "default" and not any(given.values()) else real(name, **given)
        ),
    )

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = _run([str(one) for one in arguments], False)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call

from __future__ import annotations

import json

import pytest

from isometry.encoders.text import load_text_model
from isometry.errors import InputError, NotFoundError


@pytest.fixture()
def saved(fresh_bert, tmp_path):
    fresh_bert.save(str(tmp_path / "m"))
    return tmp_path / "m"


def test_an_ordinary_folder_loads(saved, fresh_bert):
    assert (load_text_model(saved, device="cpu").encode(["w1 w2"]) == fresh_bert.encode(["w1 w2"])).all()


def test_foreign_classes_are_refused(saved):
    listed = json.loads((saved / "modules.json").read_text())
    listed[1]["type"] = "evil_module.Pooling"
    (saved / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match=r"evil_module\.Pooling"):
        load_text_model(saved)


def test_remote_code_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(InputError, match="auto_map"):
        load_text_model(saved)


def test_pickled_weights_are_refused(saved):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled"):
        load_text_model(saved)


def test_broken_or_missing_folders_are_named(saved, tmp_path):
    (saved / "modules.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        load_text_model(saved)
    with pytest.raises(NotFoundError, match=r"no modules\.json"):
        load_text_model(tmp_path / "absent")

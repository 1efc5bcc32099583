from __future__ import annotations

import pytest

from tests.tiny_text import tiny_model


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture()
def fresh_bert(tmp_path):
    return tiny_model(tmp_path)


@pytest.fixture()
def qwen(tmp_path):
    return tiny_model(tmp_path, "qwen2")

from __future__ import annotations

import pytest

from tests.tiny_text import tiny_model


@pytest.fixture()
def bert(tmp_path):
    return tiny_model(tmp_path)

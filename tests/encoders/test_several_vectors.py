"""Encoders of several vectors a text: token vectors of the bundled model, and sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from isometry.encoders import LateEncoder, TokenEncoder, load_encoder
from isometry.encoders.model_engine import ModelEngine
from isometry.errors import InputError
from isometry.search import Collection
from tests.tiny_text import save_backbone, sentences, tiny_model

TEXTS = ["graph neural networks", "", "x " * 400, "Ünïcode 漢字"]


@pytest.fixture(scope="module")
def tokens():
    return load_encoder("default#tokens=80", precision="float32")


@pytest.fixture(scope="module")
def late_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    backbone = save_backbone(folder / "backbone", "bert", 3, 2)
    modules = [
        Transformer(str(backbone), max_seq_length=32),
        Dense(32, 16, bias=False, module_input_name="token_embeddings", module_output_name="token_embeddings"),
        MultiVectorMask(skiplist_words=["w7"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, prompts={"query": "w1 ", "document": "w2 "}, device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def test_token_vectors_are_the_states_between_the_special_tokens(tokens):
    values, offsets = tokens.encode(TEXTS)
    whole, starts = load_encoder(precision="float32").encode_tokens(TEXTS)
    assert np.diff(offsets).tolist()[:2] == [3, 1] and np.diff(offsets)[2] == 80
    np.testing.assert_allclose(values[:3], whole[1:4], atol=1e-6)  # [CLS] graph neural networks [SEP]
    np.testing.assert_allclose(values[3], whole[starts[1]], atol=1e-6)  # an empty text keeps [CLS]
    np.testing.assert_allclose(values[offsets[2] : offsets[3]], whole[starts[2] + 1 :][:80], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
    asked = tokens.encode_queries(TEXTS[2:3])
    assert np.diff(asked.offsets)[0] == 254  # queries are cut by the model only


def test_names_load_the_same_again(tokens):
    described = tokens.describe()
    assert isinstance(tokens, TokenEncoder) and described.multi_vector and described.name == "default#tokens=80"
    names = ["default", "default#tokens", "default#tokens=80", "default#layers=2,tokens"]
    prints = [load_encoder(name, precision="float32").describe().fingerprint for name in names]
    assert len(set(prints)) == 4 and prints[2] == described.fingerprint
    assert load_encoder("default", tokens=80).describe().fingerprint == described.fingerprint
    with pytest.raises(InputError, match="at least 1"):
        load_encoder("default#tokens=0")


def test_token_vectors_of_another_model(tmp_path):
    model = tiny_model(tmp_path / "backbone")
    model.save_pretrained(str(tmp_path / "model"))
    texts = ["w3 w4", *sentences(5)]
    plain = load_encoder(f"{tmp_path / 'model'}#tokens", precision="float32")
    values, offsets = plain.encode(texts)
    assert offsets[1] == 2 and plain.describe().dimension == 32
    with torch.inference_mode():
        states = ModelEngine(tmp_path / "model", torch.float32, "cpu").token_vectors(texts, "", special=False)
    for number, one in enumerate(states):
        one = one.numpy() / np.linalg.norm(one.numpy(), axis=1, keepdims=True)
        np.testing.assert_allclose(values[offsets[number] : offsets[number + 1]], one, atol=1e-5)


def test_late_models_are_sentence_transformers_own(late_folder):
    encoder = load_encoder(late_folder)
    assert isinstance(encoder, LateEncoder)
    described = encoder.describe()
    assert described.multi_vector and described.dimension == 16
    assert (described.query_prompt, described.document_prompt) == ("w1 ", "w2 ")
    texts = [*sentences(9), "w7 w8 w7"]
    values, offsets = encoder.encode(texts)
    model = MultiVectorEncoder(str(late_folder), device="cpu", local_files_only=True)
    for number, one in enumerate(model.encode_document(texts, convert_to_numpy=True)):
        np.testing.assert_allclose(values[offsets[number] : offsets[number + 1]], one, atol=1e-5)
    asked = encoder.encode_queries(texts)
    np.testing.assert_allclose(
        asked.values[: asked.offsets[1]], model.encode_query(texts[:1], convert_to_numpy=True)[0], atol=1e-5
    )
    assert np.diff(asked.offsets)[9] == np.diff(offsets)[9] + 2  # w7 is skipped in documents only
    with pytest.raises(InputError, match="leave layers, dimensions and tokens out"):
        load_encoder(f"{late_folder}#tokens")
    with pytest.raises(InputError, match="was given one text"):
        encoder.encode("one")


def test_a_collection_of_a_late_model(late_folder, tmp_path):
    """Indexed, found again by a copy that loads the model itself, with scores that are the model's MaxSim."""
    texts = sentences(30, seed=4)
    with Collection.create(
        tmp_path / "c", encoder=load_encoder(late_folder), schema=_schema(), text_columns=["title"]
    ) as c:
        c.upsert([{"id": f"r{n}", "title": text} for n, text in enumerate(texts)])
    model = MultiVectorEncoder(str(late_folder), device="cpu", local_files_only=True)
    scores = model.similarity(model.encode_query([texts[11]]), model.encode_document(texts))[0].numpy()
    with Collection.open(tmp_path / "c") as reader:
        hits = reader.search(texts[11], k=30).hits
        assert [hit.id for hit in hits[:5]] == [f"r{n}" for n in np.argsort(-scores, kind="stable")[:5]]
        for hit in hits:
            assert hit.score == pytest.approx(scores[int(hit.id[1:])], abs=1e-4)


def _schema():
    import pyarrow as pa

    return pa.schema([("title", pa.string())])

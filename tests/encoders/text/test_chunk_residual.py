from __future__ import annotations

import numpy as np
import pytest
import torch

from isometry.encoders import load_encoder
from isometry.encoders.text import ResidualPair, find_backbone, load_text_model, residual_pair, situate
from isometry.errors import InputError
from tests.tiny_text import tiny_model


@pytest.fixture
def two(tmp_path):
    return tiny_model(tmp_path, seed=1), tiny_model(tmp_path, seed=2)


CHUNKS = ["w1 w2 w3", "w4", "w5 w6"]
SITUATED = [situate(chunk, context) for chunk, context in zip(CHUNKS, ["w7 w8", "w9 w1 w2", ""], strict=True)]


def test_one_model_gives_the_sum_of_the_pair(two, tmp_path):
    situated, chunk = two
    pair = residual_pair(situated, chunk)
    expected = ResidualPair(chunk, situated, renormalise=True).encode_chunks(CHUNKS, SITUATED)
    np.testing.assert_allclose(pair.encode(SITUATED), expected, atol=1e-6)
    queries = ResidualPair(chunk, situated, renormalise=True).encode_queries(CHUNKS)
    np.testing.assert_allclose(pair.encode(CHUNKS), queries, atol=1e-6)
    assert find_backbone(pair) is find_backbone(situated)
    pair.save(str(tmp_path / "pair"))
    np.testing.assert_allclose(load_text_model(tmp_path / "pair").encode(SITUATED), expected, atol=1e-6)
    encoder = load_encoder(tmp_path / "pair", precision="float32")
    assert encoder.describe().normalized and encoder.describe().dimension == 32
    np.testing.assert_allclose(encoder.encode(SITUATED), expected, atol=1e-5)


def test_the_chunk_encoder_hears_nothing_of_the_context_and_stays_as_it_is(two):
    pair = residual_pair(*two)
    layer = pair[-2]
    found = []
    for text in ("w1 w2 [SEP] w3 w4", "w1 w2 [SEP] w9 w9"):
        features = pair.preprocess([text])
        features["sentence_embedding"] = torch.zeros(1, 32)
        found.append(layer(features)["sentence_embedding"])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    assert not any(value.requires_grad for value in layer.parameters())
    assert layer.train().chunk_encoder.training
    layer({**pair.preprocess(["w1"]), "sentence_embedding": torch.zeros(1, 32)})
    assert not layer.chunk_encoder.training


def test_the_digest_knows_the_chunk_encoder(two, tmp_path):
    situated, chunk = two
    for name, other in (("one", chunk), ("two", situated)):
        residual_pair(situated, other).save(str(tmp_path / name))
    one, again = (load_encoder(tmp_path / name).describe().digest for name in ("one", "two"))
    assert one != again


def test_encoders_that_do_not_go_together(two, tmp_path):
    decoder = tiny_model(tmp_path, "qwen2", seed=3)
    with pytest.raises(InputError, match="share a vocabulary"):
        residual_pair(two[0], decoder)
    with pytest.raises(InputError, match="separator token"):
        residual_pair(decoder, decoder)

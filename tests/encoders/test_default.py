"""The bundled encoder against reference vectors of all-MiniLM-L6-v2 and against sentence-transformers itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from isometry.encoders import load, load_encoder
from isometry.encoders.packed_bert import cpu_has_bfloat16
from isometry.errors import CorruptionError
from isometry.testing import check_encoder

ODD = [
    "",
    "   ",
    "a",
    "\x00\x07 control \u200b\u00ad",
    "Ünïcode ÀÉ 漢字 テスト 😀👨‍👩‍👧",
    "x" * 3000,
    "[CLS] [SEP] [MASK]",
    "e\u0301 " * 300,
    "a,b;c!" * 200,
]


def test_reference_cosines(encoder):
    a, b, c = encoder.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    assert [a @ b, a @ c, b @ c] == pytest.approx([0.6660, 0.1046, 0.1411], abs=2e-3)


def test_first_coordinates(exact):
    (vector,) = exact.encode(["The quick brown fox jumps over the lazy dog."])
    assert vector[:4] == pytest.approx(np.array([0.04393, 0.05893, 0.04818, 0.07755]), abs=1e-5)


def test_describe(encoder):
    description = encoder.describe()
    assert (description.name, description.dimension, description.max_tokens) == ("default", 384, 256)
    assert description.normalized and description.modalities == ("text",)


def test_conformance(encoder):
    check_encoder(encoder)


def test_float32_equals_sentence_transformers(exact, plain, abstracts):
    texts = ODD + abstracts[:12]
    np.testing.assert_allclose(exact.encode(texts), plain.encode(texts), atol=2e-6)
    assert exact.precision == "float32"


def test_bfloat16_is_close_on_real_abstracts(exact, abstracts):
    half = load_encoder(precision="bfloat16")
    cosines = (half.encode(abstracts) * exact.encode(abstracts)).sum(1)
    assert cosines.mean() >= 0.999 and cosines.min() >= 0.998


@pytest.mark.slow
def test_bfloat16_is_close_on_200_abstracts(exact, shared_data):
    import pyarrow.parquet as pq

    texts = pq.read_table(shared_data / "arxiv" / "arxiv-small.parquet")["abstract"].slice(1000, 200).to_pylist()
    cosines = (load_encoder(precision="bfloat16").encode(texts) * exact.encode(texts)).sum(1)
    assert cosines.mean() >= 0.999


def test_auto_follows_the_processor(encoder):
    assert encoder.precision == ("bfloat16" if cpu_has_bfloat16() else "float32")


def test_fewer_layers_and_dimensions(exact, plain):
    texts = ["graph embeddings", "a longer text about the cutting of layers"]
    small = load_encoder(precision="float32", layers=2, dimensions=48)
    backbone = plain[0].auto_model
    layers, backbone.encoder.layer = backbone.encoder.layer, backbone.encoder.layer[:2]
    try:
        expected = plain.encode(texts)[:, :48]
    finally:
        backbone.encoder.layer = layers
    np.testing.assert_allclose(small.encode(texts), expected / np.linalg.norm(expected, axis=1)[:, None], atol=2e-6)
    description = small.describe()
    assert description.name == "default#layers=2,dimensions=48" and description.dimension == 48
    assert load_encoder(description.name).describe() == description
    assert description.fingerprint != exact.describe().fingerprint


def test_token_vectors_pool_to_the_sentence(exact, plain):
    texts = ["hello world", "", "one two three four"]
    values, offsets = exact.encode_tokens(texts)
    states = plain.encode(texts, output_value="token_embeddings", convert_to_numpy=False)
    assert offsets.tolist() == np.cumsum([0, *map(len, states)]).tolist()
    expected = torch.nn.functional.normalize(torch.cat(list(states)), dim=1).numpy()
    np.testing.assert_allclose(values, expected, atol=5e-6)
    assert exact.encode_tokens([])[0].shape == (0, 384)


def test_other_weights_are_found_out(monkeypatch):
    monkeypatch.setattr(load, "DEFAULT_WEIGHTS", "0" * 64)
    with pytest.raises(CorruptionError, match="not the published weights"):
        load_encoder()


def test_loading_leaves_the_rest_alone():
    program = (
        "import sys, torch; before = (torch.get_num_threads(), torch.get_default_dtype())\n"
        "import isometry.encoders; assert 'transformers' not in sys.modules\n"
        "from isometry.encoders import load_encoder; load_encoder().encode(['x'])\n"
        "assert 'sentence_transformers' not in sys.modules and 'transformers' not in sys.modules\n"
        "assert before == (torch.get_num_threads(), torch.get_default_dtype())\n"
        "assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

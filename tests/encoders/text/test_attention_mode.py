from __future__ import annotations

import pytest
import torch

from isometry.encoders.text import attention_mode, load_text_model, set_attention_mode
from isometry.errors import InputError
from tests.tiny_text import tiny_model


def _first_state(model, last_word):
    features = model.preprocess([f"w1 w2 {last_word}"])
    return model[0](features)["token_embeddings"][0, 0]


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_first_token_sees_the_last_only_when_bidirectional(kind, tmp_path):
    model = tiny_model(tmp_path, kind)
    for mode in ("causal", "bidirectional", "causal"):
        set_attention_mode(model, mode)
        assert attention_mode(model) == mode
        with torch.no_grad():
            same = torch.equal(_first_state(model, "w3"), _first_state(model, "w4"))
        assert same == (mode == "causal")


def test_mode_survives_saving(qwen, tmp_path):
    set_attention_mode(qwen, "bidirectional")
    qwen.save(str(tmp_path / "m"))
    again = load_text_model(tmp_path / "m", device="cpu")
    assert attention_mode(again) == "bidirectional"
    assert (again.encode(["w1 w2 w3"]) == qwen.encode(["w1 w2 w3"])).all()


def test_left_and_right_padding_agree_for_last_token(tmp_path):
    right, left = (tiny_model(tmp_path, "qwen2", padding_side=side) for side in ("right", "left"))
    texts = ["w1 w2 w3 w4 w5", "w6"]
    torch.testing.assert_close(
        torch.tensor(right.encode(texts)), torch.tensor(left.encode(texts)), atol=1e-5, rtol=1e-4
    )


def test_an_encoder_does_not_switch(bert):
    assert attention_mode(bert) == "bidirectional"
    with pytest.raises(InputError, match="not a decoder-only"):
        set_attention_mode(bert, "causal")
    with pytest.raises(InputError, match="unknown"):
        set_attention_mode(bert, "sideways")

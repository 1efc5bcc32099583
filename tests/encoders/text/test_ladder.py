from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from isometry.encoders.text import (
    STARBUCKS,
    Ladder,
    MultiLayerPooling,
    Size,
    encode_exits,
    evaluate_grid,
    exit_vectors,
    geometric_widths,
    heat_map,
    keep_hidden_states,
    layer_count,
    save_truncated,
    truncate,
)
from isometry.errors import InputError
from tests.tiny_text import sentences, tiny_model


def test_widths_of_the_paper():
    assert geometric_widths(384) == (8, 16, 32, 64, 128, 256, 384)
    assert geometric_widths(8) == (8,)


def test_ladder_is_checked():
    assert STARBUCKS.layers == (2, 4, 6, 8, 10, 12)
    assert STARBUCKS.full == Size(12, 768)
    assert len(STARBUCKS.parts) == 5
    with pytest.raises(InputError, match="grows"):
        Ladder.of((4, 32), (2, 64))
    with pytest.raises(InputError, match="grows"):
        Ladder.of((2, 32), (2, 32))
    with pytest.raises(InputError, match="at least one"):
        Ladder(())
    with pytest.raises(InputError, match="full size"):
        Ladder.of((2, 8), (3, 16)).check(4, 32)


@pytest.mark.parametrize("kind", ["bert", "qwen2", "mistral"])
@pytest.mark.parametrize("size", [(1, 8), (2, 32), (4, 16), (4, 32)])
def test_a_cut_model_is_the_exit(kind, size, tmp_path):
    model = tiny_model(tmp_path, kind)
    texts = sentences(7)
    layers, dimensions = size
    vectors = encode_exits(model, texts, [layers], batch_size=3)[layers][:, :dimensions]
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cut = truncate(model, size)
    assert layer_count(cut) == layers and layer_count(model) == 4
    assert cut.get_embedding_dimension() == dimensions
    np.testing.assert_allclose(cut.encode(texts), expected, atol=2e-6)


def test_scores_of_every_prefix_are_sums_over_blocks(tmp_path):
    """Paper 03: the scores of a wider prefix are those of a narrower one and of the block between."""
    model = tiny_model(tmp_path)
    texts = sentences(6)
    vectors = encode_exits(model, texts, [2])[2].astype(np.float64)
    scores, squares, start = np.zeros((6, 6)), np.zeros(6), 0
    for width in (4, 8, 16, 32):
        block = vectors[:, start:width]
        scores, squares, start = scores + block @ block.T, squares + (block**2).sum(axis=1), width
        direct = truncate(model, (2, width)).encode(texts)
        expected = scores / np.sqrt(squares[:, None] * squares)
        np.testing.assert_allclose(direct @ direct.T, expected, atol=2e-6)


def test_last_exit_is_the_model_itself(bert):
    texts = sentences(5)
    vectors = encode_exits(bert, texts, [4])[4]
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(bert.encode(texts), expected, atol=2e-6)


def test_saved_cut_loads_in_sentence_transformers_and_is_smaller(bert, tmp_path):
    cut = save_truncated(bert, Size(2, 12), tmp_path / "small")
    bert.save(str(tmp_path / "full"))
    again = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    texts = sentences(4)
    np.testing.assert_allclose(again.encode(texts), cut.encode(texts), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(again.encode(texts), axis=1), 1.0, atol=1e-6)
    weight = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "full")}
    assert weight["small"] < weight["full"]
    assert again[0].auto_model.config.num_hidden_layers == 2


def test_gradients_reach_all_exits_from_one_pass(fresh_bert):
    vectors = exit_vectors(fresh_bert, fresh_bert.preprocess(sentences(3)), [1, 4])
    vectors[1].sum().backward(retain_graph=True)
    stack = fresh_bert[0].auto_model.encoder.layer
    assert stack[0].output.dense.weight.grad is not None and stack[1].output.dense.weight.grad is None
    vectors[4].pow(3).sum().backward()
    assert stack[3].output.dense.weight.grad is not None
    assert not fresh_bert[0].auto_model.config.output_hidden_states


def test_wrong_cuts_are_refused(bert):
    for size in ((5, 8), (0, 8), (2, 33)):
        with pytest.raises(InputError, match="cannot cut"):
            truncate(bert, size)
    with pytest.raises(InputError, match="count from 1"):
        exit_vectors(bert, bert.preprocess(["w1"]), [0])


def test_multi_layer_pooling_cannot_be_cut(fresh_bert):
    keep_hidden_states(fresh_bert)
    model = SentenceTransformer(modules=[fresh_bert[0], MultiLayerPooling(32, 4, latents=2)], device="cpu")
    with pytest.raises(InputError, match="reads all layers"):
        truncate(model, (2, 8))


def test_grid_scores_every_cell_and_draws(bert, tmp_path):
    texts = sentences(6)

    def spread(encoder):
        return float(encoder.encode(texts).std(axis=0).sum())

    grid = evaluate_grid(bert, spread, [2, 4], [4, 16, 32])
    assert grid.shape == (2, 3)
    cut = truncate(bert, (2, 16)).encode(texts)
    assert grid[0, 1] == pytest.approx(float(cut.std(axis=0).sum()), abs=1e-4)
    assert grid[1, 2] == pytest.approx(spread(bert), abs=1e-4)
    heat_map(grid, [2, 4], [4, 16, 32], tmp_path / "grid.png", "spread")
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_no_texts_give_no_rows(bert):
    assert encode_exits(bert, [], [2])[2].shape == (0, 32)


def test_exit_vectors_match_hidden_states(bert):
    features = bert.preprocess(sentences(3))
    with torch.no_grad():
        states = (
            bert[0]
            .auto_model(
                input_ids=features["input_ids"], attention_mask=features["attention_mask"], output_hidden_states=True
            )
            .hidden_states
        )
        ours = exit_vectors(bert, features, [2])[2]
    mask = features["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(ours, (states[2] * mask).sum(1) / mask.sum(1), atol=1e-6, rtol=1e-5)

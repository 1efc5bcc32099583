from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isometry.encoders.text import (
    ResidualPair,
    chunk_sentences,
    context_block,
    late_chunks,
    marker_states,
    set_attention_mode,
    situate,
)
from isometry.errors import InputError, ShapeError
from tests.tiny_text import tiny_model


@given(st.lists(st.text("ab ", min_size=1).map(str.strip).filter(bool), max_size=12), st.integers(1, 6))
def test_chunks_keep_every_sentence_once(parts, budget):
    chunks = chunk_sentences(parts, budget)
    assert " ".join(chunks) == " ".join(parts)
    for chunk in chunks:
        assert len(chunk.split()) <= budget or chunk in parts


def test_block_of_a_chunk():
    chunks = [f"c{i}" for i in range(5)]
    assert context_block(chunks, 3, block=2) == "c2 c3"
    assert context_block(chunks, 4, block=2) == "c4"


def test_only_the_context_is_cut():
    assert situate("a b", "") == "a b"
    assert situate("a b", "c d e", separator=" | ") == "a b | c d e"
    assert situate("a b", "c d e", separator=" | ", budget=5) == "a b | c d"
    assert situate("a b c d", "e f", separator=" | ", budget=2) == "a b c d"


def test_late_chunk_of_the_whole_text_is_mean_pooling_over_words(bert):
    text = "w1 w2 w3 w4"
    vectors = late_chunks(bert, text, [(0, len(text)), (0, 5), (6, 11)])
    with torch.no_grad():
        tokens = bert[0](bert.preprocess([text]))["token_embeddings"][0, 1:-1]
    whole = tokens.mean(dim=0)
    np.testing.assert_allclose(vectors[0], (whole / whole.norm()).numpy(), atol=1e-6)
    half = tokens[2:].mean(dim=0)
    np.testing.assert_allclose(vectors[2], (half / half.norm()).numpy(), atol=1e-6)


def test_late_chunk_beyond_the_limit_is_said(bert):
    text = " ".join(["w1"] * 60)
    with pytest.raises(InputError, match="no token"):
        late_chunks(bert, text, [(0, 2), (len(text) - 2, len(text))])


class _Table:
    def __init__(self, table):
        self.table = table

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        return np.array([self.table[text] for text in inputs], dtype=np.float32)


def test_residual_score_is_the_four_dot_products():
    base = _Table({"q": [1, 0], "c": [0.6, 0.8]})
    other = _Table({"q": [0, 1], "c + x": [1, 0]})
    pair = ResidualPair(base, other)
    query, chunk = pair.encode_queries(["q"])[0], pair.encode_chunks(["c"], ["c + x"])[0]
    qb, qs, cb, cs = (np.array(v) for v in ([1, 0], [0, 1], [0.6, 0.8], [1, 0]))
    assert query @ chunk == pytest.approx(qb @ cb + qb @ cs + qs @ cb + qs @ cs)
    silent = _Table({"q": [0, 0], "c + x": [0, 0]})
    alone = ResidualPair(base, silent)
    assert alone.encode_queries(["q"])[0] @ alone.encode_chunks(["c"], ["c + x"])[0] == pytest.approx(0.6)
    with pytest.raises(ShapeError, match="one for each"):
        pair.encode_chunks(["c"], [])


def test_first_marker_cannot_see_the_context(tmp_path):
    model = tiny_model(tmp_path, "qwen2", padding_side="left")
    set_attention_mode(model, "causal")
    marker = model.tokenizer.pad_token_id
    end = model.tokenizer.pad_token

    def states(context):
        features = model.preprocess([f"w1 w2{end}{context}{end}", f"w9{end}"])
        tokens = model[0](features)["token_embeddings"]
        return marker_states(tokens, features["input_ids"], features["attention_mask"], marker)

    with torch.no_grad():
        first_a, last_a = states("w5 w6 w7")
        first_b, last_b = states("w8 w4 w3")
    torch.testing.assert_close(first_a[0], first_b[0], atol=1e-5, rtol=1e-5)
    assert (last_a[0] - last_b[0]).abs().max() > 1e-3
    torch.testing.assert_close(first_a[1], last_a[1])


def test_missing_marker_is_named():
    with pytest.raises(InputError, match="row 1"):
        marker_states(torch.zeros(2, 2, 3), torch.tensor([[7, 0], [0, 7]]), torch.tensor([[1, 1], [1, 0]]), 7)

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from isometry.encoders.text import last_token_pool, mean_pool, weighted_mean_pool, without_prompt
from isometry.errors import ShapeError

PAIRS = [(mean_pool, "mean"), (last_token_pool, "lasttoken"), (weighted_mean_pool, "weightedmean")]


def test_hand_values():
    tokens = torch.tensor([[[1.0], [2.0], [6.0], [99.0]]])
    right = torch.tensor([[1, 1, 1, 0]])
    assert mean_pool(tokens, right).item() == 3.0
    assert last_token_pool(tokens, right).item() == 6.0
    assert weighted_mean_pool(tokens, right).item() == pytest.approx((1 + 4 + 18) / 6)
    left = torch.tensor([[[99.0], [1.0], [2.0], [6.0]]])
    mask = torch.tensor([[0, 1, 1, 1]])
    assert mean_pool(left, mask).item() == 3.0
    assert last_token_pool(left, mask).item() == 6.0
    assert weighted_mean_pool(left, mask).item() == pytest.approx(23 / 6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 6), st.booleans(), st.integers(0, 999))
def test_same_as_sentence_transformers(b, t, d, left, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(b, t, d, generator=generator)
    lengths = torch.randint(1, t + 1, (b,), generator=generator)
    mask = (torch.arange(t) < lengths[:, None]).long()
    mask = mask.flip(1) if left else mask
    for ours, name in PAIRS:
        theirs = Pooling(d, name)({"token_embeddings": tokens.clone(), "attention_mask": mask})["sentence_embedding"]
        torch.testing.assert_close(ours(tokens, mask), theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pool", [mean_pool, last_token_pool, weighted_mean_pool])
def test_padding_never_counts(pool):
    tokens = torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    rubbish = torch.full((2, 5, 4), 1e4)
    longer = torch.cat([tokens, rubbish], 1)
    longer_mask = torch.cat([mask, torch.zeros(2, 5, dtype=torch.long)], 1)
    torch.testing.assert_close(pool(tokens, mask), pool(longer, longer_mask))


def test_prompt_is_left_out_per_row_and_padding_side():
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    assert without_prompt(mask, 2).tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert without_prompt(mask, torch.tensor([1, 2])).tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert without_prompt(mask, None) is mask
    assert mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        mean_pool(torch.zeros(2, 4, 5), torch.zeros(2, 3))

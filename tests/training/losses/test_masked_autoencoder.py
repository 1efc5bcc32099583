from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from isometry.encoders.text import Ladder, Size
from isometry.errors import InputError
from isometry.training.losses import MaskedAutoencoderLoss, nested_masks
from tests.tiny_text import sentences, tiny_model

LADDER = Ladder((Size(1, 8), Size(2, 16), Size(4, 32)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_are_nested_whole_words_of_the_right_size(rows, seed):
    width = max(sum(row) for row in rows) + 2
    words = torch.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        words[i, 1 : 1 + sum(row)] = torch.repeat_interleave(torch.arange(1, len(row) + 1), torch.tensor(row))
    small, large = nested_masks(words, (0.2, 0.4), torch.Generator().manual_seed(seed))
    assert bool((small <= large).all()) and not bool((large & (words < 0)).any())
    for i, row in enumerate(rows):
        for mask, share in ((small, 0.2), (large, 0.4)):
            hidden = words[i][mask[i]].tolist()
            for word in set(hidden):
                assert hidden.count(word) == row[word - 1]
            wanted = round(share * sum(row) + 1e-7)
            assert wanted <= len(hidden) < wanted + max(row) or (wanted == 0 and not hidden)


def test_words_of_one_token_are_masked_to_the_rounded_share():
    words = torch.arange(1, 11).expand(3, 10)
    small, large = nested_masks(words, (0.2, 0.4), torch.Generator().manual_seed(1))
    assert small.sum(dim=1).tolist() == [2, 2, 2] and large.sum(dim=1).tolist() == [4, 4, 4]


def test_the_sliced_head_at_full_width_is_the_head(bert):
    torch.manual_seed(3)
    head = BertForMaskedLM(BertConfig(vocab_size=300, hidden_size=32, num_attention_heads=4, num_hidden_layers=1)).cls
    loss = MaskedAutoencoderLoss(bert, LADDER, head)
    states = torch.randn(5, 32)
    torch.testing.assert_close(loss.transform(states), head.predictions.transform(states))
    narrow = torch.cat([states[:, :8], torch.zeros(5, 24)], dim=1)
    torch.testing.assert_close(loss.transform(states[:, :8]), head.predictions.transform(narrow))


def test_the_loss_is_the_mean_of_two_guesses_over_the_sizes(bert):
    features = [bert.preprocess(sentences(6, low=6))]
    loss = MaskedAutoencoderLoss(bert, LADDER, seed=5)
    value = loss(features)
    loss.generator.manual_seed(5)
    ids, mask = features[0]["input_ids"], features[0]["attention_mask"]
    hidden, more = nested_masks(loss._words(ids, mask), (0.2, 0.4), loss.generator)
    backbone = bert[0].auto_model
    first = loss._corrupt(ids, hidden)
    assert torch.equal(first[~hidden], ids[~hidden])
    states = backbone(input_ids=first, attention_mask=mask, output_hidden_states=True).hidden_states
    blurred = backbone.embeddings(input_ids=loss._corrupt(ids, more))
    words = backbone.get_input_embeddings().weight
    expected = []
    for size in LADDER:
        turned = loss.transform(states[size.layers][:, :, : size.dimensions])
        guess = F.cross_entropy(turned[hidden] @ words.T, ids[hidden])
        inputs = torch.cat([turned[:, :1], blurred[:, 1:]], dim=1)
        seen = mask.bool()[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        restored = loss.transform(loss.decoder(inputs, seen)[more])
        expected.append((guess + F.cross_entropy(restored @ words.T, ids[more])) / 2)
    torch.testing.assert_close(value, torch.stack(expected).mean())


def test_steps_lower_the_loss_and_reach_every_part(tmp_path):
    model = tiny_model(tmp_path)
    loss = MaskedAutoencoderLoss(model, LADDER)
    features = [model.preprocess(sentences(16, low=6))]
    optimiser = torch.optim.AdamW(loss.parameters(), lr=3e-3)
    seen = []
    for _ in range(30):
        optimiser.zero_grad()
        value = loss(features)
        value.backward()
        seen.append(value.item())
        if len(seen) == 1:
            silent = {name for name, p in loss.named_parameters() if p.grad is None and "pooler" not in name}
            assert not silent
        optimiser.step()
    assert sum(seen[-5:]) / 5 < seen[0] - 0.5


def test_what_cannot_be_masked_is_refused(bert, tmp_path):
    with pytest.raises(InputError, match="encoder such as BERT"):
        MaskedAutoencoderLoss(tiny_model(tmp_path, "mistral", layers=2), Ladder.of((1, 8), (2, 32)))
    with pytest.raises(InputError, match="full size"):
        MaskedAutoencoderLoss(bert, Ladder.of((1, 8), (2, 32)))
    with pytest.raises(InputError, match="shares"):
        MaskedAutoencoderLoss(bert, LADDER, encoder_share=0.5)
    with pytest.raises(InputError, match="too short"):
        MaskedAutoencoderLoss(bert, LADDER)([bert.preprocess(["w1", "w2"])])

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.normalize import Normalize

from isometry.encoders.text import (
    AttentionPooling,
    CrossAttention,
    MultiLayerPooling,
    keep_hidden_states,
    load_text_model,
    mean_pool,
)
from isometry.errors import InputError
from tests.reference.attention import cross_attention
from tests.tiny_text import sentences


def _features(b=3, t=5, d=16, lengths=(5, 3, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(b, t, d, generator=generator, dtype=torch.float64)
    mask = (torch.arange(t) < torch.tensor(lengths)[:, None]).long()
    return {"token_embeddings": tokens, "attention_mask": mask}


def test_block_agrees_with_plain_formula_and_gradient():
    torch.manual_seed(0)
    block = CrossAttention(16, heads=4, head_dimension=6).double()
    queries = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    keys = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    ours = block(queries, context, keys)
    ours.square().sum().backward()
    gradients = [queries.grad.clone(), context.grad.clone(), block.to_keys_values.weight.grad.clone()]
    block.zero_grad()
    queries.grad = context.grad = None
    plain = cross_attention(block, queries, context, keys)
    plain.square().sum().backward()
    torch.testing.assert_close(ours, plain)
    for left, right in zip(gradients, [queries.grad, context.grad, block.to_keys_values.weight.grad], strict=True):
        torch.testing.assert_close(left, right)


def test_one_key_makes_attention_independent_of_the_query_weights():
    torch.manual_seed(0)
    block = CrossAttention(16, 4, 4)
    queries, context = torch.randn(2, 3, 16), torch.randn(2, 1, 16)
    before = block(queries, context)
    with torch.no_grad():
        block.to_queries.weight.normal_()
    torch.testing.assert_close(before, block(queries, context))


@pytest.mark.parametrize("queries", ["latents", "tokens"])
def test_order_of_latents_does_not_matter(queries):
    pooler = AttentionPooling(16, queries=queries, latents=7, heads=4).double()
    before = pooler(_features())["sentence_embedding"]
    with torch.no_grad():
        pooler.dictionary.copy_(pooler.dictionary[torch.randperm(7)])
    torch.testing.assert_close(before, pooler(_features())["sentence_embedding"])


@pytest.mark.parametrize("queries", ["latents", "tokens"])
def test_padding_changes_nothing(queries):
    pooler = AttentionPooling(16, queries=queries, latents=4, heads=4).double()
    features = _features()
    alone = {key: value[1:2, :3] for key, value in features.items()}
    whole = pooler(dict(features))["sentence_embedding"][1]
    torch.testing.assert_close(whole, pooler(alone)["sentence_embedding"][0], atol=1e-10, rtol=1e-8)


def test_adding_nothing_gives_mean_of_tokens_or_of_latents():
    features = _features()
    tokens = AttentionPooling(16, queries="tokens", latents=4, heads=4, zero_init=True).double()
    expected = mean_pool(features["token_embeddings"], features["attention_mask"])
    assert torch.equal(tokens(dict(features))["sentence_embedding"], expected)
    latents = AttentionPooling(16, queries="latents", latents=4, heads=4, zero_init=True).double()
    out = latents(dict(features))["sentence_embedding"]
    torch.testing.assert_close(out, latents.dictionary.mean(dim=0).expand(3, -1))


def test_one_latent_gives_every_token_the_same_addition():
    block = AttentionPooling(16, queries="tokens", latents=1, heads=4).block
    torch.nn.init.zeros_(block.narrow.weight)
    torch.nn.init.zeros_(block.narrow.bias)
    states = torch.randn(1, 5, 16)
    added = block(states, torch.randn(1, 1, 16)) - states
    torch.testing.assert_close(added, added[:, :1].expand(-1, 5, -1), atol=1e-6, rtol=1e-5)


def test_instruction_tokens_are_left_out_of_the_mean():
    pooler = AttentionPooling(16, queries="tokens", latents=4, heads=4, include_prompt=False).double()
    features = {**_features(lengths=(5, 4, 3)), "prompt_length": 2}
    before = pooler(dict(features))["sentence_embedding"]
    overwritten = {**features, "token_embeddings": features["token_embeddings"].clone()}
    overwritten["token_embeddings"][:, :2] = 77.0
    assert torch.equal(before, pooler(overwritten)["sentence_embedding"])


def test_last_token_form_sees_only_the_last_token():
    pooler = AttentionPooling(16, queries="latents", tokens="last", latents=4, heads=4).double()
    features = _features()
    before = pooler(dict(features))["sentence_embedding"]
    changed = {**features, "token_embeddings": features["token_embeddings"].clone()}
    changed["token_embeddings"][0, :4] = 5.0
    assert torch.equal(before, pooler(changed)["sentence_embedding"])


def test_layers_are_told_apart_only_by_the_layer_matrix():
    pooler = MultiLayerPooling(16, layers=3, latents=4, heads=4)
    summaries = torch.randn(2, 3, 16)
    swapped = summaries[:, [2, 0, 1]]
    assert not torch.allclose(pooler.pool(summaries), pooler.pool(swapped), atol=1e-5)
    torch.nn.init.zeros_(pooler.layer_matrix)
    torch.testing.assert_close(pooler.pool(summaries), pooler.pool(swapped))


def test_multi_layer_model_trains_saves_and_loads(fresh_bert, tmp_path):
    keep_hidden_states(fresh_bert)
    model = SentenceTransformer(modules=[fresh_bert[0], MultiLayerPooling(32, 4, latents=4), Normalize()], device="cpu")
    texts = sentences(6)
    vectors = model.encode(texts)
    loss = model(model.preprocess(texts))["sentence_embedding"].pow(3).sum()
    loss.backward()
    assert model[1].layer_matrix.grad.abs().sum() > 0
    model.save(str(tmp_path / "m"))
    again = load_text_model(tmp_path / "m", device="cpu")
    assert type(again[1]) is MultiLayerPooling
    assert (again.encode(texts) == vectors).all()
    theirs = SentenceTransformer(str(tmp_path / "m"), trust_remote_code=True, device="cpu")
    assert (theirs.encode(texts) == vectors).all()


def test_multi_layer_pooling_says_when_states_are_missing(bert):
    model = SentenceTransformer(modules=[bert[0], MultiLayerPooling(32, 4, latents=4)], device="cpu")
    with pytest.raises(InputError, match="keep_hidden_states"):
        model.encode(["w1"])


def test_attention_pooling_saves_and_loads_with_prompts(fresh_bert, tmp_path):
    pooler = AttentionPooling(32, queries="latents", latents=4, heads=4, head_dimension=6, include_prompt=False)
    model = SentenceTransformer(modules=[fresh_bert[0], pooler], prompts={"query": "w1 w2 "}, device="cpu")
    model.save(str(tmp_path / "m"))
    again = load_text_model(tmp_path / "m", device="cpu")
    assert again.prompts["query"] == "w1 w2 "
    assert again[1].get_config_dict() == pooler.get_config_dict()
    assert (again.encode_query(["w3 w4"]) == model.encode_query(["w3 w4"])).all()


def test_bad_arguments():
    with pytest.raises(InputError, match="do not divide"):
        AttentionPooling(30, heads=8)
    with pytest.raises(InputError, match="queries"):
        AttentionPooling(32, queries="rows")
    with pytest.raises(InputError, match="'last'"):
        AttentionPooling(32, queries="tokens", tokens="last")

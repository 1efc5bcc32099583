"""Contrastive product quantisation, locality-centric batches and the fine head of paper 19."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isometry.compression import ContrastivePQ, FineHead, ProductQuantizer, load_compressor, locality_batches
from isometry.compression.contrastive_pq import quantise_straight_through
from isometry.errors import InputError, ShapeError


def views(n, d=16, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    core = rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d)
    sides = [core + noise * rng.standard_normal((n, d)) * np.linspace(0, 1, d) for _ in range(2)]
    return [(s / np.linalg.norm(s, axis=1, keepdims=True)).astype(np.float32) for s in sides]


def test_forward_is_the_hard_choice_and_gradient_the_soft_one():
    torch.manual_seed(0)
    v = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    codebook = torch.randn(2, 7, 2, dtype=torch.float64, requires_grad=True)
    out = quantise_straight_through(v, codebook)
    pieces = v.reshape(5, 2, 1, 2)
    nearest = ((pieces - codebook[None]) ** 2).sum(-1).argmin(-1)
    torch.testing.assert_close(out.reshape(5, 2, 2), torch.stack([codebook[j, nearest[:, j]] for j in range(2)], 1))
    weights = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * weights).sum(), v)
    soft = torch.softmax(-((pieces - codebook[None]) ** 2).sum(-1), dim=-1)
    mixed = torch.einsum("njk,jkw->njw", soft, codebook).reshape(5, 4)
    (expected,) = torch.autograd.grad((mixed * weights).sum(), v)
    torch.testing.assert_close(gradient, expected)


def test_centroids_on_the_data_code_without_error():
    v = torch.randn(256, 4)
    codebook = torch.stack([v[:, :2], v[:, 2:]])
    torch.testing.assert_close(quantise_straight_through(v, codebook), v)


def test_untrained_equals_the_product_quantiser_and_its_faiss_codes():
    x, _ = views(600)
    base = ProductQuantizer(4, rotate=True).fit(x)
    fitted = ContrastivePQ(4, learning_rate=0.0, epochs=1).fit(x, start_from=base)
    codes = fitted.transform(x)
    np.testing.assert_array_equal(codes, base.transform(x))
    np.testing.assert_allclose(fitted.scorer(x[:9])(codes), base.scorer(x[:9])(codes), atol=1e-5)
    np.testing.assert_allclose(fitted.inverse_transform(codes), base.inverse_transform(codes), atol=1e-4)
    np.testing.assert_array_equal(codes, fitted.as_product_quantizer().transform(fitted.turned(x)))


def reach(scores, n=5):
    return ((scores > np.diag(scores)[:, None]).sum(axis=1) < n).mean()


def test_training_ranks_better_than_the_unsupervised_codebook(tmp_path):
    queries, documents = views(3000)
    plain = ProductQuantizer(2, rotate=True).fit(documents[:2500])
    learnt = ContrastivePQ(2, epochs=6).fit(documents[:2500], queries[:2500], start_from=plain)
    before, after = (e.scorer(queries[2500:])(e.transform(documents[2500:])) for e in (plain, learnt))
    assert reach(after) > reach(before) + 0.05
    learnt.save(tmp_path / "cpq")
    np.testing.assert_array_equal(load_compressor(tmp_path / "cpq").transform(documents), learnt.transform(documents))
    assert learnt.bytes_per_vector == 2 and learnt.shared_bytes == 256 * 16 * 4 + 16 * 16 * 4


def test_each_query_once_and_no_negative_twice():
    rng = np.random.default_rng(0)
    candidates = np.stack([rng.permutation(400)[:40] for _ in range(300)])
    positives = np.arange(300)
    for strategy in ("walk", "snowball", "random"):
        settings = {"batch_size": 32, "negatives": 2, "strategy": strategy, "near": (0, 20), "link": (20, 40)}
        batches = list(locality_batches(candidates, positives, 400, **settings, seed=5))
        assert sorted(np.concatenate([b.queries for b in batches])) == list(range(300))
        for batch in batches:
            assert len(set(batch.negatives)) == len(batch.negatives) == 2 * len(batch.queries)
            np.testing.assert_array_equal(batch.positives, batch.queries)
            for i, query in enumerate(batch.queries):
                assert query not in batch.negatives[2 * i : 2 * i + 2]
        again = list(locality_batches(candidates, positives, 400, **settings, seed=5))
        assert all((a.negatives == b.negatives).all() for a, b in zip(batches, again, strict=True))


def test_local_batches_stay_in_a_neighbourhood_and_an_empty_graph_is_random():
    groups = np.arange(400) // 20
    candidates = np.stack([np.flatnonzero(groups == groups[q]) for q in range(400)])
    settings = {"batch_size": 20, "near": (0, 20), "link": (0, 20), "seed": 1}
    spread = {}
    for strategy in ("walk", "snowball", "random"):
        batches = locality_batches(candidates, np.arange(400), 400, strategy=strategy, **settings)
        spread[strategy] = np.mean([len(set(groups[b.queries])) for b in batches])
    assert spread["walk"] < 4 and spread["snowball"] < 4 and spread["random"] > 10
    empty = np.full((400, 20), -1)
    a = list(locality_batches(empty, np.arange(400), 400, strategy="walk", **settings))
    b = list(locality_batches(empty, np.arange(400), 400, strategy="random", **settings))
    assert all((x.queries == y.queries).all() and (x.negatives == y.negatives).all() for x, y in zip(a, b, strict=True))


def test_fine_head_learns_and_starts_as_the_identity(tmp_path):
    queries, documents = views(2000)
    none = np.full((1500, 1), -1)

    def batches(epoch):
        return locality_batches(none, np.arange(1500), 1500, batch_size=100, strategy="random", seed=epoch)

    head = FineHead(epochs=6, learning_rate=5e-3).fit(documents[:1500], queries[:1500], batches)
    before = reach(queries[1500:] @ documents[1500:].T)
    assert reach(head.transform(queries[1500:]) @ head.transform(documents[1500:]).T) > before + 0.05
    still = FineHead(learning_rate=0.0, epochs=1).fit(documents[:1500], queries[:1500], batches)
    np.testing.assert_allclose(still.transform(documents), documents, atol=1e-6)
    head.save(tmp_path / "h")
    np.testing.assert_array_equal(load_compressor(tmp_path / "h").transform(queries), head.transform(queries))


def test_bad_input_is_named():
    x, _ = views(300)
    with pytest.raises(InputError, match="do not divide"):
        ContrastivePQ(5).fit(x)
    with pytest.raises(InputError, match="start"):
        ContrastivePQ(4, start="zero").fit(x)
    with pytest.raises(ShapeError, match="not there"):
        ContrastivePQ(4).fit(x, x[:2], documents=np.array([0, 300]))
    with pytest.raises(InputError, match="strategy"):
        next(locality_batches(np.zeros((3, 2), int), np.zeros(3, int), 500, strategy="deep"))
    with pytest.raises(InputError, match="cannot fill"):
        next(locality_batches(np.zeros((3, 2), int), np.zeros(3, int), 5))
    with pytest.raises(ShapeError, match="same dimension"):
        FineHead().fit(x, x[:, :3], lambda epoch: [])

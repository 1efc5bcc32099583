from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, CoSENTLoss
from torch.nn import functional as F

from isometry.encoders.text import Ladder, Size, exit_vectors
from isometry.errors import InputError
from isometry.training.losses import (
    EspressoLoss,
    InfoNCE,
    LadderLoss,
    LayerDistillationLoss,
    SampledSizeLoss,
    compressed_target,
    coordinate_kl,
)
from tests.tiny_text import sentences, tiny_model

LADDER = Ladder((Size(1, 8, 0.5), Size(2, 16), Size(4, 32)))


def batch(model, seeds=(0, 1)):
    return [model.preprocess(sentences(5, seed=s)) for s in seeds]


def exits(model, features):
    return [exit_vectors(model, column, range(1, 5)) for column in features]


def test_ladder_is_the_sum_over_its_sizes(bert):
    features = batch(bert)
    base = InfoNCE(bert, 0.1)
    value = LadderLoss(bert, base, LADDER, kl_weight=0.3)(features, None)
    by_layer = exits(bert, features)
    full = [column[4] for column in by_layer]
    expected = base.compute_loss_from_embeddings(full)
    for size in LADDER.parts:
        small = [column[size.layers][:, : size.dimensions] for column in by_layer]
        target = F.softmax(torch.cat(full)[:, : size.dimensions].detach(), -1)
        divergence = F.kl_div(F.log_softmax(torch.cat(small), -1), target, reduction="batchmean")
        expected = expected + size.weight * (base.compute_loss_from_embeddings(small) + 0.3 * divergence)
    torch.testing.assert_close(value, expected)


def test_a_ladder_of_the_full_size_alone_is_the_base_loss(bert):
    features = batch(bert)
    base = InfoNCE(bert, 0.1)
    torch.testing.assert_close(LadderLoss(bert, base, Ladder.of((4, 32)))(features), base(features))


def test_score_distillation_does_not_depend_on_the_axes(bert):
    full, small = [torch.randn(5, 32) for _ in range(2)], [torch.randn(5, 32) for _ in range(2)]
    turn = torch.linalg.qr(torch.randn(32, 32))[0]
    loss = LadderLoss(bert, InfoNCE(bert), LADDER, kl_on="scores", kl_temperature=0.1)
    plain = loss._divergence(full, small, Size(1, 32))
    turned = loss._divergence([v @ turn for v in full], [v @ turn for v in small], Size(1, 32))
    torch.testing.assert_close(plain, turned, atol=1e-5, rtol=1e-4)
    assert loss(batch(bert)).item() > 0


def test_a_wrong_ladder_or_base_is_refused(bert):
    with pytest.raises(InputError, match="full size"):
        LadderLoss(bert, InfoNCE(bert), Ladder.of((1, 8), (2, 16)))
    with pytest.raises(InputError, match="caches gradients"):
        LadderLoss(bert, CachedMultipleNegativesRankingLoss(bert), LADDER)
    with pytest.raises(InputError, match="guide vectors as labels"):
        LadderLoss(bert, InfoNCE(bert, guide=bert), LADDER)


def test_graded_base_loss(bert):
    features = batch(bert)
    labels = torch.linspace(0, 1, 5)
    value = LadderLoss(bert, CoSENTLoss(bert), LADDER, kl_weight=0.0)(features, labels)
    assert torch.isfinite(value) and value > 0


def test_sampled_step_is_the_papers_sum(bert):
    features = batch(bert)
    base = InfoNCE(bert, 0.1)
    loss = SampledSizeLoss(bert, base, seed=3)
    assert loss.widths == (8, 16)
    size = SampledSizeLoss(bert, base, seed=3).draw()
    value = loss(features)
    by_layer = exits(bert, features)
    deep, shallow = [column[4] for column in by_layer], [column[size.layers] for column in by_layer]
    expected = coordinate_kl(torch.cat(shallow), torch.cat(deep))
    for vectors in (deep, shallow):
        expected = expected + base.compute_loss_from_embeddings(vectors)
        expected = expected + base.compute_loss_from_embeddings([v[:, : size.dimensions] for v in vectors])
    torch.testing.assert_close(value, expected)


def test_a_seed_fixes_the_sizes_and_all_are_drawn(bert):
    def sequence(seed):
        loss = SampledSizeLoss(bert, InfoNCE(bert), seed=seed)
        return [loss.draw() for _ in range(60)]

    assert sequence(1) == sequence(1) != sequence(2)
    assert {(size.layers, size.dimensions) for size in sequence(0)} == {(n, d) for n in (1, 2, 3) for d in (8, 16)}


def test_inverse_depth_weight_of_the_first_code(bert):
    features = batch(bert)
    parts = {}
    for weight in ("one", "inverse"):
        torch.manual_seed(0)
        parts[weight] = SampledSizeLoss(bert, InfoNCE(bert), kl_weight=0.0, depth_weight=weight, seed=5)(features)
    assert parts["inverse"] <= parts["one"]


def test_espresso_is_the_weighted_sum(bert):
    features = batch(bert)
    base = InfoNCE(bert, 0.1)
    value = EspressoLoss(bert, base, width=8, align_weight=0.0)(features)
    by_layer = exits(bert, features)
    deep = [column[4] for column in by_layer]
    expected = base.compute_loss_from_embeddings(deep) + base.compute_loss_from_embeddings([v[:, :8] for v in deep])
    for layer in (1, 2, 3):
        small = [column[layer][:, :8] for column in by_layer]
        expected = expected + base.compute_loss_from_embeddings(small) / (1 + math.log(1 + layer)) / 3
    torch.testing.assert_close(value, expected)
    aligned = EspressoLoss(bert, base, width=8)(features)
    assert aligned > value


def test_compressed_target_spans_the_data_and_has_no_gradient():
    vectors = torch.randn(6, 10, requires_grad=True)
    target = compressed_target(vectors, 10)
    assert not target.requires_grad
    relation = torch.softmax(vectors.T @ vectors / math.sqrt(10), dim=-1).detach()
    u, s, _ = torch.linalg.svd(relation)
    torch.testing.assert_close(target, vectors.detach() @ u @ torch.diag(s))
    assert torch.linalg.matrix_rank(target) <= 6
    torch.testing.assert_close(compressed_target(vectors, 3), target[:, :3])


def test_layers_learn_from_a_teacher(tmp_path):
    student, teacher = tiny_model(tmp_path, layers=2), tiny_model(tmp_path, seed=1)
    loss = LayerDistillationLoss(student, teacher)
    assert loss.pairs == ((1, 2), (2, 4))
    optimiser = torch.optim.Adam(student.parameters(), 3e-3)
    features = batch(student)
    values = []
    for _ in range(12):
        optimiser.zero_grad()
        value = loss(features)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert LayerDistillationLoss(teacher, teacher)(features).item() == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="outside"):
        LayerDistillationLoss(student, teacher, pairs=((3, 4),))

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from isometry.errors import InputError
from isometry.training.losses import (
    MarginRankingLoss,
    coordinate_kl,
    cosine_matrix,
    focal_weights,
    kl_between_scores,
    standardise,
)
from isometry.training.margins import MarginRule
from isometry.training.negatives.mixing import draw_pairs, mix_list, mix_pairs


def test_cosines():
    value = cosine_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    torch.testing.assert_close(value, torch.tensor([[0.6, -0.8]]))


def test_divergence_is_zero_for_equal_scores_and_positive_otherwise():
    scores = torch.randn(4, 5)
    assert kl_between_scores(scores, scores).abs().max() < 1e-6
    assert (kl_between_scores(scores, torch.randn(4, 5)) > 0).all()
    assert kl_between_scores(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])).item() == pytest.approx(
        0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    )


def test_uniform_teacher_is_best_met_by_equal_similarities_at_the_log_of_n():
    student = torch.zeros(1, 4, requires_grad=True)
    cross_entropy = kl_between_scores(student, torch.ones(1, 4)) + math.log(4)
    assert cross_entropy.item() == pytest.approx(math.log(4))
    (gradient,) = torch.autograd.grad(cross_entropy.sum(), student)
    assert gradient.abs().max() < 1e-6


def test_teacher_is_a_constant():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    gradients = torch.autograd.grad(kl_between_scores(student, teacher).sum(), [student, teacher], allow_unused=True)
    assert gradients[0] is not None and gradients[1] is None
    value = coordinate_kl(student, teacher)
    assert torch.autograd.grad(value, [teacher], allow_unused=True)[0] is None
    moving = coordinate_kl(student, teacher, detach_teacher=False)
    assert torch.autograd.grad(moving, [teacher])[0].abs().sum() > 0


def test_coordinate_divergence_is_torch_s():
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    expected = F.kl_div(F.log_softmax(student / 0.3, -1), F.softmax(teacher / 0.3, -1), reduction="batchmean") * 0.3
    torch.testing.assert_close(coordinate_kl(student, teacher, 0.3), expected)


def test_focal_weights():
    log_p = torch.log(torch.tensor([0.5, 0.75]))
    torch.testing.assert_close(focal_weights(log_p, 2.0), torch.tensor([0.25, 0.0625]))
    torch.testing.assert_close(focal_weights(log_p, 0.0), torch.ones(2))
    assert focal_weights(log_p, 2.0, normalise=True).mean().item() == pytest.approx(1.0)


def test_standardised_rows():
    value = standardise(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    torch.testing.assert_close(value, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))


def test_margin_rules():
    assert MarginRule("relative", 0.05).threshold(0.8) == pytest.approx(0.76)
    assert MarginRule("relative", 0.05).threshold(-0.8) == pytest.approx(-0.84)
    assert MarginRule("absolute", 0.1).threshold(0.8) == pytest.approx(0.7)
    torch.testing.assert_close(
        MarginRule("relative", 0.5).threshold(torch.tensor([2.0, -2.0])), torch.tensor([1.0, -3.0])
    )
    with pytest.raises(InputError):
        MarginRule("sideways")


def _units(*shape):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_mixed_pairs():
    negatives = _units(2, 3, 4)
    left, right = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1, 2], [0, 1]])
    ones = torch.ones(2, 2)
    torch.testing.assert_close(mix_pairs(negatives, ones, left, right)[0, 1], negatives[0, 1])
    half = mix_pairs(negatives, ones / 2, left, right)
    torch.testing.assert_close(half[1, 0], F.normalize(negatives[1, 2] + negatives[1, 0], dim=0))
    torch.testing.assert_close(half.norm(dim=-1), torch.ones(2, 2))


def test_a_mixture_can_be_harder_than_both_its_parts():
    query = torch.tensor([1.0, 0.0])
    pair = torch.tensor([[[0.6, 0.8], [0.6, -0.8]]])
    zero, one = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)
    mixed = mix_pairs(pair, torch.full((1, 1), 0.5), zero, one)
    assert mixed[0, 0] @ query > (pair[0] @ query).max() + 0.3


def test_list_mixture_goes_from_the_hardest_to_the_mean():
    queries, negatives = _units(3, 5), _units(3, 4, 5)
    hardest = torch.einsum("bd,bmd->bm", queries, negatives).argmax(dim=1)
    torch.testing.assert_close(mix_list(queries, negatives, 1e-4), negatives[torch.arange(3), hardest])
    mean = F.normalize(negatives.mean(dim=1), dim=-1)
    torch.testing.assert_close(mix_list(queries, negatives, 1e6), mean, atol=1e-5, rtol=1e-4)


def test_drawn_pairs_are_two_different_negatives():
    torch.manual_seed(0)
    weight, left, right = draw_pairs(500, 3, 4, torch.device("cpu"))
    assert (left != right).all() and left.max() == right.max() == 2
    assert weight.mean().item() == pytest.approx(0.5, abs=0.02)
    assert weight.var().item() == pytest.approx(1 / 20, abs=0.005)  # Beta(2, 2)


def test_hinge_is_zero_exactly_when_all_negatives_are_a_margin_below():
    query = torch.tensor([[1.0, 0.0]])
    good, bad = torch.tensor([[0.8, 0.6]]), torch.tensor([[0.6, 0.8]])
    assert MarginRankingLoss(margin=0.1).compute_loss_from_embeddings([query, good, bad]).item() == 0.0
    assert MarginRankingLoss(margin=0.3).compute_loss_from_embeddings([query, good, bad]).item() == pytest.approx(0.1)
    both = MarginRankingLoss(margin=0.3).compute_loss_from_embeddings([query, good, bad, -query])
    assert both.item() == pytest.approx(0.05)
    with pytest.raises(InputError, match="2 column"):
        MarginRankingLoss().compute_loss_from_embeddings([query, good])

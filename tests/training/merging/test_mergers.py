from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isometry.errors import DivergedError, InputError, ShapeError
from isometry.training.merging import (
    TaskVector,
    average,
    dare,
    fisher,
    fold_coefficients,
    fold_slerp,
    input_grams,
    regmean_weight,
    self_position,
    slerp,
    task_matrix,
    ties,
)


def rows(n=3, p=12, seed=0):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_slerp_ends_and_middle():
    first, second = rows(2)
    torch.testing.assert_close(slerp(first, second, 0.0), first)
    torch.testing.assert_close(slerp(first, second, 1.0), second)
    x, y = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    half = slerp(x, y, 0.5)
    torch.testing.assert_close(half, (x + y) / math.sqrt(2))
    assert half.norm().item() == pytest.approx(1.0)


def test_parallel_and_zero_vectors_are_interpolated_linearly():
    first = rows(1)[0]
    torch.testing.assert_close(slerp(first, 3 * first, 0.25), 1.5 * first)
    torch.testing.assert_close(slerp(first, torch.zeros_like(first), 0.5), first / 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 99))
def test_merging_the_same_model_is_the_identity(n, seed):
    one = rows(1, seed=seed)
    same = one.repeat(n, 1)
    for merged in (average(same), fold_slerp(same), ties(same, keep=1.0), fisher(same, torch.rand(n, 12).double())):
        torch.testing.assert_close(merged, one[0])


def test_averages_by_weight():
    vectors = rows(2)
    torch.testing.assert_close(average(vectors, [1, 3]), 0.25 * vectors[0] + 0.75 * vectors[1])
    for weights in ([1.0], [0.0, 0.0], [-1.0, 2.0]):
        with pytest.raises(InputError, match="2 models need 2 weights"):
            average(vectors, weights)


def test_ties_by_hand():
    vectors = torch.tensor([[4.0, -1.0, 0.5, 2.0], [2.0, 3.0, -0.1, -2.5]])
    torch.testing.assert_close(ties(vectors, keep=0.5), torch.tensor([4.0, 3.0, 0.0, -2.5]))
    torch.testing.assert_close(ties(vectors.abs(), keep=1.0), average(vectors.abs()))
    torch.testing.assert_close(ties(vectors, keep=0.5, scale=2.0), 2 * ties(vectors, keep=0.5))
    with pytest.raises(InputError, match="above 0"):
        ties(vectors, keep=0.0)


def test_dare_keeps_the_mean():
    vectors = torch.ones(1, 20_000)
    dropped = dare(vectors, 0.75, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(dare(vectors, 0.0, torch.Generator()), vectors)


def test_fisher_follows_the_information():
    vectors = rows(2)
    torch.testing.assert_close(fisher(vectors, torch.ones(2, 12), [1, 2]), average(vectors, [1, 2]))
    only_first = torch.stack([torch.ones(12), torch.zeros(12)]).double()
    torch.testing.assert_close(fisher(vectors, only_first), vectors[0])
    torch.testing.assert_close(fisher(vectors, torch.zeros(2, 12)), average(vectors))


def test_regmean_solves_the_least_squares():
    inputs = [rows(30, 5, seed=s) for s in (0, 1)]
    weights = [rows(3, 5, seed=s) for s in (2, 3)]
    grams = [x.T @ x for x in inputs]
    merged = regmean_weight(weights, grams, shrink=0.0)
    stacked, wanted = torch.cat(inputs), torch.cat([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    torch.testing.assert_close(merged.T, torch.linalg.lstsq(stacked, wanted).solution, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(regmean_weight(weights, [grams[0]] * 2), (weights[0] + weights[1]) / 2)
    torch.testing.assert_close(regmean_weight(weights[:1], grams[:1]), weights[0])


def test_grams_of_layer_inputs():
    layer = nn.Sequential(nn.Linear(3, 2))
    data = torch.randn(4, 3)
    grams = input_grams(layer, lambda: layer(data))
    torch.testing.assert_close(grams["0"], data.T @ data)
    assert not layer[0]._forward_hooks


# --- task vectors


def test_task_vectors_go_and_come_back(tmp_path):
    base = {"a": torch.randn(2, 3), "n": torch.tensor([1, 2])}
    trained = {"a": base["a"] + 1, "n": torch.tensor([9, 9])}
    vector = TaskVector.between(base, trained)
    assert vector.norm() == pytest.approx(math.sqrt(6))
    torch.testing.assert_close(vector.apply(base)["a"], trained["a"])
    assert torch.equal(vector.apply(base)["n"], base["n"])
    torch.testing.assert_close(vector.apply(base, 0.0)["a"], base["a"])
    torch.testing.assert_close(vector.unflatten(vector.flat()).parts["a"], vector.parts["a"])
    assert vector.cosine(vector) == pytest.approx(1.0)
    vector.save(tmp_path / "v.safetensors")
    torch.testing.assert_close(TaskVector.load(tmp_path / "v.safetensors").parts["a"], vector.parts["a"])
    half = {"a": base["a"].to(torch.bfloat16)}
    assert TaskVector.between(half, half).apply(half)["a"].dtype == torch.bfloat16


def test_other_architectures_are_named():
    base = {"a": torch.zeros(2), "b": torch.zeros(1)}
    with pytest.raises(InputError, match="'b' is in one"):
        TaskVector.between(base, {"a": torch.zeros(2)})
    with pytest.raises(ShapeError, match=r"'a' has shape \(3,\)"):
        TaskVector.between(base, {"a": torch.zeros(3), "b": torch.zeros(1)})
    with pytest.raises(InputError, match="nothing to merge"):
        task_matrix([])


# --- self positioning


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 99))
def test_coefficients_are_the_fold(n, seed):
    vectors = rows(n, seed=seed)
    shares = torch.rand(n, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    coefficients = fold_coefficients(shares, torch.tensor(1.0).double(), vectors @ vectors.T)
    torch.testing.assert_close(coefficients @ vectors, fold_slerp(vectors, shares.tolist()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 3])
def test_slope_of_the_shares_matches_differences(n):
    vectors = rows(n, p=6)
    gram = vectors @ vectors.T
    target = rows(1, p=6, seed=9)[0]

    def loss(shares, scale):
        return (fold_coefficients(shares, scale, gram) @ vectors - target).pow(2).sum()

    shares = torch.rand(n, generator=torch.Generator().manual_seed(1)).double() + 0.3
    shares.requires_grad_()
    scale = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (shares, scale), eps=1e-6, atol=1e-5)


class _Point(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(size))


def _search(vectors, target, **options):
    model = _Point(vectors.shape[1])
    base = {"place": torch.zeros(vectors.shape[1])}
    batches = [lambda: (model.place - target).pow(2).sum()] * options.pop("steps", 400)
    found = self_position(model, base, {"place": vectors}, batches, **{"learning_rate": 2e-2, **options})
    return model.place.detach(), found


def test_the_best_place_of_a_quadratic_is_found():
    """Two orthogonal unit vectors span everything: the target 2 * (cos 30, sin 30) lies on slerp's arc times lambda."""
    target = 2 * torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)])
    place, found = _search(torch.eye(2), target, steps=800)
    torch.testing.assert_close(place, target, atol=0.01, rtol=0.01)
    assert found.scale == pytest.approx(2.0, abs=0.02)
    assert found.shares[1] / sum(found.shares) == pytest.approx(1 / 3, abs=0.01)
    assert found.losses[-1] < 1e-3 < found.losses[0]


def test_a_price_on_length_shortens_the_vector():
    target = torch.tensor([1.0, 1.0])
    free, priced = _search(torch.eye(2), target)[1], _search(torch.eye(2), target, mu=1.0)[1]
    assert priced.scale < free.scale - 0.1


def test_literal_form_and_bad_probes():
    place, found = _search(torch.eye(2), torch.tensor([1.0, 0.2]), positive=False)
    assert found.losses[-1] < found.losses[0]
    torch.testing.assert_close(place, torch.tensor(found.coefficients, dtype=torch.float32), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="two models"):
        _search(torch.eye(2)[:1], torch.zeros(2))
    with pytest.raises(DivergedError, match="step 1 is nan"):
        _search(torch.eye(2), torch.tensor([float("nan"), 0.0]))

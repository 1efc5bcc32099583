from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isometry.errors import ShapeError
from isometry.evaluation import bootstrap_interval, holm, paired_bootstrap, sign_flip_p


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
def test_bca_is_scipys(draw):
    """Same generator, same resamples, same interval."""
    values = getattr(np.random.default_rng(1), draw)(size=60)
    mean, low, high = bootstrap_interval(values, seed=7, resamples=3000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=3000, method="BCa", rng=np.random.default_rng(7), vectorized=True
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert float(low) == pytest.approx(theirs.low, abs=1e-12)
    assert float(high) == pytest.approx(theirs.high, abs=1e-12)


def test_few_values_get_students_interval():
    values = np.array([0.31, 0.35, 0.33, 0.38])
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert bootstrap_interval(values)[1:] == pytest.approx((theirs.low, theirs.high))
    assert sign_flip_p(values - 0.3) == pytest.approx(stats.ttest_1samp(values, 0.3).pvalue)


def test_columns_are_resampled_together_and_alone_alike():
    values = np.random.default_rng(0).random((300, 3))
    mean, low, high = bootstrap_interval(values, seed=2, resamples=2000)
    for j in range(3):
        alone = bootstrap_interval(values[:, j], seed=2, resamples=2000)
        np.testing.assert_allclose([mean[j], low[j], high[j]], alone, rtol=1e-12)


def test_chunks_do_not_change_the_draws():
    values = np.random.default_rng(0).random(5000)
    big = bootstrap_interval(values, seed=1, resamples=1600)  # 8 million draws: two chunks
    half = np.random.default_rng(1).integers(0, 5000, (1600, 5000))
    means = values[half].mean(axis=1)
    assert big[1] == pytest.approx(np.quantile(means, 0.025), abs=2e-4)
    assert big[2] == pytest.approx(np.quantile(means, 0.975), abs=2e-4)


def test_coverage_of_a_skewed_mean():
    """Nominal 95 %: between 92 and 97 of a hundred samples of 60 exponential values."""
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(300):
        _, low, high = bootstrap_interval(generator.exponential(size=60), seed=seed, resamples=800)
        covered += low <= 1 <= high
    assert 0.915 <= covered / 300 <= 0.98


@pytest.mark.parametrize("n", [10, 12])
def test_exact_sign_flips_are_all_patterns(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=n)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(expected)
    theirs = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue)


def test_drawn_sign_flips_come_close_to_the_t_test():
    differences = np.random.default_rng(5).normal(0.15, 1, 200)
    assert sign_flip_p(differences, seed=1, resamples=20_000) == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue, abs=0.01
    )
    assert sign_flip_p(np.ones(100), resamples=999) == pytest.approx(1 / 1000)


def test_no_spread():
    assert sign_flip_p(np.zeros(20)) == 1.0
    assert paired_bootstrap(np.full(30, 0.5), np.full(30, 0.5)) == (0.0, 0.0, 0.0, 1.0)
    effect, low, high, p = paired_bootstrap(np.full(3, 0.7), np.full(3, 0.5))
    assert (effect, low, high) == pytest.approx((0.2, 0.2, 0.2))
    assert p == 0.0


def test_paired_bootstrap_tests_against_the_minimal_effect():
    a, b = np.random.default_rng(1).normal(0.52, 0.05, 40), np.full(40, 0.5)
    plain, demanding = paired_bootstrap(a, b), paired_bootstrap(a, b, null=0.05)
    assert plain[:3] == demanding[:3]
    assert plain.effect == pytest.approx(np.mean(a - b))
    assert plain.low < plain.effect < plain.high
    assert demanding.p < 0.05  # and on the other side: the effect is well below 0.05
    assert plain.high < 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ShapeError, match="between 0 and 1"):
        holm([0.5, 1.2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_keeps_order_and_bounds(ps, random):
    corrected = holm(ps)
    shuffled = list(range(len(ps)))
    random.shuffle(shuffled)
    np.testing.assert_allclose(holm([ps[i] for i in shuffled]), [corrected[i] for i in shuffled])
    assert all(p <= q <= min(1.0, p * len(ps) + 1e-12) for p, q in zip(ps, corrected, strict=True))


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_bad_values_are_refused(bad):
    with pytest.raises(ShapeError):
        bootstrap_interval(np.array(bad))


def test_unequal_lengths_are_refused():
    with pytest.raises(ShapeError, match="two"):
        paired_bootstrap(np.ones(3), np.ones(4))

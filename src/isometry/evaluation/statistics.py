"""Intervals, paired tests and corrections over per-item values.

Sources: Efron, "Better Bootstrap Confidence Intervals", JASA 1987 (BCa); Good, "Permutation Tests" (sign flips);
Holm, Scandinavian Journal of Statistics 1979.

Choices made once for the whole house:
- Intervals are BCa bootstrap intervals of the mean (bias-corrected and accelerated): retrieval metrics are skewed and
  bounded, where the percentile interval leans to one side. Below `SMALL` values resampling cannot see the tails, and
  the interval is Student's.
- p-values are two-sided: sign flips (exact up to 2^16 of them, else drawn) from `SMALL` values on, Student's t below.
- A system without spread gets the interval [mean, mean]; p is then 1 where the effect is zero. A spread below rounding
  counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from isometry.errors import ShapeError

SMALL = 10
_EXACT_PAIRS = 16
_CHUNK = 4_000_000


class Comparison(NamedTuple):
    """Effect (mean of treatment minus baseline), its interval and the two-sided p of its being `null`."""

    effect: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, level: float = 0.95, resamples: int = 10_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and interval of each column.

    Args:
        values: `(n,)` or `(n, m)`, finite; all m columns are resampled together.
    Returns:
        (mean, low, high), each `()` or `(m,)` float64.
    Raises:
        ShapeError: no row, fewer than 2 rows, NaN or infinity.
    """
    columns = _columns(values)
    mean = columns.mean(axis=0)
    if len(columns) < SMALL:
        low, high = _student_interval(columns, level)
    else:
        low, high = _bca(columns, _resampled_means(columns, seed, resamples), level)
    shape = np.shape(values)[1:]
    return mean.reshape(shape), low.reshape(shape), high.reshape(shape)


def paired_bootstrap(
    treatment: np.ndarray,
    baseline: np.ndarray,
    seed: int = 0,
    null: float = 0.0,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Comparison:
    """Compare two systems on the same n items: mean of treatment - baseline, its interval, and p of its being `null`.

    Args:
        treatment, baseline: `(n,)`, item by item; n >= 2.
        null: effect to test against, 0 or the minimal effect that a claim declares.
    """
    treatment, baseline = np.asarray(treatment, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if treatment.ndim != 1 or treatment.shape != baseline.shape:
        raise ShapeError(
            f"a paired test needs two lists of equal length, not shapes {treatment.shape}, {baseline.shape}"
        )
    difference = treatment - baseline
    mean, low, high = bootstrap_interval(difference, seed, level, resamples)
    return Comparison(float(mean), float(low), float(high), sign_flip_p(difference - null, seed, resamples))


def sign_flip_p(differences: np.ndarray, seed: int = 0, resamples: int = 10_000) -> float:
    """Two-sided p of a mean of zero for paired differences `(n,)` that are symmetric around it.

    All 2^n sign patterns for n <= 16; else `resamples` drawn ones, counted with the observed one, so that p is never 0.
    Below `SMALL` pairs (where 2^n patterns cannot reach small p) Student's t-test on the differences.
    """
    column = _columns(differences)[:, 0]
    n = len(column)
    scale = np.abs(column).max()
    if scale == 0:
        return 1.0
    if n < SMALL:
        spread = column.std(ddof=1)
        if spread <= 1e-12 * scale:
            return 0.0
        t = column.mean() / (spread / np.sqrt(n))
        return float(2 * stats.t.sf(abs(t), n - 1))
    observed = abs(column.sum()) - 1e-12 * scale * n
    if n <= _EXACT_PAIRS:
        patterns = np.arange(2**n, dtype=np.int64)[:, None] >> np.arange(n)
        sums = (1.0 - 2.0 * (patterns & 1)) @ column
        return float((np.abs(sums) >= observed).mean())
    generator = np.random.default_rng(seed)
    reached = 0
    for size in _chunks(resamples, n):
        signs = 1.0 - 2.0 * generator.integers(0, 2, (size, n), dtype=np.int8)
        reached += int((np.abs(signs @ column) >= observed).sum())
    return (reached + 1) / (resamples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values in the given order, each at most 1; holds under any dependence.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(ps, dtype=np.float64)
    if p.ndim != 1 or np.isnan(p).any() or (p < 0).any() or (p > 1).any():
        raise ShapeError(f"p-values lie between 0 and 1, not {list(ps)}")
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    result = np.empty_like(p)
    result[order] = corrected
    return [float(value) for value in result]


def _columns(values: np.ndarray) -> np.ndarray:
    columns = np.asarray(values, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or len(columns) < 2:
        raise ShapeError(f"an interval needs at least 2 values, not an array of shape {np.shape(values)}")
    if not np.isfinite(columns).all():
        raise ShapeError("a value is NaN or infinite: leave out what was not measured, and say how many")
    return columns


def _student_interval(columns: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    n = len(columns)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * columns.std(axis=0, ddof=1) / np.sqrt(n)
    mean = columns.mean(axis=0)
    return mean - half, mean + half


def _chunks(resamples: int, n: int) -> list[int]:
    size = max(1, min(resamples, _CHUNK // n))
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _resampled_means(columns: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of `resamples` draws with replacement: `(resamples, m)`."""
    generator = np.random.default_rng(seed)
    n = len(columns)
    means = []
    for size in _chunks(resamples, n):
        rows = generator.integers(0, n, (size, n))
        means.append(np.stack([columns[:, j][rows].mean(axis=1) for j in range(columns.shape[1])], axis=1))
    return np.concatenate(means)


def _bca(columns: np.ndarray, means: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    observed = columns.mean(axis=0)
    # mid-rank share below the observed mean, so that ties (many equal values) do not push the interval aside
    below = ((means < observed).mean(axis=0) + (means <= observed).mean(axis=0)) / 2
    # leaving one value out moves the mean by (mean - value) / (n - 1): the jackknife in closed form
    influence = columns - observed
    cubes, squares = (influence**3).sum(axis=0), (influence**2).sum(axis=0)
    low, high = observed.copy(), observed.copy()
    for j in range(columns.shape[1]):
        if squares[j] <= 1e-24 * max(1.0, float(observed[j] ** 2)) * len(columns):
            continue
        acceleration = cubes[j] / (6 * squares[j] ** 1.5)
        bias = special.ndtri(np.clip(below[j], 1 / (2 * len(means)), 1 - 1 / (2 * len(means))))
        z = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
        low[j], high[j] = np.quantile(means[:, j], special.ndtr(bias + z / (1 - acceleration * z)))
    return low, high

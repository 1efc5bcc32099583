"""What every `Compressor` must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def check_compressor(
    compressor: Any,
    vectors: np.ndarray | None = None,
    *,
    dimension: int = 32,
    overhead: int = 0,
    scorer_tolerance: float | None = 1e-3,
) -> None:
    """The scikit-learn conventions, the codes and their size, the way back, the scorer, and refusals.

    Args:
        compressor: unfitted; only clones of it are fitted.
        vectors: float32 `(n, d)` to try it on, n >= 64; random ones of `dimension` where None.
        overhead: bytes per vector that it documents beside its codes.
        scorer_tolerance: how far `scorer` may lie from inner products with `inverse_transform(codes)`, as a share of
            the largest score; None where it declares that the two differ (codes compared without the way back).
    """
    from sklearn.base import clone

    if vectors is None:
        vectors = np.random.default_rng(11).standard_normal((400, dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    before = {key: repr(value) for key, value in compressor.get_params().items()}
    fitted = clone(compressor)
    assert {key: repr(value) for key, value in fitted.get_params().items()} == before, "clone loses parameters"
    kept = vectors.copy()
    assert fitted.fit(vectors) is fitted, "fit does not return the estimator"
    assert np.array_equal(vectors, kept), "fit changes the vectors given to it"
    codes = fitted.transform(vectors)
    assert codes.dtype == np.uint8 and codes.ndim == 2, f"codes are {codes.dtype} with {codes.ndim} axes"
    assert len(codes) == len(vectors), f"{len(vectors)} vectors gave {len(codes)} codes"
    size = codes.shape[1] + overhead
    assert fitted.bytes_per_vector == size, f"says {fitted.bytes_per_vector} bytes per vector, takes {size}"
    assert np.array_equal(fitted.transform(vectors), codes), "the same vectors gave other codes the second time"
    order = np.random.default_rng(1).permutation(len(vectors))
    assert np.array_equal(fitted.transform(vectors[order]), codes[order]), "codes depend on the order of the rows"
    assert np.array_equal(fitted.transform(vectors[:1]), codes[:1]), "a vector alone gets another code"
    twin = clone(compressor).fit(vectors)
    assert np.array_equal(twin.transform(vectors), codes), "a second fit on the same vectors gives other codes"
    back = fitted.inverse_transform(codes)
    assert back.dtype == np.float32 and len(back) == len(vectors), f"the way back gives {back.dtype} {back.shape}"
    assert np.isfinite(back).all(), "the way back gives NaN or infinity"
    _check_scorer(fitted, vectors, codes, back, scorer_tolerance)
    spoilt = vectors.copy()
    spoilt[2, 1] = np.nan
    _refuses(lambda: clone(compressor).fit(spoilt), "fit on vectors with NaN")
    _refuses(lambda: fitted.transform(spoilt), "vectors with NaN")
    _refuses(lambda: fitted.transform(vectors[:, :-1]), "vectors of another dimension")
    _refuses(lambda: fitted.scorer(vectors[:2, :-1]), "queries of another dimension")


def _check_scorer(
    fitted: Any, vectors: np.ndarray, codes: np.ndarray, back: np.ndarray, tolerance: float | None
) -> None:
    queries = vectors[:5]
    scores = fitted.scorer(queries)(codes)
    assert scores.shape == (5, len(codes)), f"5 queries and {len(codes)} codes gave scores {scores.shape}"
    assert scores.dtype == np.float32 and np.isfinite(scores).all(), "scores are not finite float32"
    part = fitted.scorer(queries)(codes[3:9])
    assert np.allclose(part, scores[:, 3:9], rtol=1e-5, atol=1e-6), "scores depend on the company of a code"
    if tolerance is None or back.shape[1] != queries.shape[1]:
        return
    expected = queries @ back.T
    gap = float(np.abs(scores - expected).max()) / max(1e-12, float(np.abs(expected).max()))
    assert gap <= tolerance, f"the scorer lies {gap:.2g} of the largest score from scoring the way back"


def _refuses(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what}: not refused with ShapeError or, as scikit-learn's own checks do, ValueError")

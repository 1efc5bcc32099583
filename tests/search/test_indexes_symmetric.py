"""SymmetricIndex: cosines of codes, filters, and codes of an older encoder in the same index."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.compression import RecurrentBinary
from isometry.errors import InputError, ShapeError
from isometry.search.indexes import SymmetricIndex
from isometry.types import Index


def unit(n, d=24, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(("width", "loops"), [(24, 1), (21, 2), (16, 0)])
def test_scores_are_the_cosines_of_the_codes(width, loops):
    x, q = unit(3000), unit(20, seed=1)
    code = RecurrentBinary(width, loops=loops).fit(x)
    index = SymmetricIndex(code, shortlist=400).build(x)
    assert isinstance(index, Index) and len(index) == 3000
    assert code.bytes_per_vector <= index.bytes_in_memory / 3000 < code.bytes_per_vector + 5
    cosines = code.symmetric_scorer(q)(code.transform(x))
    rng = np.random.default_rng(2)
    for allowed in (None, rng.random(3000) < 0.5, rng.random(3000) < 0.02, np.zeros(3000, bool)):
        scores, rows = index.search(q, 10, allowed)
        held = np.arange(3000) if allowed is None else np.flatnonzero(allowed)
        if not len(held):
            assert (rows == -1).all() and np.isneginf(scores).all()
            continue
        np.testing.assert_allclose(scores, np.take_along_axis(cosines, rows, 1), atol=1e-5)
        best = -np.sort(-cosines[:, held], axis=1)[:, :10]
        assert (np.abs(scores - best) < 1e-5).mean() > 0.98 and np.isin(rows, held).all()


def test_older_codes_answer_newer_queries_in_one_index():
    rng = np.random.default_rng(1)
    old_x = unit(1500)
    old_y = old_x + 0.04 * rng.standard_normal(old_x.shape).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((24, 24)))[0].astype(np.float32)
    new_x, new_y = old_x @ turn, old_y @ turn
    settings = {"dimension": 24, "epochs": 6, "batch_size": 250}
    old = RecurrentBinary(**settings).fit(old_x[:1200], old_y[:1200])
    new = RecurrentBinary(**settings, random_state=1).fit_compatible(
        new_x[:1200], new_y[:1200], old, old_x[:1200], old_y[:1200]
    )
    codes = np.concatenate([old.transform(old_y[1200:1350]), new.transform(new_y[1350:])])
    rows = SymmetricIndex(new).build_codes(codes).search(new_x[1200:], 10)[1]
    found = (rows == np.arange(300)[:, None]).any(axis=1)
    assert found[:150].mean() > 0.7 and found[150:].mean() > 0.7


def test_bad_input_is_named():
    code = RecurrentBinary(16).fit(unit(100))
    with pytest.raises(InputError, match="shortlist"):
        SymmetricIndex(code, shortlist=0)
    with pytest.raises(ShapeError, match="reads uint8"):
        SymmetricIndex(code).build_codes(np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match="k is 0"):
        SymmetricIndex(code).build(unit(100)).search(unit(2), 0)
    assert SymmetricIndex(code).search(unit(2), 3)[1].tolist() == [[-1] * 3] * 2

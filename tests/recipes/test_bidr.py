"""Paper 19's recipe: what is served by hand, and a whole tiny proof on real descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.compression import ProductQuantizer
from isometry.recipes.bidr import LEARNT, OPQ, RECIPE, SHORTLIST, _nearest, _reach, _served, measure


def unit(n, d=16, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_shortlist_comes_from_the_codes_and_its_order_from_the_fine_vectors():
    coarse, fine = unit(400), unit(400, seed=1)
    code = ProductQuantizer(4).fit(coarse)
    own = np.arange(20)
    found, per_record = _served(code, coarse[:20], coarse, fine[:20], fine, own)
    near = _nearest(code, coarse[:20], coarse, SHORTLIST)
    scores = fine[:20] @ fine.T
    rank = np.array([(scores[i, near[i]] > scores[i, i]).sum() + 1 if i in near[i] else np.inf for i in own])
    assert found == pytest.approx(np.where(rank <= 10, 1 / rank, 0).mean())
    assert per_record == 4


def test_ties_count_by_half():
    assert _reach(np.array([[1.0, 1, 1, 0]]), np.array([0]), 1) == 0
    assert _reach(np.array([[1.0, 1, 1, 0]]), np.array([0]), 2) == 1


def test_tiny_proof_states_its_claims(shared_data):
    evidence = RECIPE.prove("tiny", data=shared_data)
    assert tuple(line.claim for line in evidence.claims) == RECIPE.claims["tiny"]
    assert all(0 < value <= 1 for line in evidence.claims for row in line.values.values() for value in row)
    assert {LEARNT, OPQ} == set(evidence.claims[0].values)
    assert evidence.measured["bytes_in_memory_per_record"] == 24


@pytest.mark.slow
def test_a_seed_repeats(shared_data):
    once, again = (measure("tiny", [4], shared_data, None).values for _ in range(2))
    assert once == again

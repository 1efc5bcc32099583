"""Paper 18's recipe: its recall by hand, and a whole tiny proof on real descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.recipes.bebr import BEBR, CLAIMS, FLOAT, HASH, LONE, METRIC, NEW, RECIPE, _hits, measure


def test_recall_counts_ties_by_half():
    scores = np.array([[1.0, 2, 0], [0, 1, 1], [3, 3, 3]])
    assert _hits(scores, np.arange(3), 1).tolist() == [0, 1, 0]
    assert _hits(scores, np.arange(3), 2).tolist() == [1, 1, 1]


def test_tiny_proof_states_every_claim(shared_data):
    evidence = RECIPE.prove("tiny", data=shared_data)
    assert tuple(line.claim for line in evidence.claims) == CLAIMS
    for line in evidence.claims:
        assert all(0 <= value <= 1 for values in line.values.values() for value in values)
    assert len(set(evidence.claims[0].values[BEBR])) > 1
    across = evidence.claims[4]
    assert max(across.values[LONE]) < min(across.values[NEW])
    gains = [evidence.measured[f"gain_over_queries_{end}: {BEBR} − {HASH}"] for end in ("low", "high")]
    assert gains[0] <= evidence.claims[0].effect <= gains[1]
    assert 0 < evidence.measured[f"recall_{FLOAT}"] <= 1


@pytest.mark.slow
def test_a_seed_repeats(shared_data):
    once, again = (measure("tiny", [5], shared_data, None).values[METRIC] for _ in range(2))
    assert once == again

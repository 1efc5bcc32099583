"""Paper 18's recipe: its recall by hand, and a whole tiny proof on real descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.recipes.bebr import BEBR, CLAIM, FLOAT, RECIPE, _recall


def test_recall_counts_ties_by_half():
    scores = np.array([[1.0, 2, 0], [0, 1, 1], [3, 3, 3]])
    assert _recall(scores, 1) == pytest.approx(1 / 3)
    assert _recall(scores, 2) == 1.0


@pytest.mark.slow
def test_tiny_proof_states_every_claim(shared_data):
    evidence = RECIPE.prove("tiny", data=shared_data)
    assert [line.claim for line in evidence.claims] == list(CLAIM)
    for line in evidence.claims:
        assert all(0 < value <= 1 for values in line.values.values() for value in values)
    assert evidence.claims[2].values[FLOAT] == [evidence.claims[2].values[FLOAT][0]] * 3
    assert len(set(evidence.claims[0].values[BEBR])) > 1

"""Paper 32's recipe: the order of one search per query vector by hand, and a whole tiny proof on real papers."""

from __future__ import annotations

import numpy as np

from isometry.recipes.muvera import (
    CLAIMS,
    FDE,
    HELD,
    HEURISTIC,
    MEAN,
    NEEDED,
    RECIPE,
    UNFILLED,
    _ranks,
    first_met,
    measure,
)


def test_searches_take_turns():
    """Two query vectors, three documents of 2, 1 and 2 vectors."""
    products = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9], [0.2, 0.3]])
    # first query vector meets 0 0 1 2 2, the second 2 1 2 0 0: steps 0 2 4 6 8 and 1 3 5 7 9
    np.testing.assert_array_equal(first_met(products, np.array([0, 2, 3, 5])), [0, 3, 1])


def test_ties_count_against_a_system():
    held = np.eye(4)
    assert _ranks(np.array([[3.0, 2, 2, 1]]), held, np.array([[0, 1, 2, 3]])).tolist() == [0, 2, 2, 3]


def test_tiny_proof_states_its_claims(shared_data):
    evidence = RECIPE.prove("tiny", data=shared_data)
    assert tuple(line.claim for line in evidence.claims) == CLAIMS["tiny"]
    needed, held = (line.values for line in evidence.claims)
    assert all(0 <= value <= np.log2(160) for name in (FDE, HEURISTIC) for value in needed[name])
    assert all(0 < value <= 1 for name in (FDE, UNFILLED) for value in held[name])
    assert held[FDE] != held[UNFILLED] and len(set(held[FDE])) > 1


def test_a_seed_repeats(shared_data):
    once, again = (measure("tiny", [4], shared_data, None).values for _ in range(2))
    assert once == again and set(once[NEEDED]) == set(once[HELD]) >= {FDE, MEAN}

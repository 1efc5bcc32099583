"""The text recipes prove themselves at the smallest scale."""

from __future__ import annotations

from itertools import chain

import numpy as np

from isometry.recipes import load_recipe
from isometry.recipes._text import batches, reciprocal_ranks


def test_reciprocal_ranks_count_ties_against_the_query():
    documents = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0, 0], [1, 0.5, 0], [0.5, 0.5, 0.5]], dtype=np.float32)
    assert reciprocal_ranks(queries, documents).tolist() == [1.0, 0.5, 1 / 3]


def test_batches_pass_over_all_rows_in_step():
    stream = batches([list(range(6)), list("abcdef")], 3, seed=0)
    numbers, letters = zip(next(stream), next(stream), strict=True)
    assert sorted(chain(*numbers)) == list(range(6))
    assert ["abcdef"[i] for i in chain(*numbers)] == list(chain(*letters))


def test_gistembed_at_the_smallest_scale(shared_data):
    evidence = load_recipe("gistembed").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 55 and len(line.values[line.claim.treatment]) == 3
    assert evidence.measured["guide_mrr"] > evidence.measured["untrained_student_mrr"] > 0.3
    assert evidence.measured["removed_that_are_duplicates_share"] > 0.8
    assert evidence.verdict in ("supports", "inconclusive")

"""The text recipes prove themselves at the smallest scale."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from isometry.errors import InputError
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


def test_the_full_scale_is_a_training():
    with pytest.raises(InputError, match="'isometry train starbucks --scale full'"):
        load_recipe("starbucks").prove("full")


def test_gistembed_at_the_smallest_scale(shared_data):
    evidence = load_recipe("gistembed").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 55 and len(line.values[line.claim.treatment]) == 3
    assert evidence.measured["guide_mrr"] > evidence.measured["untrained_student_mrr"] > 0.3
    assert evidence.measured["removed_that_are_duplicates_share"] > 0.8
    assert evidence.verdict in ("supports", "inconclusive")


def test_2dmse_at_the_smallest_scale(shared_data):
    evidence = load_recipe("2dmse").prove("tiny", data=shared_data)
    assert evidence.paper == 23 and len(evidence.claims) == 1
    assert 0.3 < evidence.measured["untrained_mrr_mean_over_grid"] < evidence.measured["untrained_mrr_full_size"] < 1


def test_starbucks_at_the_smallest_scale(shared_data):
    evidence = load_recipe("starbucks").prove("tiny", data=shared_data)
    trained, faster = evidence.claims
    assert evidence.paper == 3 and 0.3 < trained.values["cut, untrained"][0] < 1
    assert faster.claim.metric.startswith("log2") and len(faster.values["whole model"]) == 3


def test_self_positioning_at_the_smallest_scale(shared_data):
    evidence = load_recipe("self-positioning").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 10 and 0.3 < min(line.values["self positioning"]) < 1
    assert (
        evidence.measured["task_vector_length_graded"] > 0 and 0 < evidence.measured["share_of_descriptions_found"] < 1
    )


def test_pooling_at_the_smallest_scale(shared_data):
    evidence = load_recipe("pooling").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 2 and 0.3 < min(line.values["last token and head"]) < 1
    assert len(set(line.values["attention over all layers"])) == 3


def test_lg_anna_at_the_smallest_scale(shared_data):
    evidence = load_recipe("lg-anna").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 42 and line.effect > 0
    assert evidence.measured["teacher_ndcg"] > evidence.measured["untrained_student_ndcg"] > 0.4


def test_kalm_at_the_smallest_scale(shared_data):
    evidence = load_recipe("kalm").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 6 and line.values["four in ten"] == [0.4]
    assert all(0.4 < share <= 1 for share in line.values["consistency filter"])


def test_sitemb_at_the_smallest_scale(shared_data):
    evidence = load_recipe("sitemb").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 48 and 0.3 < min(line.values["situated, trained"]) <= 1
    assert evidence.measured["trained_share_of_the_context_articles"] != 0.3


def test_nv_embed_at_the_smallest_scale(shared_data):
    evidence = load_recipe("nv-embed").prove("tiny", data=shared_data)
    (line,) = evidence.claims
    assert evidence.paper == 5 and 0.5 < min(line.values["in-batch negatives off"]) < 1
    assert evidence.measured["untrained_probe_accuracy"] > 0.5

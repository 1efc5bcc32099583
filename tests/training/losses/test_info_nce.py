from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from isometry.errors import InputError
from isometry.training.losses import InfoNCE, duplicate_keys
from isometry.training.margins import MarginRule
from tests.reference.contrastive import guided, info_nce
from tests.tiny_text import sentences, tiny_model

ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
GIST = ("query_to_doc", "query_to_query", "doc_to_doc")


def columns(count, b=5, d=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, d, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


def same_with_gradients(loss, plain, parts):
    torch.testing.assert_close(loss, plain)
    ours = torch.autograd.grad(loss, parts, materialize_grads=True)
    theirs = torch.autograd.grad(plain, parts, materialize_grads=True)
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 4),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(["own", "shared"]),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.integers(0, 99),
)
def test_value_and_gradient_against_the_equation(count, b, in_batch, hard, gamma, seed):
    parts = columns(count, b=b, seed=seed)
    loss = InfoNCE(temperature=0.2, in_batch=in_batch, hard=hard, focal=gamma)
    plain = info_nce(parts, 0.2, in_batch, hard, gamma)
    same_with_gradients(loss.compute_loss_from_embeddings(parts), plain, parts)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_defaults_are_multiple_negatives_ranking(count):
    parts = columns(count)
    theirs = MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings(parts, None)
    same_with_gradients(InfoNCE(temperature=0.05).compute_loss_from_embeddings(parts), theirs, parts)


@pytest.mark.parametrize(
    ("directions", "partition"),
    [
        (("query_to_doc", "query_to_query"), "joint"),
        (("query_to_doc", "doc_to_doc"), "joint"),
        (("query_to_doc", "doc_to_query"), "per_direction"),
    ],
)
def test_directions_are_those_of_sentence_transformers(directions, partition):
    parts = columns(2)
    theirs = MultipleNegativesRankingLoss(None, scale=5.0, directions=directions, partition_mode=partition)
    ours = InfoNCE(temperature=0.2, directions=directions, partition=partition)
    same_with_gradients(
        ours.compute_loss_from_embeddings(parts), theirs.compute_loss_from_embeddings(parts, None), parts
    )


def test_one_pair_alone_costs_nothing():
    for directions in (("query_to_doc",), ALL):
        assert InfoNCE(directions=directions).compute_loss_from_embeddings(columns(2, b=1)).item() == 0.0


def test_without_in_batch_negatives_rows_do_not_touch_each_other():
    parts = columns(4)
    loss = InfoNCE(in_batch=False, hard="own").compute_loss_from_embeddings(parts)
    alone = InfoNCE(in_batch=False, hard="own").compute_loss_from_embeddings([part[2:3] for part in parts])
    whole = torch.autograd.grad(loss, parts)
    single = torch.autograd.grad(alone, parts)
    for left, right in zip(whole, single, strict=True):
        torch.testing.assert_close(left[2] * 5, right[2])


def test_order_of_the_batch_does_not_matter():
    parts = columns(3)
    order = torch.randperm(5)
    loss = InfoNCE(directions=ALL)
    torch.testing.assert_close(
        loss.compute_loss_from_embeddings(parts), loss.compute_loss_from_embeddings([part[order] for part in parts])
    )


def test_focal_hand_value():
    query = torch.eye(2)[:1]
    loss = InfoNCE(temperature=1.0, focal=0.5).compute_loss_from_embeddings([query, query, query])
    assert loss.item() == pytest.approx(0.5**0.5 * math.log(2))


def test_focal_gradient_and_normalisation_are_options():
    parts = columns(3)
    constant = InfoNCE(temperature=0.5, focal=1.0).compute_loss_from_embeddings(parts)
    literal = InfoNCE(temperature=0.5, focal=1.0, focal_gradient=True).compute_loss_from_embeddings(parts)
    torch.testing.assert_close(constant, literal)
    first, second = (torch.autograd.grad(loss, parts[0])[0] for loss in (constant, literal))
    assert not torch.allclose(first, second)
    p = [part[:1] for part in parts]
    one_row = InfoNCE(temperature=0.5, focal=1.0, focal_normalise=True).compute_loss_from_embeddings(p)
    torch.testing.assert_close(one_row, InfoNCE(temperature=0.5).compute_loss_from_embeddings(p))


# --- masks


def test_all_equal_items_cost_the_log_of_what_is_kept():
    ones = [torch.ones(2, 3) for _ in range(2)]
    kept = InfoNCE(directions=GIST).compute_loss_from_embeddings(ones)
    assert kept.item() == pytest.approx(math.log(4))  # positive, other positive, other query, positive-positive
    keys = [torch.tensor([0, 1]), torch.tensor([2, 2])]
    masked = InfoNCE(directions=GIST).compute_loss_from_embeddings(ones, keys=keys)
    assert masked.item() == pytest.approx(0.0)


def test_duplicates_and_known_positives_leave_the_denominator():
    parts = columns(3, b=3)
    loss = InfoNCE(temperature=0.3)
    keys = [torch.tensor([0, 0, 1]), torch.tensor([2, 3, 4]), torch.tensor([5, 6, 4])]
    value = loss.compute_loss_from_embeddings(parts, keys=keys)
    q, p, n = [torch.nn.functional.normalize(part, dim=-1) for part in parts]
    rows = []
    allowed = {
        0: [("p", 0), ("p", 2), ("n", 0), ("n", 1), ("n", 2)],
        1: [("p", 1), ("p", 2), ("n", 0), ("n", 1), ("n", 2)],
    }
    allowed[2] = [("p", 0), ("p", 1), ("p", 2), ("n", 0), ("n", 1)]
    for i, items in allowed.items():
        scores = torch.stack([q[i] @ (p if kind == "p" else n)[j] / 0.3 for kind, j in items])
        rows.append(torch.logsumexp(scores, 0) - q[i] @ p[i] / 0.3)
    torch.testing.assert_close(value, torch.stack(rows).mean())
    assert loss.masked["query_to_doc"] == pytest.approx(3 / 15)


def test_groups_are_never_negatives_of_each_other():
    parts = columns(2, b=4)
    labels = torch.tensor([7, 7, 7, 7])
    loss = InfoNCE(labels="groups", directions=ALL)
    assert loss.compute_loss_from_embeddings(parts, labels).item() == 0.0
    two = torch.tensor([0, 0, 1, 1])
    value = InfoNCE(labels="groups").compute_loss_from_embeddings(parts, two)
    q, p = [torch.nn.functional.normalize(part, dim=-1) for part in parts]
    scores = q @ p.T / 0.05
    scores[0, 1] = scores[1, 0] = scores[2, 3] = scores[3, 2] = -torch.inf
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(scores, torch.arange(4)))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 3), st.integers(1, 6), st.sampled_from([0.0, 0.1, -0.1]), st.integers(0, 99))
def test_guided_against_the_equation(count, b, margin, seed):
    parts, guides = columns(count, b=b, seed=seed), columns(count, b=b, d=4, seed=seed + 1000)
    loss = InfoNCE(temperature=0.2, directions=GIST, guide_margin=MarginRule("absolute", margin))
    value = loss.compute_loss_from_embeddings(parts, guide=[g.detach() for g in guides])
    same_with_gradients(value, guided(parts, guides, 0.2, margin), parts)


def test_guide_agrees_with_sentence_transformers_where_it_is_right(tmp_path):
    student, teacher = tiny_model(tmp_path, seed=1), tiny_model(tmp_path, seed=2)
    features = [student.preprocess(sentences(6, seed=s)) for s in (0, 1)]
    theirs = GISTEmbedLoss(student, teacher, temperature=0.1)([dict(f) for f in features], None)
    directions = ("query_to_doc", "query_to_query", "doc_to_doc")
    ours = InfoNCE(student, 0.1, directions=directions, guide=teacher)([dict(f) for f in features], None)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert all(not name.startswith("_guide") for name, _ in InfoNCE(student, guide=teacher).named_parameters())


def test_self_pairs_never_count_even_with_a_negative_margin():
    """The published loss keeps a row's own query as its negative when the margin lifts the threshold above 1."""
    vectors = [torch.eye(2) for _ in range(2)]
    guides = [torch.eye(2), torch.tensor([[0.979, 0.2], [0.4, 0.912]])]
    loss = InfoNCE(temperature=0.01, directions=GIST, guide_margin=MarginRule("absolute", -0.1))
    assert loss.compute_loss_from_embeddings(vectors, guide=guides).item() == pytest.approx(0.0, abs=1e-6)


def test_perfect_and_blind_guides():
    parts = columns(2, b=4)
    classes = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    loss = InfoNCE(directions=GIST)
    blind = loss.compute_loss_from_embeddings(parts, guide=[torch.ones(4, 2), torch.ones(4, 2)])
    torch.testing.assert_close(blind, loss.compute_loss_from_embeddings(parts))
    strict = InfoNCE(directions=GIST, guide_margin=MarginRule("absolute", 0.5))
    perfect = strict.compute_loss_from_embeddings(parts, guide=[classes, classes])
    groups = InfoNCE(directions=GIST, labels="groups").compute_loss_from_embeddings(parts, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(perfect, groups)


def test_everything_masked_costs_nothing_and_has_finite_gradients():
    parts = columns(3)
    strict = InfoNCE(guide_margin=MarginRule("absolute", 9.0))
    loss = strict.compute_loss_from_embeddings(parts, guide=[torch.ones(5, 2)] * 3)
    assert loss.item() == 0.0
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, parts[:2]))


def test_a_larger_margin_masks_more():
    guides = [g.detach() for g in columns(2, d=4)]
    parts = columns(2)
    masked = []
    for margin in (-0.3, 0.0, 0.2, 0.6):
        loss = InfoNCE(guide_margin=MarginRule("absolute", margin))
        loss.compute_loss_from_embeddings(parts, guide=guides)
        masked.append(loss.masked["query_to_doc"])
    assert masked == sorted(masked) and masked[0] < masked[-1]


def test_guide_vectors_made_beforehand_are_the_same(tmp_path):
    from datasets import Dataset

    from isometry.training.losses import add_guide_vectors

    student, teacher = tiny_model(tmp_path, seed=1), tiny_model(tmp_path, seed=2)
    texts = {"anchor": sentences(4, 0), "positive": sentences(4, 1)}
    data = add_guide_vectors(Dataset.from_dict(texts), teacher)
    labels = torch.tensor(data["label"])
    assert labels.shape == (4, 2, 32)
    features = [student.preprocess(texts[name]) for name in texts]
    ready = InfoNCE(student, labels="guide")([dict(f) for f in features], labels)
    live = InfoNCE(student, guide=teacher)([dict(f) for f in features])
    torch.testing.assert_close(ready, live, atol=1e-5, rtol=1e-5)


def test_text_keys_see_identical_token_rows_only(bert):
    a = bert.preprocess(["w1 w2", "w3", "w1 w2"])
    b = bert.preprocess(["w3", "w3 w3 w3 w3 w3", "w9"])
    keys = duplicate_keys([a, b])
    assert keys[0][0] == keys[0][2] != keys[0][1]
    assert keys[1][0] == keys[0][1] and keys[1][1] != keys[1][0]


# --- soft labels, mixing, temperature


def test_soft_labels_add_the_divergence():
    parts = columns(3)
    scores = torch.randn(5, 2, dtype=torch.float64)
    hard = InfoNCE(temperature=0.5).compute_loss_from_embeddings(parts)
    both = InfoNCE(temperature=0.5, labels="scores", soft_weight=2.0, teacher_temperature=0.7)
    q, p, n = [torch.nn.functional.normalize(part, dim=-1) for part in parts]
    student = torch.log_softmax(torch.stack([(q * p).sum(-1), (q * n).sum(-1)], 1) / 0.5, -1)
    target = torch.softmax(scores / 0.7, -1)
    divergence = (target * (target.log() - student)).sum(-1).mean()
    same_with_gradients(both.compute_loss_from_embeddings(parts, scores), hard + 2 * divergence, parts)


def test_one_hot_teacher_makes_the_divergence_plain_info_nce():
    parts = columns(4)
    scores = torch.tensor([[1000.0, 0, 0]] * 5, dtype=torch.float64)
    soft = InfoNCE(labels="scores", hard_weight=0.0, soft_weight=1.0)
    plain = InfoNCE(in_batch=False, hard="own")
    torch.testing.assert_close(
        soft.compute_loss_from_embeddings(parts, scores), plain.compute_loss_from_embeddings(parts)
    )


def test_soft_labels_need_scores_of_the_right_shape():
    with pytest.raises(InputError, match="labels='scores'"):
        InfoNCE(soft_weight=1.0)
    loss = InfoNCE(labels="scores", soft_weight=1.0)
    with pytest.raises(InputError, match=r"\(5, 2\)"):
        loss.compute_loss_from_embeddings(columns(3), torch.zeros(5, 3))
    with pytest.raises(InputError, match="no label column"):
        loss.compute_loss_from_embeddings(columns(3))


def test_mixed_negatives_join_the_own_row():
    parts = columns(4)
    torch.manual_seed(3)
    mixed = InfoNCE(in_batch=False, hard="own", mixed_pairs=2, mixed_list=True).compute_loss_from_embeddings(parts)
    plain = InfoNCE(in_batch=False, hard="own").compute_loss_from_embeddings(parts)
    assert mixed > plain
    torch.manual_seed(3)
    again = InfoNCE(in_batch=False, hard="own", mixed_pairs=2, mixed_list=True).compute_loss_from_embeddings(parts)
    assert torch.equal(mixed, again)
    gradients = torch.autograd.grad(mixed, parts)
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)


def test_temperature_can_be_learned_and_is_bounded():
    loss = InfoNCE(temperature=0.07, learn_temperature=True)
    assert loss.temperature == pytest.approx(0.07)
    value = loss.compute_loss_from_embeddings([part.float() for part in columns(2)])
    (gradient,) = torch.autograd.grad(value, [loss.log_scale])
    assert gradient.abs() > 0
    with torch.no_grad():
        loss.log_scale.fill_(50.0)
    assert loss.temperature == pytest.approx(0.01)


# --- with a model


def test_gradient_caching_gives_the_same_loss_and_gradient(bert):
    texts = [sentences(9, seed=s) for s in range(3)]

    def run(loss):
        bert.zero_grad()
        features = [bert.preprocess(column) for column in texts]
        value = loss(features, torch.arange(9))
        value.backward()
        return value.detach(), bert[0].auto_model.encoder.layer[0].attention.self.query.weight.grad.clone()

    options = {"temperature": 0.1, "directions": GIST, "focal": 0.5, "labels": "groups"}
    plain, cached = run(InfoNCE(bert, **options)), run(InfoNCE(bert, **options, mini_batch_size=4))
    torch.testing.assert_close(plain, cached, atol=1e-6, rtol=1e-4)
    theirs = run(CachedMultipleNegativesRankingLoss(bert, scale=10.0, mini_batch_size=4))
    ours = run(InfoNCE(bert, 0.1, mini_batch_size=4))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_fits_into_matryoshka(bert):
    features = [bert.preprocess(sentences(5, seed=s)) for s in range(2)]
    base = InfoNCE(bert, 0.1)
    value = MatryoshkaLoss(bert, base, [32, 8], [1.0, 0.5])([dict(f) for f in features], None)
    vectors = [bert(dict(f))["sentence_embedding"] for f in features]
    short = [column[:, :8] for column in vectors]
    expected = base.compute_loss_from_embeddings(vectors) + 0.5 * base.compute_loss_from_embeddings(short)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


def test_config_can_be_written_as_json(bert):
    import json

    config = InfoNCE(bert, 0.1, guide=bert, learn_temperature=True).get_config_dict()
    assert json.loads(json.dumps(config))["guided"] is True


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"directions": ("query_to_query",)},
        {"directions": ("query_to_doc", "sideways")},
        {"directions": ("query_to_doc", "doc_to_doc"), "partition": "per_direction"},
        {"directions": ("query_to_doc", "doc_to_doc"), "in_batch": False},
    ],
)
def test_bad_settings(options):
    with pytest.raises(InputError):
        InfoNCE(**options)


def test_one_column_is_refused():
    with pytest.raises(InputError, match="got 1 column"):
        InfoNCE().compute_loss_from_embeddings(columns(1))

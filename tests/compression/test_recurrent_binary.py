"""Recurrent binary codes: levels, packing, distances, gradients and compatible training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isometry.compression import RecurrentBinary, SignBinarizer, load_compressor
from isometry.compression._contrast import CodeQueue, follow, hard_negative_loss, known_positive_loss, sign
from isometry.errors import InputError, ShapeError
from isometry.types import Compressor


def pairs(n=600, d=24, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = x + noise * rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)


def fitted(**changes):
    x, y = pairs()
    return RecurrentBinary(**{"dimension": 16, "hidden": 32, "epochs": 2, "batch_size": 128, **changes}).fit(x, y), x, y


def test_sign_passes_the_gradient_inside_one_only():
    x = torch.tensor([-2.0, -1.0, -0.3, 0.0, 1.0, 1.01], requires_grad=True)
    upstream = torch.arange(1.0, 7.0)
    out = sign(x)
    out.backward(upstream)
    assert out.tolist() == [-1, -1, -1, 1, 1, 1]
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    assert upstream.tolist() == [1, 2, 3, 4, 5, 6]


def test_hard_negative_loss_by_hand():
    a = torch.eye(3)
    b = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    expected = [np.log(1 + np.exp(0.6 - 1)), np.log(1 + np.exp(0.0 - 0.8)), np.log(1 + np.exp(0.0 - 1))]
    got = hard_negative_loss(a, b, torch.arange(3), 1.0, 1)
    assert got.item() == pytest.approx(np.mean(expected), abs=1e-6)
    same = hard_negative_loss(a, b, torch.zeros(3, dtype=torch.long), 1.0, 1)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_negatives_from_the_queue_by_hand():
    a, b = torch.eye(2), torch.tensor([[1.0, 0], [0, 1.0]])
    queue = CodeQueue(2, 2)
    queue.push(torch.tensor([[5.0, 0], [3.0, 4.0], [0, 7.0]]), torch.tensor([7, 8, 1]))
    assert queue.labels.tolist() == [8, 1]
    np.testing.assert_allclose(queue.codes, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    # anchor 0: the hardest is (0.6, 0.8) with 0.6; anchor 1: the same with 0.8, as (0, 1) bears its own label
    got = hard_negative_loss(a, b, torch.arange(2), 0.5, 1, queue)
    expected = [np.log(1 + np.exp((0.6 - 1) / 0.5)), np.log(1 + np.exp((0.8 - 1) / 0.5))]
    assert got.item() == pytest.approx(np.mean(expected), abs=1e-6)
    queue.push(torch.tensor([[-1.0, 0.0]]), torch.tensor([9]))
    assert queue.labels.tolist() == [1, 9] and not queue.codes.requires_grad


def test_the_slow_copy_follows():
    slow, fast = [torch.tensor([1.0, 2.0]), torch.tensor(3)], [torch.tensor([3.0, 2.0]), torch.tensor(9)]
    follow(slow, fast, 0.75)
    assert slow[0].tolist() == [1.5, 2.0] and slow[1].item() == 9


def test_training_with_a_queue_repeats_and_differs():
    x, y = (side[:199] for side in pairs())  # so few that none are held out
    plain, code, again = (
        RecurrentBinary(16, epochs=2, batch_size=64, queue=queue, momentum=0.9).fit(x, y) for queue in (0, 400, 400)
    )
    np.testing.assert_array_equal(code.bits(x), again.bits(x))
    assert (code.bits(x) != plain.bits(x)).any()
    with pytest.raises(InputError, match="momentum"):
        fitted(queue=4, momentum=1.0)


def test_known_positive_loss_never_hides_the_diagonal():
    q, d = torch.eye(2), torch.tensor([[1.0, 0], [0, 1.0], [0.5, 0.5]])
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert known_positive_loss(q, d, everything, 1.0).item() == pytest.approx(0, abs=1e-6)
    none = known_positive_loss(q, d, ~everything, 1.0).item()
    assert none == pytest.approx(np.log(np.e + 1 + np.exp(0.5)) - 1, abs=1e-6)


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("loops", [0, 1, 2])
def test_levels_packing_and_lengths(loops, hidden):
    code, x, _ = fitted(loops=loops, hidden=hidden)
    assert isinstance(code, Compressor)
    b = code.values(x)
    levels = {sum(s * 2.0**-i for i, s in enumerate(signs)) for signs in np.ndindex(*[2] * (loops + 1))}
    levels = {2 * level - sum(2.0**-i for i in range(loops + 1)) for level in levels}
    assert set(np.unique(b)) <= levels
    if loops == 1:
        high = (np.abs(b) == 1.5).sum(axis=1)
        np.testing.assert_allclose((b**2).sum(axis=1), 2.25 * high + 0.25 * (16 - high))
    codes = code.transform(x)
    assert codes.shape == (600, code.bytes_per_vector) and code.bytes_per_vector == (loops + 1) * 2 + 2
    planes, factor = code.planes(codes)
    signs = np.unpackbits(planes, axis=2)[:, :, :16].astype(np.float32) * 2 - 1
    np.testing.assert_array_equal((signs * 2.0 ** -np.arange(loops + 1)[:, None]).sum(axis=1), b)
    length = np.linalg.norm(signs.reshape(600, -1) @ code.decoder_, axis=1)
    np.testing.assert_allclose(factor, np.linalg.norm(x - code.mean_, axis=1) / length, rtol=1e-3)
    decoded = code.inverse_transform(codes) - code.mean_
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), np.linalg.norm(x - code.mean_, axis=1), rtol=2e-3)


def test_cosines_follow_from_bit_counts():
    code, x, _ = fitted(loops=1)
    b, codes = code.values(x), code.transform(x)
    planes, _ = code.planes(codes)
    bits = np.unpackbits(planes, axis=2)[:, :, :16].astype(int)
    inner = np.zeros((5, 600))
    for i in range(2):
        for j in range(2):
            hamming = (bits[:5, None, i] != bits[None, :, j]).sum(axis=2)
            inner += 2.0 ** -(i + j) * (16 - 2 * hamming)
    np.testing.assert_array_equal(inner, b[:5] @ b.T)
    cosine = inner / np.linalg.norm(b[:5], axis=1)[:, None] / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(code.symmetric_scorer(x[:5])(codes), cosine, rtol=2e-3, atol=1e-3)
    plain, x, _ = fitted(loops=0)
    bits = np.unpackbits(plain.planes(plain.transform(x))[0], axis=2)[:, 0, :16]
    hamming = (bits[:5, None] != bits[None]).sum(axis=2)
    np.testing.assert_allclose(plain.symmetric_scorer(x[:5])(plain.transform(x)), 1 - 2 * hamming / 16, atol=1e-3)


def test_table_of_two_bit_groups():
    levels = np.array([-1.5, -0.5, 0.5, 1.5])
    grid = np.array([(a, b) for a in levels for b in levels])
    table = 2 * grid @ grid.T + 9
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(table + table[:, ::-1], np.full((16, 16), 18))
    assert table.min() == 0 and table.max() == 18
    assert [tuple(at) for at in np.argwhere(table == 18)] == [(i, i) for i in (0, 3, 12, 15)]


def test_training_never_ends_below_its_start_on_the_pairs_held_out():
    wild = {"hidden": 0, "optimiser": "sgd", "learning_rate": 1e4}
    code, x, y = fitted(**wild)
    start = fitted(hidden=0, epochs=0)[0]
    np.testing.assert_array_equal(code.bits(x), start.bits(x))
    few, untrained = (RecurrentBinary(16, **{"epochs": 2, **wild, **last}) for last in ({}, {"epochs": 0}))
    few.fit(x[:199], y[:199])
    assert (few.bits(x) != untrained.fit(x[:199], y[:199]).bits(x)).mean() > 0.2
    with pytest.raises(InputError, match="diverged"):
        RecurrentBinary(16, optimiser="sgd", learning_rate=1e36).fit(x[:199], y[:199])


def test_scoring_decoding_and_saving(tmp_path):
    code, x, _ = fitted()
    codes = code.transform(x)
    np.testing.assert_allclose(code.scorer(x[:4])(codes), x[:4] @ code.inverse_transform(codes).T, atol=1e-5)
    code.save(tmp_path / "rb")
    again = load_compressor(tmp_path / "rb")
    np.testing.assert_array_equal(again.transform(x), codes)
    assert [part.shape for part in code.planes(codes[:0])] == [(0, 2, 2), (0,)]
    again_codes = fitted()[0].transform(x)
    np.testing.assert_array_equal(again_codes, codes)


def test_folded_network_equals_the_trained_one():
    from isometry.compression.recurrent_binary import _Network

    x, _ = pairs()
    head = RecurrentBinary(16, hidden=32, blocks=2, loops=2, sweeps=0).fit(x)
    network = _Network(head, 24, 16)
    torch.manual_seed(0)
    for block in network.blocks.values():
        torch.nn.init.normal_(block[-1].weight, std=0.3)
    network(torch.from_numpy(x))
    network.blocks.eval()
    head.weights_ = network.exported()
    np.testing.assert_array_equal(head.values(x), network(torch.from_numpy(x)).detach().numpy())


def test_without_partners_it_is_the_closed_form():
    x, _ = pairs(2000, 24, 0.3)
    head = RecurrentBinary(8, loops=2, sweeps=0).fit(x)
    signs = head.bits(x)
    rest, known = x, np.empty((2000, 0), np.float32)
    for plane in range(3):
        name = "w" if plane == 0 else f"r{plane - 1}"
        weight, bias = head.weights_[f"{name}.straight.weight"], head.weights_[f"{name}.straight.bias"]
        values = rest @ weight.T + bias
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=2e-3)
        np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-3)
        clear = np.abs(values) > 1e-2
        np.testing.assert_array_equal(np.sign(values)[clear], signs[:, plane][clear])
        known = np.concatenate([known, signs[:, plane]], axis=1)
        if plane < 2:
            back = np.linalg.lstsq(known, x - x.mean(axis=0), rcond=None)[0]
            f = known @ back + x.mean(axis=0)
            rest = x - f / np.linalg.norm(f, axis=1, keepdims=True)
            kept = head.weights_[f"b{plane}.straight.weight"].T
            np.testing.assert_allclose(kept, back, atol=2e-3)
    # more bits or more loops come nearer
    error = [
        ((h.inverse_transform(h.transform(x)) - x) ** 2).sum()
        for h in (RecurrentBinary(8, loops=u).fit(x) for u in (0, 1, 2, 3))
    ]
    assert (np.diff(error) < 0).all()


def test_at_equal_bytes_closer_to_the_floats_than_random_signs():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((3000, 64)) * np.geomspace(1, 0.05, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    true = np.argsort(-(x[:100] @ x[100:].T), axis=1)[:, :10]
    found = []
    for code in (RecurrentBinary(24, loops=1).fit(x[100:]), SignBinarizer(64).fit(x[100:])):
        top = np.argsort(-code.scorer(x[:100])(code.transform(x[100:])), axis=1)[:, :10]
        found.append(np.mean([len(np.intersect1d(a, b)) for a, b in zip(top, true, strict=True)]) / 10)
        assert code.bytes_per_vector == 8
    assert found[0] > found[1] + 0.05


def test_flipping_ends_where_no_single_bit_helps():
    x, _ = pairs(300, 12)
    head = RecurrentBinary(10, loops=1, sweeps=50).fit(x)
    signs = head.bits(x).reshape(300, -1)
    rest = x - head.mean_ - signs @ head.decoder_
    before = RecurrentBinary(10, loops=1, sweeps=0).fit(x)
    assert (rest**2).sum() < 0.9 * ((x - head.mean_ - before.bits(x).reshape(300, -1) @ before.decoder_) ** 2).sum()
    for j in range(20):
        flipped = rest + 2 * signs[:, j : j + 1] * head.decoder_[j]
        assert ((flipped**2).sum(axis=1) >= (rest**2).sum(axis=1) - 1e-5).all()
    np.testing.assert_array_equal(head.bits(x[7:8])[0], head.bits(x)[7])


@pytest.mark.parametrize(("n", "d", "m"), [(1, 5, 5), (2, 3, 7), (40, 9, 20)])
def test_few_rows_constant_columns_and_duplicates(n, d, m):
    x = np.ones((n, d), np.float32)
    x[:, 0] = np.arange(n) // 2
    for loops in (0, 1, 3):
        code = RecurrentBinary(m, loops=loops).fit(x)
        codes = code.transform(np.concatenate([x, np.zeros((1, d), np.float32)]))
        assert codes.shape == (n + 1, (loops + 1) * -(-m // 8) + 2)
        assert np.isfinite(code.inverse_transform(codes)).all() and np.isfinite(code.scorer(x)(codes)).all()
        if n > 1:
            np.testing.assert_array_equal(codes[0], codes[1])


def recall(scores, n=10):
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return (rank < n).mean()


def test_training_beats_untrained_signs_at_equal_bits():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((8, 64)).astype(np.float32)
    clean = rng.standard_normal((3000, 8)).astype(np.float32) @ mix
    x, y = (clean + 3 * rng.standard_normal((3000, 64)).astype(np.float32) for _ in range(2))
    learnt = RecurrentBinary(16, loops=1, hidden=64, epochs=8, batch_size=256).fit(x[:2500], y[:2500])
    plain = SignBinarizer(32).fit(y[:2500])
    scores = [e.symmetric_scorer(x[2500:])(e.transform(y[2500:])) for e in (learnt,)]
    signs = [np.unpackbits(plain.transform(v[2500:]), axis=1).astype(float) * 2 - 1 for v in (x, y)]
    assert recall(scores[0]) > recall(signs[0] @ signs[1].T) + 0.05


def test_compatible_codes_are_searchable_beside_the_old_ones():
    rng = np.random.default_rng(1)
    old_x, old_y = pairs(1500, 24, 0.2)
    turn = np.linalg.qr(rng.standard_normal((24, 24)))[0].astype(np.float32)
    new_x, new_y = old_x @ turn, old_y @ turn
    settings = {"dimension": 24, "hidden": 64, "epochs": 6, "batch_size": 250}
    old = RecurrentBinary(**settings).fit(old_x[:1250], old_y[:1250])
    alone = RecurrentBinary(**settings, random_state=1).fit(new_x[:1250], new_y[:1250])
    together = RecurrentBinary(**settings, random_state=1).fit_compatible(
        new_x[:1250], new_y[:1250], old, old_x[:1250], old_y[:1250]
    )
    index = old.transform(old_y[1250:])
    across = [recall(e.symmetric_scorer(new_x[1250:])(index)) for e in (alone, together)]
    assert across[0] < 0.2 and across[1] > 0.7
    with pytest.raises(InputError, match="at least 24"):
        RecurrentBinary(8).fit_compatible(new_x, new_y, old, old_x, old_y)
    with pytest.raises(ShapeError, match="older embeddings"):
        RecurrentBinary(24).fit_compatible(new_x, new_y, old, old_x[:3], old_y)


def test_bad_input_is_named():
    x, y = pairs(50)
    with pytest.raises(InputError, match="too few"):
        RecurrentBinary().fit(x[:2], y[:2])
    with pytest.raises(ShapeError, match="pair by pair"):
        RecurrentBinary().fit(x, y[:, :3])
    with pytest.raises(ShapeError, match="labels"):
        RecurrentBinary().fit(x, y, labels=np.arange(3))
    with pytest.raises(InputError, match="optimiser"):
        RecurrentBinary(optimiser="adam").fit(x, y)
    with pytest.raises(ValueError, match="NaN"):
        RecurrentBinary().fit(np.full_like(x, np.nan), y)

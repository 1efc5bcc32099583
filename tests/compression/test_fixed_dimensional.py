"""Fixed dimensional encodings: the closed forms of paper 32's note, both conventions, and a plain reference."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest

from isometry.compression import FixedDimensionalEncoding, load_compressor
from isometry.compression.fixed_dimensional import gray_code, gray_rank
from isometry.errors import InputError, ShapeError


def tokens(counts, d=24, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((sum(counts), d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.concatenate([[0], np.cumsum(counts)])


def reference(encoding, x, documents):
    """One item, written from the description: bucket, project, sum or mean, fill."""
    blocks = []
    for r in range(encoding.repetitions):
        small = x if encoding.projections_ is None else x @ encoding.projections_[r]
        ids = ((x @ encoding.directions_[r] > 0) << np.arange(encoding.k_sim)).sum(axis=1)
        rows = np.zeros((2**encoding.k_sim, small.shape[1]), np.float64)
        for b in range(len(rows)):
            if (ids == b).any():
                rows[b] = small[ids == b].mean(axis=0) if documents else small[ids == b].sum(axis=0)
            elif documents and encoding.fill_empty:
                distance = [((int(used) ^ b).bit_count(), used) for used in np.unique(ids)]
                rows[b] = small[np.flatnonzero(ids == min(distance)[1])[0]]
        gray = encoding.projection == "count_sketch" if encoding.gray is None else encoding.gray
        blocks.append(rows[gray_code(np.arange(len(rows)))] if gray else rows)
    return np.concatenate(blocks).ravel()


@pytest.mark.parametrize("projection", ["dense", "count_sketch"])
@pytest.mark.parametrize("fill", [True, False])
def test_equals_the_plain_reference(projection, fill):
    x, offsets = tokens([5, 1, 0, 40, 3])
    encoding = FixedDimensionalEncoding(4, 6, 3, projection=projection, fill_empty=fill).fit(x)
    for documents in (True, False):
        encode = encoding.encode_documents if documents else encoding.encode_queries
        got = encode(x, offsets)
        assert got.shape == (5, 3 * 16 * 6) and not got[2].any()
        for i in (0, 1, 3, 4):
            part = x[offsets[i] : offsets[i + 1]]
            np.testing.assert_allclose(got[i], reference(encoding, part, documents), atol=1e-5)
            alone = encode(part, np.array([0, len(part)]))
            np.testing.assert_allclose(alone[0], got[i], atol=1e-6)


def chamfer(q, p):
    return (q @ p.T).max(axis=1).sum()


def test_one_bucket_and_one_document_token_is_exact():
    q, p = tokens([6])[0], tokens([1], seed=1)[0]
    encoding = FixedDimensionalEncoding(0, None, 3).fit(q)
    a, b = encoding.encode_queries(q, np.array([0, 6])), encoding.encode_documents(p, np.array([0, 1]))
    np.testing.assert_allclose((a @ b.T).item() / 3, chamfer(q, p), rtol=1e-5)


@pytest.mark.parametrize("k_sim", [1, 3, 6])
def test_single_tokens_meet_in_every_bucket_when_filled(k_sim):
    q, p = tokens([1])[0], tokens([1], seed=1)[0]
    encoding = FixedDimensionalEncoding(k_sim, None, 4).fit(q)
    one = np.array([0, 1])
    np.testing.assert_allclose(
        (encoding.encode_queries(q, one) @ encoding.encode_documents(p, one).T).item() / 4, q[0] @ p[0], rtol=1e-5
    )
    assert np.abs(encoding.encode_documents(p, one).reshape(-1, 24)).max(axis=1).min() > 0


def test_duplicates_order_and_bound():
    q, p = tokens([8])[0], tokens([30], seed=1)[0]
    encoding = FixedDimensionalEncoding(3, None, 5).fit(q)
    document = encoding.encode_documents(p, np.array([0, 30]))
    twice = encoding.encode_documents(np.repeat(p, 2, axis=0), np.array([0, 60]))
    np.testing.assert_allclose(twice, document, atol=1e-6)
    query = encoding.encode_queries(q, np.array([0, 8]))
    np.testing.assert_allclose(
        encoding.encode_queries(np.repeat(q, 2, axis=0), np.array([0, 16])), 2 * query, atol=1e-6
    )
    np.testing.assert_allclose(encoding.encode_queries(q[::-1].copy(), np.array([0, 8])), query, atol=1e-6)
    unfilled = FixedDimensionalEncoding(3, None, 5, fill_empty=False).fit(q)
    mixed = unfilled.encode_documents(p[np.random.default_rng(0).permutation(30)], np.array([0, 30]))
    np.testing.assert_allclose(mixed, unfilled.encode_documents(p, np.array([0, 30])), atol=1e-6)
    assert (query @ document.T).item() / 5 <= chamfer(q, p) + 1e-5


def test_gray_ranks_invert_and_neighbours_differ_in_one_bit():
    for k in range(1, 11):
        codes = np.arange(2**k)
        np.testing.assert_array_equal(gray_rank(gray_code(codes)), codes)
        np.testing.assert_array_equal(gray_code(gray_rank(codes)), codes)
        steps = gray_code(codes)[1:] ^ gray_code(codes)[:-1]
        assert all(int(step).bit_count() == 1 for step in steps)


@pytest.mark.parametrize("projection", ["dense", "count_sketch"])
def test_inner_projection_keeps_inner_products_on_average(projection):
    x = tokens([2])[0]
    encoding = FixedDimensionalEncoding(0, 4, 2000, projection=projection).fit(x)
    products = np.einsum("d,rdp,rep,e->r", x[0], encoding.projections_, encoding.projections_, x[1], optimize=True)
    assert abs(products.mean() - x[0] @ x[1]) < 3 * products.std() / np.sqrt(2000)


def test_final_projection_is_a_signed_sum():
    x, offsets = tokens([7, 9])
    wide = FixedDimensionalEncoding(3, 4, 5, random_state=3).fit(x)
    narrow = FixedDimensionalEncoding(3, 4, 5, final=50, random_state=3).fit(x)
    full, got = wide.encode_documents(x, offsets), narrow.encode_documents(x, offsets)
    expected = np.zeros((2, 50))
    for j in range(full.shape[1]):
        expected[:, narrow.slots_[j]] += full[:, j] * narrow.slot_signs_[j]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_dense_final_projection_keeps_inner_products(tmp_path):
    x, offsets = tokens([7, 9, 4])
    wide = FixedDimensionalEncoding(3, 4, 5, random_state=3).fit(x)
    dense = FixedDimensionalEncoding(3, 4, 5, final=90, final_projection="dense", random_state=3).fit(x)
    full, got = wide.encode_documents(x, offsets), dense.encode_documents(x, offsets)
    signs = np.unpackbits(dense.final_signs_, axis=1, count=90).astype(np.int8) * 2 - 1
    np.testing.assert_allclose(got, full @ signs / np.sqrt(90), atol=1e-4)
    earlier = deepcopy(dense)
    state = {name: value for name, value in vars(dense).items() if isinstance(value, np.ndarray)}
    earlier._restore({**state, "final_signs_": signs})  # as versions before kept them
    assert earlier.encode_documents(x, offsets).tobytes() == got.tobytes()
    products = []
    for seed in range(60):
        one = FixedDimensionalEncoding(3, 4, 5, final=90, final_projection="dense", random_state=seed).fit(x)
        apart = FixedDimensionalEncoding(3, 4, 5, random_state=seed).fit(x)
        pair = [e.encode_queries(x, offsets)[0] @ e.encode_documents(x, offsets)[1] for e in (one, apart)]
        products.append(pair[0] - pair[1])
    assert abs(np.mean(products)) < 3 * np.std(products) / np.sqrt(60)
    dense.save(tmp_path / "fde")
    assert load_compressor(tmp_path / "fde").encode_documents(x, offsets).tobytes() == got.tobytes()
    with pytest.raises(InputError, match="exceeds 1 GiB"):
        FixedDimensionalEncoding(6, 16, 40, final=400_000, final_projection="dense").fit(x)


def test_signs_drawn_in_blocks_are_those_drawn_at_once():
    x, _ = tokens([7])
    drawn = FixedDimensionalEncoding(5, 4, 20, final=37, final_projection="dense", random_state=3).fit(x)
    draw = np.random.default_rng(3)
    draw.standard_normal((20, x.shape[1], 5))
    draw.integers(0, 2, (20, x.shape[1], 4))
    whole = draw.integers(0, 2, (20 * 32 * 4, 37), dtype=np.int8)
    np.testing.assert_array_equal(np.unpackbits(drawn.final_signs_, axis=1, count=37), whole)


def test_same_seed_gives_the_same_bytes_in_another_process_and_after_saving(tmp_path):
    x, offsets = tokens([7, 9])
    encoding = FixedDimensionalEncoding(3, 4, 5, final=64).fit(x)
    expected = encoding.encode_documents(x, offsets).tobytes()
    encoding.save(tmp_path / "fde")
    assert load_compressor(tmp_path / "fde").encode_documents(x, offsets).tobytes() == expected
    np.save(tmp_path / "x.npy", x)
    program = (
        "import numpy as np, sys; from isometry.compression import FixedDimensionalEncoding as F;"
        f"x = np.load({str(tmp_path / 'x.npy')!r});"
        "e = F(3, 4, 5, final=64).fit(x);"
        "sys.stdout.buffer.write(e.encode_documents(x, np.array([0, 7, 16])).tobytes())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == expected


def test_bad_input_is_named():
    x, offsets = tokens([3, 2])
    encoding = FixedDimensionalEncoding().fit(x)
    with pytest.raises(ShapeError, match="offsets must rise"):
        encoding.encode_queries(x, offsets[:-1])
    with pytest.raises(ShapeError, match="expected"):
        encoding.encode_queries(x[:, :5], offsets)
    broken = x.copy()
    broken[4, 1] = np.nan
    with pytest.raises(ShapeError, match="token vector 4"):
        encoding.encode_documents(broken, offsets)
    for wrong in (
        {"k_sim": 21},
        {"projection": "sparse"},
        {"final": 0},
        {"repetitions": 0},
        {"final_projection": "sparse"},
    ):
        with pytest.raises(InputError):
            FixedDimensionalEncoding(**wrong).fit(x)

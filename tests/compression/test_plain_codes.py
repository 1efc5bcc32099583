"""The training-free and faiss codes: exact values, round trips, scikit-learn's own checks, saved form."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from isometry.compression import ProductQuantizer, RaBitQ, ScalarQuantizer, SignBinarizer, Truncate, load_compressor
from isometry.errors import CorruptionError, InputError, NotFoundError, ShapeError
from isometry.types import Compressor

ALL = [
    Truncate(),
    ScalarQuantizer(),
    ScalarQuantizer(4, per_dimension=False, clip=0.01),
    SignBinarizer(),
    SignBinarizer(70, center=False),
    RaBitQ(),
    RaBitQ(3),
    ProductQuantizer(1),
    ProductQuantizer(1, bits=3, rotate=True),
]


def unit(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@parametrize_with_checks(ALL)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: repr(e))
def test_contract(estimator, tmp_path):
    x = unit(600, 24)
    fitted = clone(estimator).fit(x)
    assert isinstance(fitted, Compressor)
    codes = fitted.transform(x)
    assert codes.dtype == np.uint8 and codes.shape == (600, fitted.bytes_per_vector)
    decoded = fitted.inverse_transform(codes)
    assert decoded.dtype == np.float32 and decoded.shape == x.shape
    np.testing.assert_allclose(fitted.scorer(x[:7])(codes), x[:7] @ decoded.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(fitted.transform(x[3:9]), codes[3:9])
    fitted.save(tmp_path / "c")
    again = load_compressor(tmp_path / "c")
    np.testing.assert_array_equal(again.transform(x), codes)
    np.testing.assert_array_equal(again.inverse_transform(codes), decoded)
    assert again.shared_bytes == fitted.shared_bytes and again.get_params() == fitted.get_params()
    with pytest.raises(ShapeError, match="uint8"):
        fitted.inverse_transform(codes[:, :-1])


def test_truncate_keeps_and_renormalises():
    x = np.float32([[3, 4, 12], [0, 0, 1]])
    fitted = Truncate(2).fit(x)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x)), [[0.6, 0.8, 0], [0, 0, 0]], atol=1e-7)
    assert (fitted.bytes_per_vector, Truncate(2, precision="float16").fit(x).bytes_per_vector) == (8, 4)
    for wrong in (Truncate(4), Truncate(0), Truncate(precision="int8")):
        with pytest.raises(InputError):
            wrong.fit(x)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 80), st.integers(1, 33), st.sampled_from([4, 8]), st.booleans(), st.integers(0, 1000))
def test_scalar_error_is_at_most_half_a_step(n, d, bits, per_dimension, seed):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    fitted = ScalarQuantizer(bits, per_dimension=per_dimension).fit(x)
    back = fitted.inverse_transform(fitted.transform(x))
    assert (np.abs(back - x) <= fitted.step_ / 2 + 1e-5).all()
    assert fitted.bytes_per_vector == math.ceil(d * bits / 8)


def test_scalar_levels_are_exact():
    x = np.float32([[0, -1], [15, 1], [3, 0.2]])
    fitted = ScalarQuantizer(4).fit(x)
    assert fitted.transform(x).tolist() == [[0], [15 | 15 << 4], [3 | 9 << 4]]
    assert fitted.shared_bytes == 2 * 2 * 4


def test_sign_bits_are_those_of_the_directions():
    x = unit(50, 16)
    plain = SignBinarizer(center=False, rotate=False).fit(x)
    np.testing.assert_array_equal(plain.transform(x), np.packbits(x >= 0, axis=1))
    assert plain.transform(np.zeros((1, 16), np.float32)).tolist() == [[255, 255]]
    for bits in (5, 16, 40):
        fitted = SignBinarizer(bits).fit(x)
        inner = fitted.directions_.T @ fitted.directions_
        np.testing.assert_allclose(np.diag(inner), 1, atol=1e-5)
        if bits <= 16:
            np.testing.assert_allclose(inner, np.eye(bits), atol=1e-5)
        projected = (x - x.mean(0)) @ fitted.directions_
        clear = np.abs(projected) > 1e-5
        got = np.unpackbits(fitted.transform(x), axis=1, count=bits).astype(bool)
        np.testing.assert_array_equal(got[clear], (projected > 0)[clear])
    with pytest.raises(InputError, match="without rotation"):
        SignBinarizer(8, rotate=False).fit(x)


def test_rabitq_estimates_are_nearly_unbiased_and_counts_its_factors():
    x, q = unit(2000, 64), unit(50, 64, seed=1)
    for bits, size, tolerance in ((1, 8 + 8, 0.1), (4, 32 + 12 + 8, 0.02)):
        fitted = RaBitQ(bits).fit(x)
        error = fitted.scorer(q)(fitted.transform(x)) - q @ x.T
        assert abs(error.mean()) < 1e-3 and error.std() < tolerance
        assert fitted.bytes_per_vector == size
    assert RaBitQ(dimension=16).fit(x).bytes_per_vector == 2 + 8


def test_product_codes_equal_nearest_centroids():
    x = unit(1000, 12)
    fitted = ProductQuantizer(3, bits=4).fit(x)
    distances = ((x.reshape(1000, 3, 1, 4) - fitted.centroids_[None]) ** 2).sum(-1)
    nibbles = np.stack([fitted.transform(x)[:, 0] & 15, fitted.transform(x)[:, 0] >> 4, fitted.transform(x)[:, 1]], 1)
    np.testing.assert_array_equal(nibbles, distances.argmin(-1))
    few = ProductQuantizer(3, bits=8).fit(x[:100])
    np.testing.assert_array_equal(few.inverse_transform(few.transform(x[:100])), x[:100])
    assert few.shared_bytes == 3 * 256 * 4 * 4


def test_learnt_rotation_keeps_inner_products_and_lowers_the_error():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3000, 16)) * np.geomspace(1, 0.02, 16)).astype(np.float32)
    plain, turned = ProductQuantizer(4, bits=4).fit(x), ProductQuantizer(4, bits=4, rotate=True).fit(x)
    np.testing.assert_allclose(turned.rotation_.T @ turned.rotation_, np.eye(16), atol=1e-4)
    error = [((e.inverse_transform(e.transform(x)) - x) ** 2).sum() for e in (plain, turned)]
    assert error[1] < 0.8 * error[0]


def test_saved_form_is_guarded(tmp_path):
    fitted = SignBinarizer().fit(unit(20, 8))
    fitted.save(tmp_path / "c")
    with pytest.raises(InputError, match="there already"):
        fitted.save(tmp_path / "c")
    with pytest.raises(NotFoundError, match=r"manifest.json is missing"):
        load_compressor(tmp_path / "nothing")
    learnt = tmp_path / "c" / "learnt.safetensors"
    good = learnt.read_bytes()
    for at in (0, len(good) // 2, len(good) - 1):
        learnt.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CorruptionError, match="checksum"):
            load_compressor(tmp_path / "c")
    learnt.write_bytes(good)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    for change in ({"part": "os"}, {"format": "other"}, {"parameters": {"sword": 1}}):
        (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(CorruptionError):
            load_compressor(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text("{")
    with pytest.raises(CorruptionError, match="not readable"):
        load_compressor(tmp_path / "c")

"""What encode promises whatever the model: order, iterators, limits, odd texts, wrong input."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from isometry.encoders import load_encoder, sentence_encoder
from isometry.encoders.load import default_folder
from isometry.encoders.tokens import Tokens, clean
from isometry.errors import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(default_folder() / "tokenizer.json"))


def test_order_does_not_matter(exact):
    texts = [f"text number {number} " * (number % 7) for number in range(40)]
    shuffled = np.random.default_rng(3).permutation(40)
    np.testing.assert_allclose(exact.encode([texts[i] for i in shuffled]), exact.encode(texts)[shuffled], atol=2e-6)


def test_windows_and_iterators_change_nothing(exact, monkeypatch):
    texts = [f"window {number}" for number in range(25)]
    whole = exact.encode(texts)
    monkeypatch.setattr(sentence_encoder, "WINDOW", 4)
    for form in (texts, iter(texts), (text for text in texts), pa.array(texts), np.array(texts)):
        np.testing.assert_allclose(exact.encode(form), whole, atol=2e-6)
    np.testing.assert_allclose(np.concatenate(list(exact.encode_stream([texts[:9], texts[9:]]))), whole, atol=2e-6)


def test_an_iterator_is_not_read_ahead(exact, monkeypatch):
    monkeypatch.setattr(sentence_encoder, "WINDOW", 4)
    read, encoded = [], []
    real = exact._engine.vectors
    monkeypatch.setattr(
        exact._engine, "vectors", lambda inputs, *rest: encoded.append(len(inputs)) or real(inputs, *rest)
    )

    def texts():
        for number in range(20):
            assert number - sum(encoded) <= 4
            read.append(number)
            yield f"t {number}"

    assert exact.encode(texts()).shape == (20, 384) and len(read) == 20


def test_truncated_texts_are_counted():
    encoder = load_encoder(precision="float32", layers=1)
    encoder.encode(["short", "word " * 254, "word " * 255, "word " * 300])
    assert (encoder.truncated, encoder.most_tokens_cut) == (2, 46)
    encoder.encode(["word " * 100_000])
    assert encoder.truncated == 3 and encoder.most_tokens_cut == pytest.approx(99_746, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=600), st.integers(1, 8))
def test_cutting_before_tokenizing_keeps_the_tokens(tokenizer, text, times):
    text = text * times
    limit = 6
    ids, _, _ = Tokens(tokenizer, limit)([text])
    full = tokenizer.__class__.from_str(tokenizer.to_str())
    full.no_padding()
    full.enable_truncation(limit)
    assert ids[0].tolist() == full.encode(clean(text)).ids


def test_blanks_before_the_first_word_are_read_through(tokenizer):
    ids, lost, read = Tokens(tokenizer, 16)([" " * 5000 + "graph"])
    assert len(ids[0]) == 3 and lost.tolist() == [0] and len(read[0]) == 5005


def test_surrogates(exact):
    assert clean("\ud83d\ude00") == "😀" and clean("a\ud800b") == "a�b"
    assert np.isfinite(exact.encode(["\udfff", "\ud800 lone"])).all()


def test_one_text_instead_of_a_list(exact):
    for call in (exact.encode, exact.encode_queries, exact.encode_tokens):
        with pytest.raises(InputError, match="list"):
            call("a text")


def test_what_is_no_text_is_named(exact):
    with pytest.raises(InputError, match=r"text 2 is NoneType"):
        exact.encode(["a", None])
    with pytest.raises(InputError, match="takes texts, not images"):
        exact.encode([b"bytes"])
    with pytest.raises(InputError, match="batch_size"):
        exact.encode(["a"], batch_size=0)


def test_bad_requests():
    with pytest.raises(InputError, match="dimensions"):
        load_encoder(dimensions=385)
    with pytest.raises(InputError, match="layers"):
        load_encoder(layers=7)
    with pytest.raises(InputError, match="precision"):
        load_encoder(precision="int4")

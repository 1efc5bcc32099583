"""Sentences: parts that joined are the text, and the closest ones marked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.search.sentences import relevant_sentences, split_sentences
from isometry.types import VectorSets


class Letters:
    """Counts of letters, so that the cosine of two texts can be worked out by hand."""

    def encode(self, texts):
        return np.array([[text.lower().count(letter) for letter in "abcxyz"] for text in texts], np.float32)


class Tokens(Letters):
    def encode(self, texts):
        sets = [np.stack([super(Tokens, self).encode([word])[0] for word in text.split()]) for text in texts]
        return VectorSets(np.concatenate(sets), np.cumsum([0, *map(len, sets)]))


@given(st.text(alphabet=st.sampled_from("abcXYZ .!?…\n()'\"1。é"), max_size=200))
def test_the_parts_joined_are_the_text(text):
    assert "".join(split_sentences(text)) == text


def test_where_sentences_end():
    text = "We follow Smith et al. (2018), i.e. the older way. It works! Does it, in 3.5 ways? “Yes, it does.” And (see Fig. 2) so on"
    assert [part.strip() for part in split_sentences(text)] == [
        "We follow Smith et al. (2018), i.e. the older way. It works!",
        "Does it, in 3.5 ways?",
        "“Yes, it does.”",
        "And (see Fig. 2) so on",
    ]
    assert split_sentences("the first line\nthe second line") == ["the first line\n", "the second line"]
    assert split_sentences("") == []
    for piece in (".", "A. ", ". ", " ", "(", "\n", ".) "):
        assert "".join(split_sentences(piece * 100_000)) == piece * 100_000  # in linear time


@pytest.mark.parametrize("encoder", [Letters(), Tokens()])
def test_the_closest_sentences_are_marked(encoder):
    text = "Xxxx yyyy zzzz. Aaaa aaaa aaaa. Bbbb cccc bbbb. Aaaa aaaa aaab."
    (marked,) = relevant_sentences(encoder, "aaaa", [text])
    assert "".join(one.text for one in marked) == text
    assert [one.relevant for one in marked] == [False, True, False, True]
    assert sum(one.relevant for one in relevant_sentences(encoder, "aaaa", [text], most=1)[0]) == 1
    assert relevant_sentences(encoder, "aaaa", ["Aaaa aaaa aaaa aaaa.", ""]) == [
        [type(marked[0])("Aaaa aaaa aaaa aaaa.", False)],
        [],
    ]
    assert not any(one.relevant for one in relevant_sentences(encoder, "xxxx", ["Aaaa aaaa aaaa. Bbbb bbbb bbbb."])[0])

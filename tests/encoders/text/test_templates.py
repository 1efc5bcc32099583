from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.encoders.text import KALM, NV_EMBED, Example, InContextTemplate, InstructionTemplate
from isometry.errors import InputError

STORE = tuple(Example(f"q{i}", f"p{i}") for i in range(8))


def test_patterns_of_the_papers():
    assert NV_EMBED.query("why", "find facts") == "Instruct: find facts\nQuery: why"
    assert KALM.query("why", "find facts") == "Instruct: find facts \n Query: why"
    assert NV_EMBED.prompt("t") + "x" == NV_EMBED.query("x", "t")


@pytest.mark.parametrize("pattern", ["{text}", "{task} {text} {text}", "{text} {task}", "{task}: {text}."])
def test_bad_patterns(pattern):
    with pytest.raises(InputError):
        InstructionTemplate(pattern)


def test_no_examples_is_the_plain_instruction():
    assert InContextTemplate("find facts").build("why") == NV_EMBED.query("why", "find facts")


def test_examples_come_first_and_the_ending_last():
    template = InContextTemplate("t", ending="</s>")
    assert template.build("why", STORE[:1]) == ("Instruct: t\n<query> q0\n<response> p0\n\nInstruct: t\nQuery: why</s>")


def test_budget_drops_examples_from_the_front_and_never_the_query():
    template = InContextTemplate("t", token_budget=11)
    assert template.build("why", STORE[:3]) == template.build("why", STORE[2:3])
    starved = InContextTemplate("t", token_budget=1, ending="E")
    assert starved.build("why", STORE) == "Instruct: t\nQuery: whyE"


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_own_pair_is_never_shown(seed, own):
    template = InContextTemplate("t", STORE, most=20)
    shown = template.draw(f"q{own}", f"p{own}", random.Random(seed))
    assert STORE[own] not in shown
    assert len(set(shown)) == len(shown) <= 7


def test_zero_examples_are_drawn_too():
    template = InContextTemplate("t", STORE, most=2)
    rng = random.Random(0)
    drawn = {len(template.draw("x", "y", rng)) for _ in range(60)}
    assert drawn == {0, 1, 2}

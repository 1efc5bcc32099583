"""Instruction prompts and in-context example prompts.

Papers 05, 06 (instructions) and 42 (in-context examples). Documents carry no instruction in any of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isometry.errors import InputError


@dataclass(frozen=True)
class InstructionTemplate:
    """How a query is told its task; `pattern` holds the fields {task} and {text} once each, {text} last.

    Raises:
        InputError: a field is missing, doubled, or {text} does not end the pattern.
    """

    pattern: str = "Instruct: {task}\nQuery: {text}"

    def __post_init__(self) -> None:
        if self.pattern.count("{task}") != 1 or self.pattern.count("{text}") != 1:
            raise InputError(f"an instruction pattern holds {{task}} and {{text}} once each: {self.pattern!r}")
        if not self.pattern.endswith("{text}"):
            raise InputError(
                f"an instruction pattern ends with {{text}}, so that the rest is a prompt: {self.pattern!r}"
            )

    def prompt(self, task: str) -> str:
        """What stands in front of the text; give it to sentence-transformers as a prompt."""
        return self.pattern[: -len("{text}")].replace("{task}", task)

    def query(self, text: str, task: str) -> str:
        return self.prompt(task) + text


NV_EMBED = InstructionTemplate("Instruct: {task}\nQuery: {text}")
"""Papers 05, 48."""
KALM = InstructionTemplate("Instruct: {task} \n Query: {text}")
"""Paper 06, with its blanks around the line break."""


@dataclass(frozen=True)
class Example:
    """A query and its positive, shown to the model before the real query."""

    query: str
    response: str


@dataclass(frozen=True)
class InContextTemplate:
    """Queries that carry k worked examples of their task (paper 42, the format of bge-en-icl).

        Instruct: t
        <query> q_1
        <response> p_1

        Instruct: t
        Query: q

    Documents carry nothing. With k = 0 the prompt is the plain instruction and query.

    Args:
        task: the instruction.
        examples: the store to draw from.
        most: the largest k drawn in training (bge-en-icl: 5); k is uniform over 0..most, so zero-shot use survives.
        token_budget: examples are dropped, the first ones first, until the prompt fits; the query is never cut.
        ending: put at the very end (an end-of-sequence token where the tokenizer adds none).
    """

    task: str
    examples: tuple[Example, ...] = ()
    most: int = 5
    token_budget: int = 512
    ending: str = ""

    def build(self, query: str, shown: Sequence[Example] = (), count_tokens: Callable[[str], int] | None = None) -> str:
        """The prompt for one query with these examples; `count_tokens` counts model tokens (default: words)."""
        count = count_tokens or (lambda text: len(text.split()))
        head = f"Instruct: {self.task}\n"
        blocks = [f"{head}<query> {one.query}\n<response> {one.response}\n\n" for one in shown]
        tail = NV_EMBED.query(query, self.task) + self.ending
        while blocks and count("".join(blocks) + tail) > self.token_budget:
            blocks.pop(0)
        return "".join(blocks) + tail

    def draw(self, query: str, positive: str, rng: random.Random) -> tuple[Example, ...]:
        """Examples for one training pair: k in 0..most, and never the pair's own query or positive."""
        k = rng.randint(0, self.most)
        # A few more than k at first: the whole store is looked through only where most of it is the pair itself.
        for count in (min(4 * k + 4, len(self.examples)), len(self.examples)):
            drawn = rng.sample(self.examples, count)
            others = [one for one in drawn if one.query != query and one.response != positive]
            if len(others) >= k:
                break
        return tuple(others[:k])

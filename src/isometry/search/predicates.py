"""A compiled filter as a tree: what SQL says of it, and what can be told from the values of single attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Mark = Literal["=", "!=", "<", "<=", ">", ">=", "in", "between", "null", "not null", "member"]


@dataclass(frozen=True)
class Test:
    """One test of a record, true or not (a test on a missing value is not).

    Attributes:
        sql, parameters: over the aliases r (records) and d (documents).
        documents: whether d is spoken of.
        attribute: SQL of the one attribute, or function of it, that is compared; None where the test is another.
        mark, values: how it is compared, and with what.
    """

    sql: str
    parameters: tuple[Any, ...]
    documents: bool = False
    attribute: str | None = None
    mark: Mark | None = None
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Negated:
    """True where its part is not."""

    part: Node

    @property
    def sql(self) -> str:
        return f"({self.part.sql}) IS NOT TRUE"

    @property
    def parameters(self) -> tuple[Any, ...]:
        return self.part.parameters


@dataclass(frozen=True)
class Joined:
    """True where all ('and') or any ('or') of its parts are."""

    word: Literal["and", "or"]
    parts: tuple[Node, ...]

    @property
    def sql(self) -> str:
        return f"({f' {self.word.upper()} '.join(part.sql for part in self.parts)})"

    @property
    def parameters(self) -> tuple[Any, ...]:
        return tuple(value for part in self.parts for value in part.parameters)


Node = Test | Negated | Joined


def tests(node: Node) -> Iterator[Test]:
    """Every test in a tree, in the order of its parameters."""
    if isinstance(node, Test):
        yield node
    else:
        for part in node.parts if isinstance(node, Joined) else (node.part,):
            yield from tests(part)

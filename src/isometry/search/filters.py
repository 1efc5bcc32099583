"""`where` expressions: a small grammar over attributes, compiled to SQL in which every value is a parameter.

    expression := and ( OR and )*            and := not ( AND not )*         not := [NOT] test
    test       := ( expression )
                | operand  = != <> < <= > >=  operand
                | operand  [NOT] BETWEEN literal AND literal
                | operand  [NOT] IN ( literal, ... )
                | literal  [NOT] IN attribute                    membership in a list, or in a separated text
                | operand  [NOT] LIKE 'pattern'                  % any run, _ one character, case ignored
                | attribute IS [NOT] NULL
                | attribute                                      where it is a boolean
    operand    := attribute | function(attribute) | literal
    function   := year month day lower upper length abs

A date is written '2018-01-31', a time '2018-01-31T12:00' (with Z or +01:00 where it has a zone; UTC otherwise). Where a
day or a month is left out, the first is meant, so `created >= '2018'` begins with that year.
A test on a missing value is false, and NOT turns false into true: `f` and `NOT f` together are all records.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from isometry.errors import FilterError
from isometry.search.predicates import Joined, Mark, Negated, Node, Test, tests
from isometry.search.store.values import Column

MAX_LENGTH = 20_000
MAX_DEPTH = 60
MAX_TESTS = 500
MAX_CALLS = 8
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<word>[^\W\d]\w*(?:\.\w+)*)
    | (?P<mark><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"and", "or", "not", "in", "between", "like", "is", "null", "true", "false", "date"}
_FUNCTIONS = {
    "year": ("int", "CAST(substr({0}, 1, 4) AS INTEGER)"),
    "month": ("int", "CAST(substr({0}, 6, 2) AS INTEGER)"),
    "day": ("int", "CAST(substr({0}, 9, 2) AS INTEGER)"),
    "lower": ("string", "lower({0})"),
    "upper": ("string", "upper({0})"),
    "length": ("int", "length({0})"),
    "abs": ("float", "abs({0})"),
}
_NUMBERS = {"int", "float"}
_DATES = {"date", "timestamp", "time"}
_DAY = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")


@dataclass(frozen=True)
class Filter:
    """A compiled expression: its source, and the tree of its tests; as SQL over the aliases r (records) and d
    (documents), with parameters."""

    source: str
    tree: Node

    @cached_property
    def sql(self) -> str:
        return self.tree.sql

    @cached_property
    def parameters(self) -> tuple[Any, ...]:
        return self.tree.parameters

    @cached_property
    def needs_documents(self) -> bool:
        return any(test.documents for test in tests(self.tree))

    @property
    def tables(self) -> str:
        """The FROM clause that the SQL speaks about."""
        return "records r JOIN documents d ON d.row = r.row" if self.needs_documents else "records r"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class _Operand:
    kind: str
    sql: str
    parameters: tuple[Any, ...]
    column: Column | None
    shown: str
    documents: bool = False

    @property
    def literal(self) -> bool:
        return self.column is None


def compile_filter(source: str, columns: Sequence[Column]) -> Filter:
    """Parse and compile a `where` expression. Raises `FilterError` with the place and the nearest attribute."""
    if not isinstance(source, str) or not source.strip():
        raise FilterError("the filter is empty; leave it out to take every record")
    parser = _Parser(source, columns)
    tree = parser.expression(0)
    token = parser.peek()
    if token.kind != "end":
        raise parser.error(f"nothing was expected after the filter and there is '{token.text}'", token)
    return Filter(source, tree)


def attribute_sql(name: str, columns: Sequence[Column]) -> tuple[str, str, bool]:
    """SQL, kind and whether `documents` is needed, for an attribute or function of one, as facets and sorting use it."""
    parser = _Parser(name, columns)
    operand = parser.operand()
    if operand.literal or parser.peek().kind != "end":
        raise FilterError(f"'{name}' is no attribute; there are: {parser.names()}")
    return operand.sql, operand.kind, operand.documents


class _Parser:
    def __init__(self, source: str, columns: Sequence[Column]) -> None:
        self.source = source
        self.columns = {column.name: column for column in columns}
        self.folded: dict[str, Column] = {}
        for column in columns:
            self.folded.setdefault(column.name.lower(), column)
        if len(source) > MAX_LENGTH:
            raise FilterError(f"the filter has {len(source)} characters and at most {MAX_LENGTH} are taken")
        self.tokens = self._split()
        self.position = self.tests = self.calls = 0

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        end = len(self.source.rstrip())
        while at < end:
            match = _TOKEN.match(self.source, at)
            if match is None or match.end() > len(self.source):
                start = at + len(self.source[at:]) - len(self.source[at:].lstrip())
                if self.source[start] == "'":
                    raise FilterError(f"the text that begins at character {start + 1} has no closing quote")
                raise FilterError(f"'{self.source[start]}' at character {start + 1} has no meaning in a filter")
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "the end", len(self.source))]

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self.position += 1
        return token

    def is_word(self, *words: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind == "word" and token.text.lower() in words

    def accept(self, word: str) -> bool:
        if self.is_word(word) or (self.peek().kind == "mark" and self.peek().text == word):
            self.position += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise self.error(f"'{word}' was expected and there is '{self.peek().text}'", self.peek())

    def error(self, what: str, token: _Token) -> FilterError:
        return FilterError(f"{what} (character {token.at + 1} of the filter {_shorten(self.source)})")

    def names(self) -> str:
        return ", ".join(["id", *self.columns]) or "id"

    # ---- grammar ---------------------------------------------------------------------------------------------------

    def expression(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError(f"the filter nests deeper than {MAX_DEPTH} levels; write it flatter")
        return self._joined("or", depth)

    def _joined(self, word: Literal["and", "or"], depth: int) -> Node:
        part = (lambda: self._joined("and", depth)) if word == "or" else (lambda: self._not(depth))
        parts = [part()]
        while self.accept(word):
            parts.append(part())
        return Joined(word, tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self, depth: int) -> Node:
        turned = False
        while self.accept("not"):
            turned = not turned
        test = self._test(depth)
        return Negated(test) if turned else test

    def _test(self, depth: int) -> Node:
        if self.accept("("):
            inside = self.expression(depth + 1)
            self.expect(")")
            return inside
        self.tests += 1
        if self.tests > MAX_TESTS:
            raise FilterError(
                f"the filter joins more than {MAX_TESTS} tests; write  attribute IN (value, ...)  instead"
            )
        left_token = self.peek()
        left = self.operand()
        if self.accept("is"):
            turned = self.accept("not")
            self.expect("null")
            self._need_attribute(left, left_token)
            sql = f"{left.sql} IS {'NOT ' if turned else ''}NULL"
            return Test(sql, left.parameters, left.documents, left.sql, "not null" if turned else "null")
        turned = self.accept("not")
        if self.accept("in"):
            test = self._in(left, left_token)
        elif self.accept("between"):
            low, high = self._literal_for(left), self._between_high(left)
            test = _on(left, f"{left.sql} BETWEEN ? AND ?", "between", low, high)
        elif self.accept("like"):
            test = self._like(left, left_token)
        elif turned:
            raise self.error("IN, BETWEEN or LIKE was expected after NOT", self.peek())
        elif self.peek().kind == "mark" and self.peek().text in {"=", "==", "!=", "<>", "<", "<=", ">", ">="}:
            test = self._compare(left)
        elif left.kind == "bool" and not left.literal:
            test = replace(_on(left, f"{left.sql} = 1", "=", 1), parameters=left.parameters)
        else:
            raise self.error(
                f"a comparison was expected after '{left.shown}' and there is '{self.peek().text}'", self.peek()
            )
        return Negated(test) if turned else test

    def _compare(self, left: _Operand) -> Test:
        mark: Any = {"==": "=", "<>": "!="}.get(self.peek().text, self.peek().text)
        self.take()
        right_token = self.peek()
        right = self.operand()
        if left.literal and right.literal:
            raise self.error("a comparison needs an attribute on one side", right_token)
        if not left.literal and not right.literal:
            if _family(left.kind) != _family(right.kind):
                raise self.error(
                    f"'{left.shown}' ({left.kind}) and '{right.shown}' ({right.kind}) do not compare", right_token
                )
            parameters, documents = (*left.parameters, *right.parameters), left.documents or right.documents
            return Test(f"{left.sql} {mark} {right.sql}", parameters, documents)
        attribute, literal = (right, left) if left.literal else (left, right)
        value = self._fitting(literal, attribute, right_token)
        if left.literal:
            mark = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(mark, mark)
        return _on(attribute, f"{attribute.sql} {mark} ?", mark, value)

    def _in(self, left: _Operand, token: _Token) -> Test:
        if self.accept("("):
            self._need_attribute(left, token)
            values = [self._literal_for(left)]
            while self.accept(","):
                values.append(self._literal_for(left))
            self.expect(")")
            return _on(left, f"{left.sql} IN ({', '.join('?' * len(values))})", "in", *values)
        if not left.literal:
            raise self.error("a list in brackets was expected after IN, as in  year IN (2018, 2019)", self.peek())
        token = self.peek()
        held = self.operand()
        if held.column is None:
            raise self.error("an attribute was expected after IN, as in  'cs.LG' IN categories", token)
        value = left.parameters[0]
        if held.kind == "list":
            number = int(held.column.sql[1:])
            sql = "EXISTS (SELECT 1 FROM members m WHERE m.column = ? AND m.value = ? AND m.row = r.row)"
            return Test(sql, (number, value), False, held.sql, "member", (value,))
        if held.kind == "string" and isinstance(value, str):
            spaced = f"' ' || replace(replace({held.sql}, ',', ' '), ';', ' ') || ' '"
            return Test(f"instr({spaced}, ' ' || ? || ' ') > 0", (value,), held.documents)
        raise self.error(f"'{held.shown}' ({held.kind}) is no list", token)

    def _like(self, left: _Operand, token: _Token) -> Test:
        self._need_attribute(left, token)
        pattern = self.take()
        if pattern.kind != "string" or left.kind not in {"string", *_DATES}:
            raise self.error("LIKE compares a text attribute with a quoted pattern", pattern)
        text = _unquote(pattern.text)
        if len(text) > 1000 or text.count("%") > 20:
            raise self.error("the LIKE pattern is too long (1,000 characters, 20 of them %)", pattern)
        return Test(f"{left.sql} LIKE ?", (*left.parameters, text), left.documents)

    def _between_high(self, left: _Operand) -> Any:
        self.expect("and")
        return self._literal_for(left)

    def _literal_for(self, attribute: _Operand) -> Any:
        token = self.peek()
        literal = self.operand()
        if not literal.literal:
            raise self.error(f"a value was expected and there is '{token.text}'; texts stand in single quotes", token)
        return self._fitting(literal, attribute, token)

    def _need_attribute(self, operand: _Operand, token: _Token) -> None:
        if operand.literal:
            raise self.error("an attribute was expected before this test", token)

    def operand(self) -> _Operand:
        token = self.take()
        if token.kind == "string":
            return _Operand("string", "?", (_unquote(token.text),), None, token.text)
        if token.kind == "number":
            number: int | float = float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                number = float(number)
            return _Operand("float" if isinstance(number, float) else "int", "?", (number,), None, token.text)
        if token.kind == "quoted":
            return self._attribute(token.text[1:-1].replace('""', '"'), token)
        if token.kind != "word":
            raise self.error(f"an attribute or a value was expected and there is '{token.text}'", token)
        word = token.text.lower()
        if word in {"true", "false"} and token.text not in self.columns:
            return _Operand("bool", "?", (int(word == "true"),), None, token.text)
        if word == "date" and self.peek().kind == "string":
            return self.operand()
        if self.peek().kind == "mark" and self.peek().text == "(" and token.text not in self.columns:
            return self._function(word, token)
        if word in _KEYWORDS and token.text not in self.columns:
            raise self.error(f"an attribute or a value was expected and there is '{token.text}'", token)
        return self._attribute(token.text, token)

    def _function(self, word: str, token: _Token) -> _Operand:
        if word not in _FUNCTIONS:
            raise self.error(f"'{token.text}' is no function here; there are: {', '.join(_FUNCTIONS)}", token)
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise self.error(f"functions nest deeper than {MAX_CALLS} calls", token)
        self.expect("(")
        inner_token = self.peek()
        inner = self.operand()
        self.expect(")")
        self.calls -= 1
        self._need_attribute(inner, inner_token)
        if word in {"year", "month", "day"} and inner.kind not in {"date", "timestamp", "string"}:
            raise self.error(f"{word}() takes a date and '{inner.shown}' is {inner.kind}", inner_token)
        if word == "abs" and inner.kind not in _NUMBERS:
            raise self.error(f"abs() takes a number and '{inner.shown}' is {inner.kind}", inner_token)
        if word in {"lower", "upper", "length"} and inner.kind != "string":
            raise self.error(f"{word}() takes a text and '{inner.shown}' is {inner.kind}", inner_token)
        kind, form = _FUNCTIONS[word]
        kind = inner.kind if word == "abs" else kind
        return _Operand(kind, form.format(inner.sql), (), inner.column, f"{word}({inner.shown})", inner.documents)

    def _attribute(self, name: str, token: _Token) -> _Operand:
        if name == "id" and "id" not in self.columns:
            return _Operand("string", "r.id", (), Column("id", "string", "attribute", "id", _STRING), "id")
        column = self.columns.get(name) or self.folded.get(name.lower())
        if column is None and name.lower() in {"year", "month", "day"}:
            dated = [one for one in self.columns.values() if one.kind in {"date", "timestamp"}]
            dated += [one for one in self.columns.values() if one.kind == "string" and one.name in _DATE_NAMES]
            if dated:
                kind, form = _FUNCTIONS[name.lower()]
                inner = self._attribute(dated[0].name, token)
                return _Operand(
                    kind, form.format(inner.sql), (), inner.column, f"{name}({inner.shown})", inner.documents
                )
        if column is None:
            near = difflib.get_close_matches(name, ["id", *self.columns], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {self.names()}"
            quoted = "; texts stand in single quotes" if token.kind == "quoted" else ""
            raise self.error(f"no attribute '{name}'; {hint}{quoted}", token)
        if column.kind == "binary":
            raise self.error(f"'{name}' holds bytes and cannot be filtered", token)
        documents = column.table == "documents"
        return _Operand(column.kind, f"{'d' if documents else 'r'}.{column.sql}", (), column, name, documents)

    def _fitting(self, literal: _Operand, attribute: _Operand, token: _Token) -> Any:
        value, kind = literal.parameters[0], attribute.kind
        if kind == "list":
            raise self.error(f"'{attribute.shown}' is a list; write  value IN {attribute.shown}", token)
        if kind in _NUMBERS and literal.kind in _NUMBERS:
            return value
        if kind == "bool" and (literal.kind == "bool" or value in (0, 1)):
            return int(value)
        if kind in {"string", "json"} and literal.kind == "string":
            return value
        if kind in _DATES and literal.kind == "string":
            moment = _moment(value, attribute)
            if moment is None:
                raise self.error(
                    f"'{attribute.shown}' is a {kind} and {literal.shown} is none; write it as {_WRITTEN[kind]}", token
                )
            return moment
        raise self.error(f"'{attribute.shown}' holds {_SAID[kind]} and {literal.shown} is {_SAID[literal.kind]}", token)


def _on(attribute: _Operand, sql: str, mark: Mark, *values: Any) -> Test:
    """A test of one attribute against values."""
    parameters = (*attribute.parameters, *values)
    if attribute.literal:
        return Test(sql, parameters)
    return Test(sql, parameters, attribute.documents, attribute.sql, mark, values)


def _moment(text: str, attribute: _Operand) -> str | None:
    """A date or time as the store spells it, so that texts compare as moments do; None where it is none."""
    text = text.strip()
    try:
        if attribute.kind == "time":
            return datetime.time.fromisoformat(text).isoformat()
        day = _DAY.fullmatch(text)
        if day is not None:
            year, month, first = (int(part or 1) for part in day.groups())
            moment = datetime.datetime(year, month, first)
        else:
            moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    if attribute.kind == "date":
        return moment.date().isoformat() if moment.time() == datetime.time() else moment.isoformat()
    zoned = attribute.column is not None and getattr(attribute.column.arrow, "tz", None) is not None
    return moment.isoformat(timespec="microseconds") + ("Z" if zoned else "")


_STRING = pa.string()
_WRITTEN = {"date": "'2018-01-31'", "timestamp": "'2018-01-31T12:00:00'", "time": "'12:00:00'"}
_DATE_NAMES = {"created", "date", "published", "published_at", "created_at", "timestamp", "time", "updated"}
_SAID = {"string": "text", "int": "numbers", "float": "numbers", "bool": "true or false", "date": "dates", "json": "text",
         "timestamp": "times", "time": "times of day", "list": "lists", "binary": "bytes"}  # fmt: skip


def _family(kind: str) -> str:
    return "number" if kind in _NUMBERS else "date" if kind in {"date", "timestamp"} else kind


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")

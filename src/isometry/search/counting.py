"""Facet counts: how often each value of an attribute occurs among the records that a search speaks of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.errors import InputError
from isometry.search.filters import attribute_sql, compile_filter
from isometry.search.fulltext import match_expression
from isometry.search.queries import rows_of_ids
from isometry.search.store.values import readable

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot


@dataclass(frozen=True)
class Among:
    """The records that are counted, as a condition over the aliases r (records) and d (documents)."""

    sql: str
    parameters: tuple[Any, ...]
    needs_documents: bool


def among(
    snapshot: Snapshot, where: str | None, *, closest: Sequence[str] | None = None, words: str | None = None
) -> Among:
    """The records that pass a filter and hold any of the words, or exactly those of the ids `closest`."""
    if closest is not None:
        rows = sorted(rows_of_ids(snapshot, closest).values())
        return Among("r.row IN (SELECT value FROM json_each(?))", (json.dumps(rows),), False)
    sql, needs = "1", False
    parameters: tuple[Any, ...] = ()
    if where is not None:
        compiled = compile_filter(where, snapshot.columns)
        sql, parameters, needs = f"({compiled.sql})", compiled.parameters, compiled.needs_documents
    if words is not None:
        if not any(column.role == "text" for column in snapshot.columns):
            raise InputError("this collection has no text columns; search with mode 'vector'")
        expression = match_expression(words)
        if expression is None:
            return Among("0", (), False)
        sql += " AND r.row IN (SELECT rowid FROM fulltext WHERE fulltext MATCH ?)"
        parameters = (*parameters, expression)
    return Among(sql, parameters, needs)


def facet(snapshot: Snapshot, name: str, counted: Among, limit: int) -> list[dict[str, Any]]:
    """Most frequent values of an attribute with their counts; the items of lists are counted one by one."""
    sql, kind, needs = attribute_sql(name, snapshot.columns)
    tables = "records r JOIN documents d ON d.row = r.row" if needs or counted.needs_documents else "records r"
    if kind == "list":
        number = int(sql.split(".c")[1])
        tables += f" JOIN members f ON f.row = r.row AND f.column = {number}"
        sql = "f.value"
    rows = snapshot.connection.execute(
        f"SELECT {sql}, count(*) FROM {tables} WHERE {counted.sql} AND {sql} IS NOT NULL"
        f" GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {int(limit)}",
        counted.parameters,
    )
    return [{"value": readable(value, "bool" if kind == "bool" else "string"), "count": count} for value, count in rows]

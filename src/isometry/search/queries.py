"""How one snapshot of a collection answers: vector, text, hybrid, more-like-this and browsing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import FilterError, InputError, NotFoundError
from isometry.search.attributes import passing_rows
from isometry.search.filters import attribute_sql, compile_filter
from isometry.search.fulltext import match_expression
from isometry.search.fusion import RRF_CONSTANT, reciprocal_rank_fusion
from isometry.search.store.store import read_values
from isometry.search.store.values import readable
from isometry.types import Hit

if TYPE_CHECKING:
    from isometry.search.collection import Snapshot

DEPTH = 200  # how deep a ranking goes that is fused or re-ordered afterwards


class Clock:
    """Milliseconds per stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = round(self.stages.get(stage, 0.0) + 1000 * (now - self._last), 3)
        self._last = now


@dataclass(frozen=True)
class Found:
    """Hits of one query with the number of records that match and what was done."""

    hits: list[Hit]
    total: int
    plan: dict[str, Any]


def run(
    snapshot: Snapshot,
    query: str | None,
    target: np.ndarray | None,
    like: str | None,
    k: int,
    offset: int,
    where: str | None,
    mode: str,
    explain: bool,
    sort: str | None,
    exact: bool,
    clock: Clock,
) -> Found:
    """Answer one query; exactly min(k, matches - offset) hits come back."""
    clock.lap("open")
    compiled_rows = _Matches(snapshot, where, clock)
    excluded = None
    if like is not None:
        excluded = rows_of_ids(snapshot, [like]).get(like)
        if excluded is None:
            raise NotFoundError(f"no record '{like}' in this collection")
        target = snapshot.view.target(excluded)
    depth = offset + k if sort is None else max(DEPTH, offset + k)
    details: dict[int, dict[str, Any]] = {}
    plan: dict[str, Any] = {"mode": mode if query is not None else "like" if like is not None else "vector"}
    if target is None and query is None:
        plan["mode"] = "browse"
        ranked, total = _browse(snapshot, where, sort, offset + k), compiled_rows.total()
    elif mode == "text" and query is not None:
        ranked, total = _text(snapshot, query, where, None if sort else depth)
        plan["strategy"] = "bm25"
        clock.lap("text")
    elif mode == "hybrid" and query is not None and target is not None:
        ranked, total, details = _hybrid(snapshot, query, target, where, depth, compiled_rows, plan, exact, clock)
    else:
        assert target is not None
        ranked, total = _vector(snapshot, target, depth, compiled_rows, excluded, plan, exact, clock)
    if sort is not None and plan["mode"] != "browse":
        ranked = _sorted(snapshot, ranked, sort)
        plan["sorted"] = {"by": sort, "of": len(ranked)}
        clock.lap("sort")
    page = ranked[offset : offset + k]
    records = fetch(snapshot, [row for row, _ in page])
    clock.lap("fetch")
    hits = [_hit(records[row], score, details.get(row) if explain else None) for row, score in page]
    if where is not None:
        plan["filter"] = {"where": where, "matches": compiled_rows.total()}
    plan["stages_ms"] = clock.stages
    plan["version"] = snapshot.meta["version"]
    return Found(hits, total, plan)


def run_batch(snapshot: Snapshot, vectors: Any, k: int, where: str | None, exact: bool, clock: Clock) -> list[Found]:
    """Answer many vectors `(q, d)`, or a list of sets `(t_i, d)`, with one scan."""
    clock.lap("open")
    matches = _Matches(snapshot, where, clock)
    mask, most = matches.mask(), k + 1
    scores, rows, done = snapshot.view.search(vectors, most, mask, exact=exact)
    rankings = [
        [(row, score) for row, score in zip(one_rows, one_scores, strict=True) if row >= 0]
        for one_rows, one_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
    for number, ranking in enumerate(rankings):
        if len(ranking) == most and ranking[-1][1] == ranking[k - 1][1]:
            rankings[number] = _vector(snapshot, vectors[number], k, matches, None, {}, exact, Clock())[0]
    clock.lap("scan")
    records = fetch(snapshot, sorted({row for ranking in rankings for row, _ in ranking}))
    clock.lap("fetch")
    plan = {"mode": "vector", "strategy": _strategy(done), "batch": len(vectors), **done, "stages_ms": clock.stages,
            "version": snapshot.meta["version"]}  # fmt: skip
    found = []
    for ranking in rankings:
        pairs = _by_id(ranking, records)[:k]
        found.append(Found([_hit(records[row], score, None) for row, score in pairs], matches.total(), plan))
    return found


class _Matches:
    """The live rows that pass a filter, found at most once."""

    def __init__(self, snapshot: Snapshot, where: str | None, clock: Clock) -> None:
        self._snapshot, self._where, self._clock = snapshot, where, clock
        self._mask: np.ndarray | None = None
        self._filter = None if where is None else compile_filter(where, snapshot.columns)

    def mask(self) -> np.ndarray:
        if self._mask is None:
            self._mask = self._snapshot.view.masks.get(self._where, self._passing)
            if self._where is not None:
                self._clock.lap("filter")
        return self._mask

    def _passing(self) -> np.ndarray:
        assert self._filter is not None
        return self._snapshot.attributes.mask(self._snapshot, self._filter.tree)

    def total(self) -> int:
        if self._where is None:
            return int(self._snapshot.meta["records"])
        return int(np.count_nonzero(self.mask()))


def _vector(
    snapshot: Snapshot,
    target: np.ndarray,
    depth: int,
    matches: _Matches,
    excluded: int | None,
    plan: dict[str, Any],
    exact: bool,
    clock: Clock,
) -> tuple[list[tuple[int, float]], int]:
    mask = matches.mask()
    total = int(np.count_nonzero(mask))
    if excluded is not None:
        place = int(np.searchsorted(snapshot.view.rows, excluded))
        if mask[place]:
            total -= 1
            mask = mask.copy()
            mask[place] = False
    done: dict[str, Any] = {}

    def nearest(most: int) -> list[tuple[int, float]]:
        scores, rows, step = snapshot.view.search(target[None, :], min(most, max(1, total)), mask, exact=exact)
        done.update(step)
        return [(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row >= 0]

    ranked = _best(snapshot, nearest, depth)
    plan.update({"strategy": _strategy(done), **done})
    clock.lap("scan")
    return ranked, total


def _strategy(done: dict[str, Any]) -> str:
    """'exact' where nothing can have been missed, else what found the rows."""
    return "exact" if done["answer"] == "exact" else str(done["stage"])


def _text(snapshot: Snapshot, query: str, where: str | None, depth: int | None) -> tuple[list[tuple[int, float]], int]:
    if not any(column.role == "text" for column in snapshot.columns):
        raise InputError("this collection has no text columns; search with mode 'vector'")
    expression = match_expression(query)
    if expression is None:
        return [], 0
    sql, parameters = "", ()
    if where is not None:
        compiled = compile_filter(where, snapshot.columns)
        sql = f" AND rowid IN (SELECT r.row FROM {compiled.tables} WHERE {compiled.sql})"
        parameters = compiled.parameters

    def worded(most: int) -> list[tuple[int, float]]:
        return snapshot.connection.execute(
            f"SELECT rowid, -bm25(fulltext) FROM fulltext WHERE fulltext MATCH ?{sql} ORDER BY 2 DESC, rowid LIMIT {most}",
            (expression, *parameters),
        ).fetchall()

    found = _best(snapshot, worded, int(snapshot.meta["records"]) if depth is None else depth)
    if depth is None or len(found) < depth:
        return found, len(found)
    (total,) = snapshot.connection.execute(
        f"SELECT count(*) FROM fulltext WHERE fulltext MATCH ?{sql}", (expression, *parameters)
    ).fetchone()
    return found, int(total)


def _hybrid(
    snapshot: Snapshot,
    query: str,
    target: np.ndarray,
    where: str | None,
    depth: int,
    matches: _Matches,
    plan: dict[str, Any],
    exact: bool,
    clock: Clock,
) -> tuple[list[tuple[int, float]], int, dict[int, dict[str, Any]]]:
    deep = max(DEPTH, depth)
    nearest, total = _vector(snapshot, target, deep, matches, None, plan, exact, clock)
    worded, _ = _text(snapshot, query, where, deep)
    clock.lap("text")
    fused = reciprocal_rank_fusion({"vector": [row for row, _ in nearest], "text": [row for row, _ in worded]})
    plan["strategy"] = "reciprocal rank fusion"
    plan["fusion"] = {"constant": RRF_CONSTANT, "depth": deep}
    details: dict[int, dict[str, Any]] = {}
    for name, ranking in (("vector", nearest), ("text", worded)):
        for rank, (row, score) in enumerate(ranking, start=1):
            details.setdefault(row, {})[name] = {"rank": rank, "score": score, "adds": 1 / (RRF_CONSTANT + rank)}
    for explanation in details.values():
        parts = [f"1/({RRF_CONSTANT} + {part['rank']})" for part in explanation.values()]
        explanation["formula"] = " + ".join(parts)
    return fused, total, details


def _browse(snapshot: Snapshot, where: str | None, sort: str | None, depth: int) -> list[tuple[int, float]]:
    order, needs = _order(snapshot, sort)
    sql, parameters, tables = "1", (), "records r JOIN documents d ON d.row = r.row" if needs else "records r"
    if where is not None:
        compiled = compile_filter(where, snapshot.columns)
        sql, parameters = compiled.sql, compiled.parameters
        tables = compiled.tables if compiled.needs_documents else tables
    rows = snapshot.connection.execute(
        f"SELECT r.row FROM {tables} WHERE {sql} ORDER BY {order}r.row LIMIT {int(depth)}", parameters
    )
    return [(row, 0.0) for (row,) in rows]


def _sorted(snapshot: Snapshot, ranked: list[tuple[int, float]], sort: str) -> list[tuple[int, float]]:
    order, needs = _order(snapshot, sort)
    tables = "records r JOIN documents d ON d.row = r.row" if needs else "records r"
    places = {row: number for number, (row, _) in enumerate(ranked)}
    rows = snapshot.connection.execute(
        f"SELECT r.row FROM json_each(?) j JOIN {tables} ON r.row = j.value ORDER BY {order}j.key",
        (json.dumps(list(places)),),
    )
    return [ranked[places[row]] for (row,) in rows]


def _order(snapshot: Snapshot, sort: str | None) -> tuple[str, bool]:
    if sort is None:
        return "", False
    if len(sort) > 1000:
        raise FilterError(f"sort has {len(sort)} characters; name one attribute, as in 'created desc'")
    match = re.fullmatch(r"(?P<name>.+?)(?:\s+(?P<way>asc|desc))?", sort.strip(), re.IGNORECASE | re.DOTALL)
    if match is None:
        raise FilterError("sort takes an attribute, and 'desc' to turn the order")
    sql, kind, needs = attribute_sql(match["name"], snapshot.columns)
    if kind in {"list", "json"}:
        raise FilterError(f"'{match['name']}' is a {kind} and has no order")
    return f"{sql} IS NULL, {sql} {(match['way'] or 'asc').upper()}, ", needs


def _best(snapshot: Snapshot, ranking: Callable[[int], list[tuple[int, float]]], depth: int) -> list[tuple[int, float]]:
    """The best `depth` of a ranking, equal scores in the order of their ids, also where the cut falls between them."""
    most = depth + 1
    found = ranking(most)
    while len(found) == most and found[-1][1] == found[depth - 1][1]:
        most *= 2
        found = ranking(most)
    return _tied_by_id(snapshot, found)[:depth]


def _tied_by_id(snapshot: Snapshot, pairs: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Equal scores in the order of their ids, so that the order does not tell how records came in."""
    ranked = list(pairs)
    tied = {row for first, second in pairwise(ranked) if first[1] == second[1] for row in (first[0], second[0])}
    if not tied:
        return ranked
    ids = dict(
        snapshot.connection.execute(
            "SELECT row, id FROM records WHERE row IN (SELECT value FROM json_each(?))", (json.dumps(sorted(tied)),)
        )
    )
    return sorted(ranked, key=lambda pair: (-pair[1], ids.get(pair[0], "")))


def _by_id(pairs: list[tuple[int, float]], records: dict[int, dict[str, Any]]) -> list[tuple[int, float]]:
    return sorted(pairs, key=lambda pair: (-pair[1], records[pair[0]]["id"]))


def _hit(record: dict[str, Any], score: float, explanation: dict[str, Any] | None) -> Hit:
    shown = {name: value for name, value in record.items() if name != "id"}
    return Hit(record["id"], float(score), shown, explanation)


# ---- reading rows ----------------------------------------------------------------------------------------------------


def matching_rows(snapshot: Snapshot, where: str | None) -> np.ndarray:
    """Row numbers int64, ascending, of the records that pass the filter (all for None)."""
    return passing_rows(snapshot, None if where is None else compile_filter(where, snapshot.columns).tree)


def rows_of_ids(snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
    """Row numbers of the ids that are here."""
    return dict(
        snapshot.connection.execute(
            "SELECT id, row FROM records WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([str(one) for one in ids]),),
        ).fetchall()
    )


def fetch(snapshot: Snapshot, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Records by row number, values as JSON knows them."""
    found = {}
    for row, identity, values in read_values(snapshot.connection, snapshot.columns, rows):
        record: dict[str, Any] = {"id": identity}
        for column, value in zip(snapshot.columns, values, strict=True):
            record[column.name] = readable(value, column.kind)
        found[row] = record
    return found

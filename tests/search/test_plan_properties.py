"""Under every plan, while it is built, rebuilt and changed: a collection is a dictionary that can be searched."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from isometry.compression import ProductQuantizer, SignBinarizer
from isometry.search import Collection, SearchPlan

D = 12
SCHEMA = pa.schema([("n", pa.int64()), ("kind", pa.string()), ("tags", pa.list_(pa.string()))])
PLANS = {
    "signs": SearchPlan(index="codes", code=SignBinarizer(), shortlist=30),
    "products": SearchPlan(index="codes", code=ProductQuantizer(4, bits=4), shortlist=30),
    "cells": SearchPlan(index="cells"),
    "graph": SearchPlan(index="graph", links=6, build_breadth=30),
}
FILTERS = [
    ("n < 400", lambda one: one["n"] < 400),
    ("n BETWEEN 100 AND 180", lambda one: 100 <= one["n"] <= 180),
    ("kind = 'a'", lambda one: one["kind"] == "a"),
    ("'t3' IN tags", lambda one: "t3" in (one["tags"] or [])),
    ("kind IN ('b', 'c') AND n >= 300", lambda one: one["kind"] in ("b", "c") and one["n"] >= 300),
    ("n = 17", lambda one: one["n"] == 17),
    ("n < 0", lambda one: False),
]


class Model:
    """A collection and the dictionary that it has to equal."""

    def __init__(self, path, seed: int) -> None:
        self.random, self.numpy = random.Random(seed), np.random.default_rng(seed)
        self.opened = Collection.create(path, dimension=D, schema=SCHEMA)
        self.held: dict[str, tuple[dict, np.ndarray]] = {}
        self.next = 0

    def put(self, ids: list[str]) -> None:
        vectors = self.numpy.standard_normal((len(ids), D)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        records = []
        for one in ids:
            kind = self.random.choice(["a", "b", "c", None])
            tags = None if kind is None else [f"t{self.random.randrange(5)}", f"t{self.random.randrange(5)}"]
            records.append({"id": one, "n": self.random.randrange(1000), "kind": kind, "tags": tags})
        self.opened.upsert(pa.Table.from_pylist(records, pa.schema([("id", pa.string()), *SCHEMA])), vectors)
        self.held |= {record["id"]: (record, vector) for record, vector in zip(records, vectors, strict=True)}

    def add(self, count: int) -> None:
        self.put([f"r{number}" for number in range(self.next, self.next + count)])
        self.next += count

    def some(self, count: int) -> list[str]:
        return self.random.sample(sorted(self.held), min(count, len(self.held)))

    def best(self, query: np.ndarray, k: int, keep) -> list[str]:
        scores = {one: float(vector @ query) for one, (record, vector) in self.held.items() if keep(record)}
        return sorted(scores, key=lambda one: (-scores[one], one))[:k]

    def check(self) -> None:
        """One query with a filter, its negation, exactly and by the plan."""
        query = self.numpy.standard_normal(D).astype(np.float32)
        query /= np.linalg.norm(query)
        (where, keep), k = self.random.choice(FILTERS), self.random.choice([1, 5, 40, 10_000])
        matching = {one for one, (record, _) in self.held.items() if keep(record)}
        found = self.opened.search(vector=query, k=k, where=where)
        ids = [hit.id for hit in found.hits]
        assert (
            set(ids) <= matching and len(set(ids)) == len(ids) == min(k, len(matching)) and found.total == len(matching)
        )
        for hit in found.hits:
            assert hit.score == pytest.approx(float(self.held[hit.id][1] @ query), abs=1e-5)
        assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
        exact = self.opened.search(vector=query, k=k, where=where, exact=True)
        wanted = self.best(query, k, keep)
        self.equal(exact.hits, wanted, query)
        if found.plan["answer"] == "exact":
            self.equal(found.hits, wanted, query)
        others = self.opened.search(vector=query, k=10_000, where=f"NOT ({where})")
        assert {hit.id for hit in others.hits} == set(self.held) - matching

    def equal(self, hits, wanted: list[str], query: np.ndarray) -> None:
        """The same ids in the same order, but for scores that float32 cannot tell apart."""
        ids = [hit.id for hit in hits]
        if ids != wanted:
            mine, theirs = ([float(self.held[one][1] @ query) for one in some] for some in (ids, wanted))
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("name", PLANS)
def test_any_order_of_writes_and_searches_equals_a_dictionary(tmp_path, name):
    model = Model(tmp_path / "c", seed=len(name))
    with model.opened:
        model.add(1100)  # sealed into a segment
        model.opened.set_plan(PLANS[name], wait=False)  # searched while it is built
        for step in range(70):
            what = model.random.random()
            if what < 0.12:
                model.add(model.random.choice([1, 30, 400]))
            elif what < 0.24:
                model.put(model.some(model.random.choice([1, 25])))
            elif what < 0.36:
                gone = model.some(model.random.choice([1, 40]))
                model.opened.delete(gone)
                for one in gone:
                    del model.held[one]
            elif what < 0.40:
                model.opened.compact()
            elif what < 0.44:
                plan = model.random.choice([SearchPlan(), *PLANS.values(), PLANS[name]])
                model.opened.set_plan(plan, wait=step % 2 == 0)
            else:
                model.check()
        model.opened.set_plan(PLANS[name])
        for _ in range(12):
            model.check()
        assert model.opened.info()["indexes"][0]["complete"] and len(model.opened) == len(model.held)
        assert model.opened.verify().ok


@pytest.mark.parametrize("name", ["cells", "graph"])
@pytest.mark.parametrize("harm", ["flip", "cut", "foreign"])
def test_harmed_cells_and_graphs_are_not_trusted(tmp_path, name, harm):
    model = Model(tmp_path / "c", seed=3)
    with model.opened:
        model.add(1100)
        model.opened.set_plan(PLANS[name])
        (file,) = (model.opened.path / "indexes").iterdir()
        whole = file.read_bytes()
    if harm == "foreign":
        other = Model(tmp_path / "d", seed=4)
        with other.opened:
            other.add(1100)
            other.opened.set_plan(PLANS[name])
            whole = next((other.opened.path / "indexes").iterdir()).read_bytes()
        file.write_bytes(whole)
    else:
        at = len(whole) // 3
        file.write_bytes(whole[:at] if harm == "cut" else whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    with Collection.open(tmp_path / "c") as reader:
        model.opened = reader
        listed = reader.info()["indexes"][0]
        assert not listed["complete"] and file.name in listed["problem"] and not reader.verify().ok
        model.check()
        assert reader.search(vector=np.ones(D)).plan["answer"] == "exact"
    with Collection.open(tmp_path / "c", writable=True) as writer:
        model.opened = writer
        writer.build_index()
        assert writer.info()["indexes"][0]["complete"] and writer.verify().ok
        model.check()

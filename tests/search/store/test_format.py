"""Stores that earlier releases wrote open, answer, verify and can be written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from isometry.search import Collection
from tests.fixtures.make_store import records, sets, vectors

FOLDER = Path(__file__).resolve().parents[2] / "fixtures"
FIXTURES = sorted(FOLDER.glob("store-format-*"))


def test_an_earlier_store_opens(tmp_path):
    path = tmp_path / "store"
    shutil.copytree(FOLDER / "store-format-1", path)
    kept = [*range(20), *range(1090, 1100), *range(2000, 2010)]
    with Collection.open(path, writable=True) as collection:
        assert collection.verify().ok
        ids, held = collection.vectors()
        assert ids == [f"r{n}" for n in kept]
        wanted = np.concatenate([vectors(range(n, n + 1)) for n in kept])
        np.testing.assert_allclose(held, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5, atol=1e-6)
        table = {record["id"]: record for batch in collection.iter_records() for record in batch.to_pylist()}
        assert table["r2005"] == records(range(2005, 2006))[0]
        assert collection.search("naive", mode="text", k=50).total == len(kept)
        assert collection.search(vector=vectors(range(7, 8))[0], k=1, where="'t1' IN tags").hits[0].id == "r7"
        collection.upsert(records(range(5, 8)), vectors(range(5, 8)))
        collection.delete("r1")
        collection.compact()
        assert len(collection) == len(kept) - 1 and collection.verify().ok


def test_an_earlier_store_of_several_vectors_opens(tmp_path):
    path = tmp_path / "store"
    shutil.copytree(FOLDER / "store-format-2", path)
    kept = [*range(20), *range(490, 500), *range(2000, 2010)]
    with Collection.open(path, writable=True) as collection:
        assert collection.verify().ok
        ids, held = collection.vector_sets()
        assert ids == [f"r{n}" for n in kept]
        wanted = np.concatenate([one for n in kept for one in sets(range(n, n + 1))])
        np.testing.assert_allclose(
            held.values, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5, atol=1e-6
        )
        assert np.diff(held.offsets).tolist() == [1 + n % 4 for n in kept]
        assert collection.search(vector=sets(range(495, 496))[0], k=1).hits[0].id == "r495"
        collection.upsert(records(range(5, 8)), sets(range(5, 8)))
        collection.delete("r1")
        collection.compact()
        assert len(collection) == len(kept) - 1 and collection.verify().ok


def test_there_is_a_fixture_for_this_format():
    from isometry.search.store.database import FORMAT

    assert f"store-format-{FORMAT}" in {path.name for path in FIXTURES}

"""The durable search plan: built beside the segments, never trusted unchecked, never in the way of readers."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from isometry.compression import ProductQuantizer, RaBitQ, RecurrentBinary, ScalarQuantizer, SignBinarizer, Truncate
from isometry.errors import CorruptionError, InputError
from isometry.search import Collection, SearchPlan
from isometry.search.memory import watched

SIGNS = SearchPlan(index="codes", code=SignBinarizer(), shortlist=64)


def vectors(count, seed=0, dimension=32):
    made = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def made(tmp_path):
    """1500 records in one segment."""
    with Collection.create(tmp_path / "c", dimension=32) as collection:
        collection.upsert([{"id": f"r{i}", "n": i} for i in range(1500)], vectors(1500))
        yield collection


def brute(collection, query, k, keep=lambda n: True):
    ids, held = collection.vectors()
    chosen = [place for place, one in enumerate(ids) if keep(int(one[1:]))]
    order = sorted(chosen, key=lambda place: (-float(held[place] @ query), ids[place]))
    return [ids[place] for place in order[:k]]


def test_default_plan_is_exact(made):
    assert made.plan == SearchPlan()
    assert made.info()["plan"]["index"] == "exact"
    (flat,) = made.info()["indexes"]
    assert flat["kind"] == "flat" and flat["rows"] == 1500
    assert flat["bytes_in_memory"] == 1500 * (32 + 12) and flat["bytes_in_memory_per_record"] == 44
    assert made.search(vector=vectors(1, 9)[0]).plan["answer"] == "exact"


def test_codes_serve_with_exact_scores(made):
    made.set_plan(SIGNS)
    index = made.info()["indexes"][0]
    assert index["kind"] == "codes" and index["complete"] and index["rows"] == 1500
    codes = index["bytes_in_memory"] - SIGNS.code.fit(vectors(99)).shared_bytes
    assert 1500 * 4 <= codes <= 1700 * 4  # 32 bits a row, padded to whole blocks
    assert index["bytes_on_disk"] == (made.path / "indexes").iterdir().__next__().stat().st_size
    found, same = 0, 0
    for query in vectors(30, 5):
        got = made.search(vector=query, k=10)
        assert got.plan["answer"] == "approximate" and got.plan["strategy"] == "digit scan"
        assert got.plan["candidates"] == 64
        for hit in got.hits:
            assert hit.score == pytest.approx(float(vectors(1500)[hit.record["n"]] @ query), abs=1e-6)
        exact = made.search(vector=query, k=10, exact=True)
        assert exact.plan["answer"] == "exact"
        assert [hit.id for hit in exact.hits] == brute(made, query, 10)
        same += len({hit.id for hit in got.hits} & {hit.id for hit in exact.hits})
        found += 10
    assert same / found > 0.6
    few = made.search(vector=query, k=10, where="n < 50")
    assert few.plan["answer"] == "exact" and [h.id for h in few.hits] == brute(made, query, 10, lambda n: n < 50)


@pytest.mark.parametrize("plan", [SearchPlan(index="cells"), SearchPlan(index="graph", links=8)], ids=lambda p: p.index)
def test_cells_and_graphs_keep_their_recall_under_filters(made, plan):
    made.set_plan(plan)
    made.upsert([{"id": f"r{i}", "n": i} for i in range(1500, 1700)], vectors(200, 4))
    made.delete([f"r{i}" for i in range(0, 1500, 7)])
    index = made.info()["indexes"][0]
    assert index["kind"] == plan.index and index["complete"] and index["rows"] == 1500
    hits, total = 0, 0
    for where, keep in (
        (None, lambda n: n % 7 or n >= 1500),
        ("n < 700", lambda n: n < 700 and n % 7),
        ("NOT n < 700", lambda n: n >= 700 and (n % 7 or n >= 1500)),
        ("n IN (1, 2, 1600)", lambda n: n in (1, 2, 1600)),
    ):
        asked = vectors(20, 5)
        for query, one in zip(asked, made.search_many(asked, k=10, where=where), strict=True):
            expected = brute(made, query, 10, keep)
            assert len(one.hits) == len(expected) and one.total == made.count(where)
            assert all(keep(hit.record["n"]) for hit in one.hits)
            assert one.plan["answer"] in ("exact", "approximate")
            exact = made.search(vector=query, k=10, where=where, exact=True)
            assert [hit.id for hit in exact.hits] == expected and exact.plan["answer"] == "exact"
            if one.plan["answer"] == "exact":
                assert [hit.id for hit in one.hits] == expected
            hits += len({hit.id for hit in one.hits} & set(expected))
            total += len(expected)
    assert hits / total >= 0.95
    alone = made.search(vector=vectors(1, 6)[0], where="n < 1000")
    assert {"strategy", "estimated_ms", "rows"} <= set(alone.plan["choices"][0])
    assert 0 < alone.plan["selectivity"] < 1


def test_plan_lasts_and_a_reader_uses_it(made):
    made.set_plan(SIGNS)
    query = vectors(1, 9)[0]
    expected = [hit.id for hit in made.search(vector=query).hits]
    with Collection.open(made.path) as reader:
        assert reader.plan == SIGNS
        assert [hit.id for hit in reader.search(vector=query).hits] == expected
        with pytest.raises(InputError, match="writable=True"):
            reader.set_plan(SearchPlan())
        made.set_plan(SearchPlan())
        assert reader.search(vector=query).plan["answer"] == "exact"
    assert not list((made.path / "indexes").iterdir())


def test_tail_deletes_and_updates_are_seen_at_once(made):
    made.set_plan(SIGNS)
    query = vectors(1, 9)[0]
    made.upsert([{"id": "r9000", "n": 9000}], query[None])
    assert made.search(vector=query, k=1).hits[0].id == "r9000"
    made.delete("r9000")
    best = made.search(vector=query, k=1).hits[0].id
    assert best != "r9000"
    made.upsert([{"id": best, "n": 1}], -query[None])
    assert best not in [hit.id for hit in made.search(vector=query, k=20).hits]
    assert made.info()["indexes"][0]["rows"] == 1500


def test_long_tail_and_compaction_build_again(made):
    made.set_plan(SIGNS)
    made.upsert([{"id": f"r{i}", "n": i} for i in range(2000, 8000)], vectors(6000, 4))
    made.build_index()
    assert made.info()["indexes"][0]["rows"] == 7500
    made.delete([f"r{i}" for i in range(500)])
    made.compact()
    made.build_index()
    (index,) = made.info()["indexes"]
    assert index["rows"] == 7000 and len(list((made.path / "indexes").iterdir())) == 1


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "foreign"])
def test_a_harmed_file_is_not_trusted_and_is_built_again(made, tmp_path, harm):
    made.set_plan(SIGNS)
    query = vectors(1, 9)[0]
    good = [hit.id for hit in made.search(vector=query).hits]
    (file,) = (made.path / "indexes").iterdir()
    whole = file.read_bytes()
    made.close()
    if harm == "flip":
        for at in range(0, len(whole), len(whole) // 23):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with Collection.open(made.path) as reader:
                assert reader.search(vector=query).plan["answer"] == "exact" or reader.info()["indexes"][0]["complete"]
        file.write_bytes(whole[:-70] + bytes([whole[-70] ^ 1]) + whole[-69:])
    elif harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif harm == "empty":
        file.write_bytes(b"")
    elif harm == "gone":
        file.unlink()
    else:
        with Collection.create(tmp_path / "other", dimension=32) as other:
            other.upsert([{"id": f"r{i}", "n": i} for i in range(1500)], vectors(1500, 3))
            other.set_plan(SIGNS)
            file.write_bytes(next((other.path / "indexes").iterdir()).read_bytes())
    with Collection.open(made.path) as reader:
        result = reader.search(vector=query)
        assert result.plan["answer"] == "exact" and [h.id for h in result.hits] == brute(reader, query, 10)
        listed = reader.info()["indexes"]
        assert not listed[0]["complete"] and str(file) in listed[0]["problem"]
        assert [problem.file for problem in reader.verify().problems] == [f"indexes/{file.name}"]
    with Collection.open(made.path, writable=True) as writer:
        writer.build_index()
        assert [hit.id for hit in writer.search(vector=query).hits] == good
        assert writer.info()["indexes"][0]["complete"] and writer.verify().ok
    assert file.read_bytes() == whole  # the same vectors, plan and seed give the same bytes


def test_a_snapshot_takes_the_index_along(made, tmp_path):
    made.set_plan(SIGNS)
    made.snapshot(tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        assert copy.info()["indexes"][0]["complete"] and copy.verify().ok


def test_readers_see_whole_versions_while_plans_change(made):
    query, stop, wrong, seen = vectors(1, 9)[0], threading.Event(), [], set()
    expected = brute(made, query, 10)

    def read():
        with Collection.open(made.path) as reader:
            while not stop.is_set():
                result = reader.search(vector=query, k=10)
                seen.add(result.plan["answer"])
                ids = [hit.id for hit in result.hits]
                if len(set(ids)) != 10 or (result.plan["answer"] == "exact" and ids != expected):
                    wrong.append(result)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        made.set_plan(SIGNS)
        made.set_plan(SearchPlan())
    made.set_plan(SearchPlan(index="codes", code=ProductQuantizer(8, bits=4)))
    made.search(vector=query)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and "exact" in seen


def test_a_build_that_fails_leaves_exact_search(made):
    with pytest.raises(ValueError, match="bits"):
        made.set_plan(SearchPlan(index="codes", code=SignBinarizer(bits=-3)))
    assert made.search(vector=vectors(1, 9)[0]).plan["answer"] == "exact"
    made.set_plan(SIGNS)
    assert made.search(vector=vectors(1, 9)[0]).plan["answer"] == "approximate"


def test_few_rows_stay_exact(tmp_path):
    with Collection.create(tmp_path / "c", dimension=32) as collection:
        collection.set_plan(SIGNS)
        collection.upsert([{"id": "r1", "n": 1}], vectors(1))
        assert collection.search(vector=vectors(1)[0]).plan["answer"] == "exact"
        assert not collection.info()["indexes"][0]["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": "tree"}, "one of exact"),
        ({"index": "codes"}, "needs a code"),
        ({"code": SignBinarizer()}, "takes no code"),
        ({"index": "codes", "code": 3}, "int is no code"),
        ({"shortlist": 0}, "shortlist is a whole number"),
        ({"fit_rows": 2.5}, "fit_rows is a whole number"),
        ({"index": "graph", "recall": 1.5}, "recall is from"),
        ({"index": "graph", "links": 0}, "links is a whole number"),
    ],
)
def test_bad_plans_are_refused_in_a_sentence(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        SearchPlan(**arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "plan",
    [
        SearchPlan(),
        SearchPlan(index="cells"),
        SearchPlan(index="graph", links=8),
        *(SearchPlan(index="codes", code=code) for code in (
            Truncate(16, precision="float16"), ScalarQuantizer(bits=4), SignBinarizer(), RaBitQ(),
            ProductQuantizer(8, bits=4), RecurrentBinary(16),
        )),
    ],
    ids=lambda plan: plan.index if plan.code is None else type(plan.code).__name__,
)  # fmt: skip
def test_answers_of_every_plan_are_json_as_the_server_sends_it(made, plan):
    made.set_plan(plan)
    with Collection.open(made.path) as reader:
        for where in (None, "n < 900", "n < 1200", "n IN (3, 7)"):
            for _ in range(2):
                json.dumps(reader.search(vector=vectors(1, 9)[0], where=where, explain=True).to_dict())
        json.dumps(reader.info())


def test_plans_are_json_and_back():
    plan = SearchPlan(index="codes", code=ProductQuantizer(8, rotate=True), shortlist=7)
    assert SearchPlan.from_dict(plan.to_dict()) == plan != SIGNS and hash(plan) == hash(
        SearchPlan.from_dict(plan.to_dict())
    )
    with pytest.raises(CorruptionError):
        SearchPlan.from_dict({"index": "codes", "code": {"part": "os", "parameters": {}}})


def test_memory_and_time_of_a_build_are_told(tmp_path):
    with watched() as growth:  # much, as threads of earlier tests may give some memory back meanwhile
        np.ones(200_000_000, np.int8).sum()
    assert growth.mb is None or 150 < growth.mb < 400
    with Collection.create(tmp_path / "c", dimension=8) as opened:
        opened.upsert([{"id": f"r{i}"} for i in range(1100)], np.random.default_rng(0).standard_normal((1100, 8)))
        opened.set_plan(SearchPlan(index="cells"))
        (held,) = opened.info()["indexes"]
        assert held["build_seconds"] > 0 and (held["build_mb"] is None or 0 <= held["build_mb"] < 500)

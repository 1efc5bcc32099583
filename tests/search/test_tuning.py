"""`tune`: halving and budgets by hand, whole runs on small collections, breaks in between, and plans that are applied."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isometry.compression import SignBinarizer
from isometry.errors import InputError
from isometry.search import Collection, SearchPlan
from isometry.search.tuning import Budget, Candidate, Measured, apply, candidates, tune
from isometry.search.tuning.halving import front_of, fronts, rungs, survivors
from isometry.search.tuning.measuring import Bench
from isometry.search.tuning.notebook import Notebook

D = 24


def made(recall=0.9, p95=1.0, size=50.0, ram=1.0, disk=2.0, shortlist=100) -> Measured:
    plan = SearchPlan(index="codes", code=SignBinarizer(), shortlist=shortlist)
    return Measured(Candidate(plan), 10, 5, recall, (recall, recall), p95, p95, p95, p95, size, ram, disk, 0.0)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((15, D))
    values = centres[random.integers(15, size=count)] + 0.5 * random.standard_normal((count, D))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def collection(tmp_path):
    """1,300 records with given vectors, which makes a sealed segment."""
    with Collection.create(tmp_path / "c", dimension=D) as opened:
        opened.upsert([{"id": f"r{i}", "n": i} for i in range(1300)], clustered(1300))
        yield opened


@pytest.fixture
def few(monkeypatch):
    """One plan of each kind."""
    plans = [
        SearchPlan(),
        *(SearchPlan(index="codes", code=SignBinarizer(), shortlist=size) for size in (20, 80)),
        *(SearchPlan(index="graph", links=8, recall=recall) for recall in (0.9, 0.99)),
        SearchPlan(index="cells"),
    ]
    monkeypatch.setattr("isometry.search.tuning.run.candidates", lambda *given: [Candidate(plan) for plan in plans])
    return plans


# ---- by hand ----------------------------------------------------------------------------------------------------------


def test_fronts_peel_off_one_by_one():
    costs = np.array([[1, 4], [2, 2], [4, 1], [2, 4], [3, 3], [4, 4], [1, 4]])
    assert fronts(costs).tolist() == [0, 0, 0, 1, 1, 2, 0]
    assert fronts(np.empty((0, 4))).tolist() == []


def test_the_front_is_what_no_other_beats():
    best, fast, beaten = made(1.0, p95=3), made(0.8, p95=1, shortlist=7), made(0.7, p95=2, shortlist=9)
    assert front_of([beaten, fast, best]) == [best, fast] and front_of([]) == []


def test_steps_grow_fourfold_down_to_two_thousand():
    assert rungs(120_000, 200) == [(2000, 50), (7500, 50), (30_000, 100), (120_000, 200)]
    assert rungs(900, 200) == [(900, 200)]
    assert rungs(5000, 30) == [(2000, 30), (5000, 30)]


def test_half_survive_and_those_that_fit_come_first():
    some = [made(0.5 + i / 100, p95=1 + i / 10, shortlist=i + 1) for i in range(40)]
    assert len(survivors(some, Budget())) == 20
    assert survivors(some, Budget(recall=0.85))[0].recall >= 0.85 * 0.9
    kept = survivors(some, Budget(p95_ms=2.0))
    assert all(one.p95_ms <= 2.2 for one in kept[:11])
    assert len(survivors(some[:7], Budget())) == 7


def test_a_budget_chooses():
    small, good, fast = made(0.9, 2, 10), made(0.99, 3, 100, shortlist=2), made(0.95, 1, 50, shortlist=3)
    every = [small, good, fast]
    assert Budget(recall=0.9).choose(every) is small
    assert Budget(recall=0.94).choose(every) is fast  # fewest bytes that reach it
    assert Budget(bytes_per_vector=60).choose(every) is fast  # the highest recall that fits
    assert Budget(p95_ms=2.5, bytes_per_vector=20).choose(every) is small
    assert Budget().choose(every) is fast  # as for a recall of 0.95
    assert Budget(recall=1.0).choose(every) is None


def test_a_budget_that_nothing_meets_names_the_nearest():
    every = [made(0.9, 2, 10), made(0.99, 3, 100, shortlist=2)]
    budget = Budget(recall=0.98, bytes_per_vector=50)
    assert budget.misses(every[0]) == pytest.approx({"recall": 0.08 / 0.98})
    assert budget.misses(every[1]) == {"bytes_per_vector": 1.0}
    said = budget.refusal(every)
    assert len(said.splitlines()) == 1 and "recall 0.900 where recall 0.980 was asked for" in said
    assert "SignBinarizer(), shortlist 100" in said


@pytest.mark.parametrize("given", [{"recall": 0}, {"recall": 1.5}, {"p95_ms": -1}, {"ram_mb": 0}, {"disk_mb": True}])
def test_budgets_that_make_no_sense(given):
    with pytest.raises(InputError, match=f"a budget's {next(iter(given))} is"):
        Budget(**given)


def test_candidates_are_different_and_come_back_from_json():
    given, cut = candidates(384), candidates(384, layers=6)
    assert len({one.key for one in cut}) == len(cut) and set(given) < set(cut)
    assert {one.plan.index for one in given} == {"exact", "codes", "cells", "graph"}
    exits = {(one.layers, one.dimensions) for one in cut if one.recodes}
    assert len(exits) == 6 * 3 - 1 and (None, 192) in exits and (1, None) in exits and (6, 384) not in exits
    for one in cut:
        assert Candidate.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert len(candidates(8)) > 5 and len({one.label for one in cut}) == len(cut)


# ---- whole runs -------------------------------------------------------------------------------------------------------


def test_figures_of_the_exact_plan_are_known(collection, few, tmp_path):
    report = tune(collection, folder=tmp_path / "t", count=50)
    assert report.asked == "no queries were given: the vectors of 50 held-out records stand for them"
    assert report.rungs == [(1250, 50)] and report.records == 1300 and len(report.final) == len(few)
    exact = next(one for one in report.final if one.candidate.plan == SearchPlan())
    assert exact.recall == 1.0 and exact.interval == (1.0, 1.0) and exact.rows == 1250
    assert exact.bytes_per_vector == D + 12 and exact.ram_mb == pytest.approx(1300 * (D + 12 + 9) / 1e6)
    database = sum(f.stat().st_size for f in collection.path.iterdir() if f.is_file())
    assert exact.disk_mb == pytest.approx((database + 1300 * (4 * D + 8)) / 1e6)
    codes = [one for one in report.final if one.candidate.plan.index == "codes"]
    assert all(one.bytes_per_vector < exact.bytes_per_vector + D * D * 4 / 1300 + 9 for one in codes)
    small, large = sorted(codes, key=lambda one: one.candidate.plan.shortlist)
    assert small.recall < large.recall < 1 and small.bytes_per_vector == large.bytes_per_vector
    assert all(0 < one.p50_ms <= one.p95_ms for one in report.final)
    assert exact in report.front and report.recommended is not None and report.recommended.recall >= 0.95


def test_the_exact_index_says_the_same_bytes_as_the_collection(collection, few, tmp_path):
    report = tune(collection, folder=tmp_path / "t", count=50)
    for one in report.final:
        collection.set_plan(one.candidate.plan)
        held = collection.info()["indexes"][0]
        near = 0.12 if one.candidate.plan.index in ("cells", "graph", "codes") else 0  # 1250 of 1300 rows were measured
        assert one.bytes_per_vector == pytest.approx(held["bytes_in_memory_per_record"], rel=near)


def test_a_seed_repeats_and_other_queries_are_another_run(collection, few, tmp_path):
    once, again = (tune(collection, folder=tmp_path / name, count=40, seed=3) for name in "ab")
    assert {one.candidate.key: one.recall for one in once.measured} == {
        one.candidate.key: one.recall for one in again.measured
    }
    given = tune(collection, folder=tmp_path / "a", queries=clustered(30, 5), k=5)
    assert given.asked == "30 query vectors that were given" and given.rungs == [(1300, 30)] and given.k == 5
    assert len(list((tmp_path / "a").iterdir())) == 1  # the notebook of the other queries is gone


def test_a_run_that_was_stopped_goes_on(collection, few, tmp_path, monkeypatch):
    measured, real = [], Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda self, some: measured.extend(some) or real(self, some))
    with pytest.raises(KeyboardInterrupt):
        tune(collection, folder=tmp_path / "t", progress=lambda done, total: done < 3)
    first = len(measured)
    assert 3 <= first < len(few)
    (notes,) = (tmp_path / "t").glob("*/measured.jsonl")
    before = notes.read_bytes()
    with notes.open("ab") as file:
        file.write(b'{"name": "torn')
    seen = []
    report = tune(collection, folder=tmp_path / "t", progress=lambda done, total: seen.append((done, total)))
    assert len(measured) == len(few) and notes.read_bytes().startswith(before) and len(report.final) == len(few)
    assert seen[-1] == (len(few), len(few))
    assert tune(collection, folder=tmp_path / "t").to_dict() | {"seconds": 0} == report.to_dict() | {"seconds": 0}
    assert len(measured) == len(few)
    collection.delete("r0")
    tune(collection, folder=tmp_path / "t")
    assert len(measured) == 2 * len(few)


def test_halving_leaves_out_and_keeps_what_it_saw(tmp_path, monkeypatch):
    plans = [Candidate(SearchPlan(index="codes", code=SignBinarizer(), shortlist=size)) for size in range(20, 46)]
    monkeypatch.setattr("isometry.search.tuning.run.candidates", lambda *given: plans)
    with Collection.create(tmp_path / "c", dimension=D) as opened:
        opened.upsert([{"id": f"r{i}"} for i in range(2600)], clustered(2600))
        report = tune(opened, count=20)
    assert report.rungs == [(2000, 20), (2580, 20)]
    assert len(report.measured) == 26 and len(report.final) == 13
    assert {one.rows for one in report.final} == {2580}
    assert {one.rows for one in report.measured if one not in report.final} == {2000}
    assert (tmp_path / "c" / "cache" / "tune").is_dir()


def test_a_plan_is_applied(collection, few, tmp_path):
    report = tune(collection, folder=tmp_path / "t", budget=Budget(recall=0.5))
    assert report.recommended is not None
    apply(collection, report.recommended.candidate)
    assert collection.plan == report.recommended.candidate.plan
    assert collection.info()["indexes"][0]["complete"] and collection.verify().ok
    again = tune(collection, folder=tmp_path / "t", budget=Budget(recall=0.5))  # a plan is no other data
    assert again.to_dict()["measured"] == report.to_dict()["measured"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 131}, "holds 1300 records; at least 1310 are needed"),
        ({"count": 3}, "the number of queries is 3"),
        ({"queries": ["words"]}, "has no encoder of texts"),
        ({"queries": np.ones((20, D + 1), np.float32)}, "takes"),
        ({"queries": np.full((20, D), np.nan, np.float32)}, "NaN"),
        ({"queries": np.ones((3, D), np.float32)}, "3 queries were given"),
    ],
)
def test_bad_input_is_one_sentence(collection, given, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        tune(collection, folder=tmp_path / "t", **given)
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "t").exists()


def test_a_small_collection_is_sealed_before_its_index_is_built(tmp_path):
    with Collection.create(tmp_path / "c", dimension=D) as opened:
        opened.upsert([{"id": f"r{i}"} for i in range(300)], clustered(300))
        apply(opened, Candidate(SearchPlan(index="cells")))
        held = opened.info()["indexes"]
        assert [(one["kind"], one["complete"], one["rows"]) for one in held] == [("cells", True, 300)]


def test_several_vectors_a_record_are_refused(tmp_path):
    with Collection.create(tmp_path / "c", dimension=4, multi_vector=True) as opened:
        opened.upsert([{"id": "a"}], [np.ones((2, 4), np.float32)])
        with pytest.raises(InputError, match="several vectors a record"):
            tune(opened)


def test_a_notebook_lets_go_of_other_keys_only(tmp_path):
    Notebook(tmp_path, "one").put("a", {"x": 1})
    (tmp_path / "mine").mkdir()
    second = Notebook(tmp_path, "two")
    assert second.get("a") is None and {one.name for one in tmp_path.iterdir()} == {"two", "mine"}
    second.put("b", {"x": 2})
    assert Notebook(tmp_path, "two").get("b") == {"x": 2}


# ---- exits of an encoder ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a model with three layers and 32 dimensions."""
    pytest.importorskip("sentence_transformers")
    from tests.tiny_text import tiny_model

    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder / "parts", layers=3).save(str(folder / "model"))
    return folder / "model"


def test_exits_are_measured_and_applied(model, tmp_path, monkeypatch):
    from isometry.encoders import load_encoder
    from tests.tiny_text import sentences

    tried = [Candidate(SearchPlan()), Candidate(SearchPlan(), 2, None), Candidate(SearchPlan(), 1, 16),
             Candidate(SearchPlan(), None, 16)]  # fmt: skip
    asked = []
    monkeypatch.setattr("isometry.search.tuning.run.candidates", lambda *given: asked.append(given) or list(tried))
    encoder, texts = load_encoder(model), sentences(400, seed=5)
    import pyarrow as pa

    schema = pa.schema([("title", pa.string())])
    with Collection.create(tmp_path / "c", encoder=encoder, schema=schema, text_columns=["title"]) as opened:
        opened.upsert([{"id": f"r{i}", "title": text} for i, text in enumerate(texts)])
        report = tune(opened, count=30, exit_rows=200)
        assert asked == [(32, 3)]
        assert report.asked == "no queries were given: 'title' of 30 held-out records stands for them"
        found = {(one.candidate.layers, one.candidate.dimensions): one for one in report.final}
        assert found[None, None].recall == 1 and found[None, None].rows == 370
        assert all(found[key].rows == 200 and found[key].recall < 1 for key in ((2, None), (1, 16), (None, 16)))
        assert found[1, 16].bytes_per_vector == 16 + 12
        assert found[1, 16].disk_mb == pytest.approx(found[None, None].disk_mb - 400 * 64 / 1e6)
        assert not list((tmp_path / "c").rglob("exit-*.npy"))
        apply(opened, Candidate(SearchPlan(index="cells"), 1, 16))
        assert opened.dimension == 16 and opened.plan.index == "cells"
        assert opened.encoder_description.name.endswith("#layers=1,dimensions=16")
        expected = load_encoder(model, layers=1, dimensions=16).encode(texts)
        ids, vectors = opened.vectors()
        np.testing.assert_allclose(vectors, expected, atol=2e-3)
        assert ids == [f"r{i}" for i in range(400)]
        opened.upsert([{"id": "new", "title": "w1 w2 w3"}])
        assert opened.search("w1 w2 w3", k=1, exact=True).hits[0].id == "new"
    with Collection.open(tmp_path / "c") as reader:
        assert reader.search("w1 w2 w3", k=1, exact=True).hits[0].id == "new" and reader.verify().ok

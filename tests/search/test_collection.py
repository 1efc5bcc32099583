"""The collection against a plain dictionary, brute force, and its own promises."""

from __future__ import annotations

import json
import multiprocessing
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isometry.errors import (
    CorruptionError,
    ExistsError,
    FingerprintError,
    InputError,
    LockedError,
    NotFoundError,
    ShapeError,
)
from isometry.search import Collection
from isometry.types import EncoderDescription
from tests.search.conftest import rows, unit_vectors


def _brute(vectors: dict[str, np.ndarray], query: np.ndarray, k: int) -> list[str]:
    scores = {one: float(np.float64(vector) @ np.float64(query)) for one, vector in vectors.items()}
    return sorted(scores, key=lambda one: (-scores[one], one))[:k]


def test_results_are_those_of_brute_force(numbered):
    held = {f"r{number}": vector for number, vector in enumerate(unit_vectors(300))}
    for query in unit_vectors(20, seed=9):
        result = numbered.search(vector=query, k=10)
        assert [hit.id for hit in result.hits] == _brute(held, query, 10)
        assert result.total == 300
        for hit in result.hits:
            assert hit.score == pytest.approx(float(held[hit.id] @ query), abs=1e-6)


def test_batch_equals_one_by_one(numbered):
    queries = unit_vectors(17, seed=4)
    together = numbered.search_many(queries, k=5, where="n < 200")
    alone = [numbered.search(vector=query, k=5, where="n < 200") for query in queries]
    assert [[(h.id, h.score) for h in one.hits] for one in together] == [
        [(h.id, h.score) for h in one.hits] for one in alone
    ]


def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path):
    with Collection.create(tmp_path / "c", dimension=3) as opened:
        opened.upsert([{"id": one} for one in "dbeac"], np.tile([1.0, 2.0, 2.0], (5, 1)))
        assert [hit.id for hit in opened.search(vector=[1, 2, 2], k=5).hits] == list("abcde")


def test_paging_gives_every_record_once(numbered):
    query = unit_vectors(1, seed=2)[0]
    seen = [hit.id for start in range(0, 320, 40) for hit in numbered.search(vector=query, k=40, offset=start).hits]
    assert len(seen) == 300 and len(set(seen)) == 300
    assert seen == [hit.id for hit in numbered.search(vector=query, k=300).hits]


def test_records_come_back_with_their_types(numbered):
    (record,) = numbered.get("r12")
    assert record == {
        "id": "r12", "title": "sound number 12 vector", "n": 12, "weight": 3.0, "created": "2012-01-13",
        "seen": "2020-01-01T12:12:00.000000", "tags": ["t0", "u2"], "ok": True,
    }  # fmt: skip
    assert numbered.get(["r9", "nobody"])[0]["tags"] is None
    assert numbered.get(["r9", "nobody"])[1] is None


def test_facets_count_values_and_items_of_lists(numbered):
    counts = numbered.facets(["tags", "ok", "year(created)"], where="n < 100", limit=3)
    assert counts["ok"] == [{"value": True, "count": 50}, {"value": False, "count": 40}]
    assert counts["tags"][0] == {"value": "t0", "count": 30}
    assert len(counts["year(created)"]) == 3


def test_like_leaves_the_record_itself_out(numbered):
    result = numbered.search(like="r5", k=300)
    assert len(result.hits) == 299 and result.total == 299
    assert "r5" not in {hit.id for hit in result.hits}
    with pytest.raises(NotFoundError, match="no record 'r999'"):
        numbered.search(like="r999")


def test_text_search_ranks_by_bm25_and_takes_phrases_and_exclusions(numbered):
    hits = numbered.search("number 12", mode="text", k=300)
    assert hits.hits[0].id == "r12" and hits.total == 300
    assert {hit.id for hit in numbered.search('"number 12"', mode="text", k=9).hits} == {"r12"}
    without = numbered.search("graph -matrix", mode="text", k=300)
    assert without.total > 0 and not any("matrix" in hit.record["title"] for hit in without.hits)
    assert numbered.search("???", mode="text").hits == []
    with pytest.raises(InputError, match="only leaves words out"):
        numbered.search("-graph", mode="text")
    for hostile in ('"', "NEAR(a b)", "title:", "a* OR", "^x", "{title}: x", "'; DROP TABLE records; --"):
        numbered.search(hostile, mode="text")


def test_sort_orders_the_most_relevant(numbered):
    result = numbered.search("graph", mode="text", sort="created desc", k=5)
    dates = [hit.record["created"] for hit in result.hits]
    assert dates == sorted(dates, reverse=True)
    listed = numbered.search(sort="n desc", k=3, where="n < 50")
    assert [hit.record["n"] for hit in listed.hits] == [49, 48, 47] and listed.total == 50


def test_random_interleavings_equal_a_dictionary(tmp_path):
    chance = random.Random(20)
    vectors = unit_vectors(4000, dimension=8, seed=3)
    with Collection.create(tmp_path / "c", dimension=8) as opened:
        model: dict[str, tuple[int, int]] = {}
        for step in range(120):
            action = chance.random()
            some = chance.sample(range(300), chance.choice([1, 1, 3, 40]))
            if action < 0.5:
                places = [chance.randrange(4000) for _ in some]
                opened.upsert([{"id": f"x{n}", "v": p} for n, p in zip(some, places, strict=True)], vectors[places])
                model |= {f"x{n}": (n, p) for n, p in zip(some, places, strict=True)}
            elif action < 0.7:
                gone = [f"x{n}" for n in some]
                assert opened.delete(gone) == sum(one in model for one in gone)
                model = {one: held for one, held in model.items() if one not in gone}
            elif action < 0.72:
                opened.compact()
            else:
                query = vectors[chance.randrange(4000)]
                held = {one: vectors[place] for one, (_, place) in model.items()}
                assert [hit.id for hit in opened.search(vector=query, k=7).hits] == _brute(held, query, 7), step
                assert len(opened) == len(model)
        assert {record["id"]: record["v"] for batch in opened.iter_records() for record in batch.to_pylist()} == {
            one: place for one, (_, place) in model.items()
        }
        assert opened.verify().ok


def test_unchanged_records_are_left_alone_and_changed_attributes_keep_their_vector(tmp_path):
    class Counting:
        texts = 0

        def describe(self):
            return EncoderDescription("counting", "00", 4)

        def encode(self, inputs, batch_size=32, show_progress_bar=None):
            Counting.texts += len(inputs)
            return np.stack([np.random.default_rng(sum(text.encode())).normal(size=4) for text in inputs]).astype("f4")

    schema = pa.schema([("title", pa.string()), ("n", pa.int64())])
    with Collection.create(tmp_path / "c", encoder=Counting(), schema=schema, text_columns=["title"]) as opened:
        made = [{"id": str(n), "title": f"text {n}", "n": n} for n in range(50)]
        assert vars(opened.upsert(made)) == {"added": 50, "updated": 0, "unchanged": 0}
        assert vars(opened.upsert(made)) == {"added": 0, "updated": 0, "unchanged": 50}
        assert Counting.texts == 50
        before = opened.vectors(["7"])[1]
        made[7]["n"] = 700
        made[8]["title"] = "another text"
        assert vars(opened.upsert(made)) == {"added": 0, "updated": 2, "unchanged": 48}
        assert Counting.texts == 51
        np.testing.assert_array_equal(opened.vectors(["7"])[1], before)
        with pytest.raises(ExistsError, match="'3' is in"):
            opened.add([{"id": "new", "title": "x", "n": 1}, {"id": "3", "title": "y", "n": 1}])
        assert opened.get("new") == [None]


def test_vectors_and_encoders_of_another_space_are_refused(tmp_path):
    description = EncoderDescription("one", "aa", 4)
    with Collection.create(tmp_path / "c", encoder=description) as opened:
        with pytest.raises(FingerprintError, match="unnamed encoder"):
            opened.upsert([{"id": "a"}], np.ones((1, 4)))
        with pytest.raises(FingerprintError, match="from 1234"):
            opened.search(vector=np.ones(4), made_by="1234")
        opened.upsert([{"id": "a"}], np.ones((1, 4)), made_by=description.fingerprint)
        assert opened.search(vector=np.ones(4), made_by=opened.fingerprint).hits[0].score == pytest.approx(1)

    class Other:
        def describe(self):
            return EncoderDescription("other", "bb", 4)

        def encode(self, inputs, batch_size=32, show_progress_bar=None):
            return np.ones((len(inputs), 4))

    with pytest.raises(FingerprintError, match="holds vectors of one"):
        Collection.open(tmp_path / "c", encoder=Other())


def test_wrong_input_changes_nothing(numbered):
    before = (len(numbered), numbered.version)
    wrong = [
        (ShapeError, lambda: numbered.upsert([{"id": "a"}], np.ones((1, 3)))),
        (ShapeError, lambda: numbered.upsert([{"id": "a"}], np.full((1, 16), np.nan))),
        (ShapeError, lambda: numbered.upsert([{"id": "a"}], np.zeros((1, 16)))),
        (ShapeError, lambda: numbered.upsert([{"id": "a"}, {"id": "b"}], np.ones((1, 16)))),
        (InputError, lambda: numbered.upsert([{"id": "a"}, {"id": "a"}], np.ones((2, 16)))),
        (InputError, lambda: numbered.upsert([{"id": ""}], np.ones((1, 16)))),
        (InputError, lambda: numbered.upsert([{"id": "a\0b"}], np.ones((1, 16)))),
        (InputError, lambda: numbered.upsert([{"name": "a"}], np.ones((1, 16)))),
        (InputError, lambda: numbered.upsert([{"id": "a", "n": "many"}], np.ones((1, 16)))),
        (InputError, lambda: numbered.upsert([{"id": "a"}])),
        (InputError, lambda: numbered.search(vector=np.ones(16), k=0)),
        (InputError, lambda: numbered.search(vector=np.ones(16), k=10**9)),
        (InputError, lambda: numbered.search(vector=np.ones(16), offset=-1)),
        (InputError, lambda: numbered.search(vector=np.ones(16), k=2.5)),
        (InputError, lambda: numbered.search(vector=np.ones(16), k="3")),
        (InputError, lambda: numbered.search(vector=np.ones(16), k=True)),
        (InputError, lambda: numbered.search(vector=np.ones(16), offset=1.5)),
        (InputError, lambda: numbered.search(vector=np.ones(16), where=5)),
        (InputError, lambda: numbered.search(vector=np.ones(16), where="nothing = 1")),
        (InputError, lambda: numbered.search(7)),
        (InputError, lambda: numbered.search_many(["a", 7])),
        (ShapeError, lambda: numbered.search(vector="abc")),
        (ShapeError, lambda: numbered.search(vector=[[1, 2], [3]])),
        (ShapeError, lambda: numbered.search(vector=np.ones((2, 16)))),
        (ShapeError, lambda: numbered.search(vector=np.ones(16) * 1j)),
        (ShapeError, lambda: numbered.search(vector=3.0)),
        (ShapeError, lambda: numbered.search(vector=np.ones(5))),
        (ShapeError, lambda: numbered.search(vector=np.full(16, np.inf))),
        (InputError, lambda: numbered.search("words")),
        (InputError, lambda: numbered.search("  ", mode="text")),
        (InputError, lambda: numbered.search("a", like="r1")),
        (InputError, lambda: numbered.search("a", mode="magic")),
        (InputError, lambda: numbered.facets(["nothing"])),
        (InputError, lambda: numbered.search(sort="nothing desc")),
        (InputError, lambda: numbered.delete()),
    ]
    for kind, call in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert (len(numbered), numbered.version) == before and numbered.verify().ok


def test_a_write_that_fails_leaves_no_new_column(tmp_path):
    with Collection.create(tmp_path / "c", dimension=2) as opened:
        opened.upsert([{"id": "a", "n": 1}], np.eye(2)[:1])
        before = (opened.version, opened.schema)
        for records, vectors in (
            ([{"id": "b", "new": 1}], None),
            ([{"id": "b", "n": "x", "new": 2}], np.ones((1, 2))),
            ([{"id": "b", "new": 2**70}], np.ones((1, 2))),
            ([{"id": "b", "new": 1}, {"id": "c", "new": "x"}], np.ones((2, 2))),
            ([{"id": "b", "": 1}], np.ones((1, 2))),
            ([{"id": "b", "a\nb": 1}], np.ones((1, 2))),
        ):
            with pytest.raises(InputError) as caught:
                opened.upsert(records, vectors)
            assert "\n" not in str(caught.value) and (opened.version, opened.schema) == before
        opened.upsert([{"id": "b", "new": 2}], np.ones((1, 2)))
        assert opened.get("b") == [{"id": "b", "n": None, "new": 2}] and opened.verify().ok


def test_attributes_that_only_later_records_have_are_kept(tmp_path):
    with Collection.create(tmp_path / "c", dimension=2) as opened:
        opened.upsert([{"id": "a"}, {"id": "b", "n": 1}, {"id": "c", "m": [1.5]}], np.ones((3, 2)))
        assert opened.get(["b", "c"]) == [{"id": "b", "n": 1, "m": None}, {"id": "c", "n": None, "m": [1.5]}]


def test_half_a_surrogate_pair_is_refused_everywhere(numbered):
    half = "x\ud800"
    before = numbered.version
    for call in (
        lambda: numbered.search(half, mode="text"), lambda: numbered.search(like=half),
        lambda: numbered.search(where=f"title = '{half}'"), lambda: numbered.search(sort=half),
        lambda: numbered.count(f"title = '{half}'"), lambda: numbered.upsert([{"id": half}], np.ones((1, 16))),
        lambda: numbered.upsert([{"id": "a", "title": half}], np.ones((1, 16))),
        lambda: numbered.upsert([{"id": "a", half: 1}], np.ones((1, 16))),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
    assert numbered.get(half) == [None] and numbered.delete(half) == 0 and numbered.version <= before + 1


def test_small_cases(tmp_path):
    with Collection.create(tmp_path / "c", dimension=2) as opened:
        assert opened.search(vector=[1, 0], k=5).hits == [] and opened.search(k=5).hits == []
        assert opened.search_many(np.empty((0, 2), np.float32)) == []
        assert opened.upsert([]).added == 0
        opened.upsert([{"id": "only"}], np.array([[0.0, 1.0]]))
        assert [hit.id for hit in opened.search(vector=[1, 0], k=50).hits] == ["only"]
        assert opened.delete("only") == 1 and opened.delete("only") == 0
        assert opened.search(vector=[1, 0], k=5).hits == []
        opened.compact()
        assert opened.verify().ok and len(opened) == 0


def test_ids_of_any_kind_come_back(tmp_path):
    ids = ["ü", "a b", "x/y", "'", '"', "; DROP", "-1", "日本語", "🙂", "a\nb", "%", "_", "\u202e", "id" * 500]
    with Collection.create(tmp_path / "c", dimension=3) as opened:
        opened.upsert([{"id": one} for one in ids], np.random.default_rng(0).normal(size=(len(ids), 3)))
        assert sorted(opened.vectors()[0]) == sorted(ids)
        assert [record["id"] for record in opened.get(ids)] == ids
        opened.upsert(pa.table({"id": pa.array([7, 8])}), np.ones((2, 3)))
        assert opened.get("7")[0] == {"id": "7"}


def test_new_columns_may_come_later(numbered):
    numbered.upsert([{**rows(range(7, 8))[0], "extra": "yes"}], unit_vectors(1, seed=70))
    assert numbered.count("extra = 'yes'") == 1 and numbered.get("r8")[0]["extra"] is None
    assert numbered.verify().ok
    with Collection.open(numbered.path) as reader:
        assert "extra" in reader.schema.names


def test_export_and_snapshot_hold_everything(numbered, tmp_path):
    numbered.delete(["r3"])
    assert numbered.export(tmp_path / "out.parquet") == 299
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("created").type == pa.date32() and table.schema.field("vector").type.list_size == 16
    by_id = {record["id"]: record for record in table.to_pylist()}
    assert by_id["r10"]["tags"] == ["t1", "u0"] and by_id["r10"]["ok"] is True
    np.testing.assert_allclose(by_id["r10"]["vector"], unit_vectors(300)[10], atol=1e-7)
    numbered.snapshot(tmp_path / "copy")
    numbered.delete(where="n >= 0")
    with Collection.open(tmp_path / "copy", writable=True) as copy:
        assert len(copy) == 299 and copy.verify().ok
    with pytest.raises(InputError, match="is a folder"):
        numbered.export(tmp_path)
    with pytest.raises(ExistsError):
        numbered.snapshot(tmp_path / "copy")


def test_deleting_gives_space_back(tmp_path):
    with Collection.create(tmp_path / "c", dimension=64) as opened:
        opened.upsert([{"id": str(n), "t": "x" * 500} for n in range(4000)], unit_vectors(4000, 64))
        before = opened.info()["bytes_on_disk"]
        opened.delete(where="length(t) > 0 AND NOT id LIKE '%7'")
        opened.compact()
        assert opened.info()["bytes_on_disk"] < before / 4
        assert len(opened) == 400 and opened.verify().ok


# ---- several processes -----------------------------------------------------------------------------------------------


def test_a_second_writer_is_told(numbered):
    with pytest.raises(LockedError, match="being written by process"):
        Collection.open(numbered.path, writable=True)
    with pytest.raises(InputError, match="open for reading"), Collection.open(numbered.path) as reader:
        reader.delete("r1")


def _write_rounds(path: Path, rounds: int, dimension: int) -> None:
    with Collection.open(path, writable=True) as opened:
        for number in range(1, rounds + 1):
            vectors = np.random.default_rng(number).normal(size=(60, dimension)).astype("f4")
            opened.upsert([{"id": f"x{n}", "round": number} for n in range(60)], vectors)
            if number % 7 == 0:
                opened.compact()


def _read_until(path: Path, last: int, answers: multiprocessing.Queue) -> None:
    seen = set()
    with Collection.open(path) as opened:
        for _ in range(5000):
            records = [record for batch in opened.iter_records() for record in batch.to_pylist()]
            hits = opened.search(vector=np.ones(opened.dimension), k=100)
            rounds = {record["round"] for record in records}
            if len(records) != 60 or len(rounds) != 1 or len({h.record["round"] for h in hits.hits}) != 1:
                answers.put(f"mixed: {len(records)} records of rounds {rounds}")
                return
            seen |= rounds
            if last in rounds:
                break
    answers.put(sorted(seen))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_beside_a_writer_see_whole_versions(tmp_path, method):
    path, rounds = tmp_path / "c", 25
    with Collection.create(path, dimension=6) as opened:
        opened.upsert([{"id": f"x{n}", "round": 0} for n in range(60)], np.ones((60, 6)))
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    readers = [context.Process(target=_read_until, args=(path, rounds, answers)) for _ in range(2)]
    writer = context.Process(target=_write_rounds, args=(path, rounds, 6))
    for process in [*readers, writer]:
        process.start()
    results = [answers.get(timeout=120) for _ in readers]
    for process in [*readers, writer]:
        process.join()
    assert writer.exitcode == 0
    assert all(isinstance(result, list) and result[-1] == rounds for result in results), results


def test_a_newer_format_is_refused(numbered, tmp_path):
    import sqlite3

    from isometry.search.store.store import manifest_digest

    path = numbered.path
    numbered.close()
    connection = sqlite3.connect(path / "collection.sqlite")
    manifest = json.loads(connection.execute("SELECT value FROM meta WHERE key = 'manifest'").fetchone()[0])
    text = json.dumps({**manifest, "format": 99}, sort_keys=True)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'manifest'", (text,))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'digest'", (manifest_digest(connection, text),))
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="newer Isometry"):
        Collection.open(path)


def test_what_is_no_collection(tmp_path):
    with pytest.raises(NotFoundError, match="is not a collection"):
        Collection.open(tmp_path)
    (tmp_path / "collection.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(CorruptionError):
        Collection.open(tmp_path)
    with pytest.raises(ExistsError):
        Collection.create(tmp_path, dimension=2)

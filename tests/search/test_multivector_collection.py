"""Collections whose records hold several vectors each: a model dictionary, bad input, damage, leaving and coming back."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isometry.errors import CorruptionError, FingerprintError, InputError, NotFoundError, ShapeError
from isometry.search import Collection, encoded, late
from isometry.types import EncoderDescription, VectorSets

D = 16


def sets(numbers, edition=0, dimension=D) -> list[np.ndarray]:
    """Unit vectors that follow from number and edition, 1 to 9 a record, around one of 20 topics."""
    topics = np.random.default_rng(99).standard_normal((20, dimension))
    found = []
    for number in numbers:
        draw = np.random.default_rng([number, edition])
        mix = topics[number % 20] + 0.6 * draw.standard_normal((1 + number % 9, dimension))
        found.append((mix / np.linalg.norm(mix, axis=1, keepdims=True)).astype(np.float32))
    return found


def records(numbers, edition=0) -> list[dict]:
    return [{"id": f"r{n}", "title": f"title {n} of edition {edition}", "n": n} for n in numbers]


def brute(query: np.ndarray, held: dict[str, np.ndarray]) -> list[str]:
    scores = {one: (query @ vectors.T).max(axis=1).sum() for one, vectors in held.items()}
    return sorted(scores, key=lambda one: (-scores[one], one))


SCHEMA = pa.schema([("title", pa.string()), ("n", pa.int64())])


@pytest.fixture
def made(tmp_path: Path):
    with Collection.create(
        tmp_path / "late", dimension=D, schema=SCHEMA, text_columns=["title"], multi_vector=True
    ) as collection:
        yield collection


def test_random_writes_equal_a_dictionary(made):
    """Adding, replacing, deleting, sealing, merging and compacting: answers are those of brute force throughout."""
    chance, model = random.Random(5), {}
    for step in range(30):
        what = chance.random()
        if what < 0.6:
            start, size = chance.randrange(0, 2000), chance.choice([1, 7, 120, 400])
            made.upsert(records(range(start, start + size), step), sets(range(start, start + size), step))
            model |= {
                f"r{n}": v
                for n, v in zip(range(start, start + size), sets(range(start, start + size), step), strict=True)
            }
        elif what < 0.85 and model:
            gone = chance.sample(sorted(model), min(len(model), chance.choice([1, 60])))
            assert made.delete(gone) == len(gone)
            for one in gone:
                del model[one]
        else:
            made.compact()
        assert len(made) == len(model)
        query = sets([chance.randrange(5000)], 77)[0]
        found = made.search(vector=query, k=8)
        assert [hit.id for hit in found.hits] == brute(query, model)[:8]
        assert found.total == len(model) and found.plan["answer"] == "exact"
    ids, held = made.vector_sets()
    assert set(ids) == set(model)
    for number, one in enumerate(ids):
        np.testing.assert_allclose(held.values[held.offsets[number] : held.offsets[number + 1]], model[one], atol=1e-6)
    assert made.verify().ok
    with Collection.open(made.path) as reader:
        assert [hit.id for hit in reader.search(vector=query, k=8).hits] == brute(query, model)[:8]


def test_filters_pages_likeness_and_batches(made):
    made.upsert(records(range(600)), sets(range(600)))
    held = {f"r{n}": v for n, v in enumerate(sets(range(600)))}
    query = sets([3], 5)[0]
    even = {one: v for one, v in held.items() if int(one[1:]) < 300}
    found = made.search(vector=query, k=20, where="n < 300")
    assert [hit.id for hit in found.hits] == brute(query, even)[:20] and found.total == 300
    pages = [made.search(vector=query, k=7, offset=start).hits for start in range(0, 21, 7)]
    assert [hit.id for page in pages for hit in page] == brute(query, held)[:21]
    del held["r40"]
    near = made.search(like="r40", k=9)
    assert [hit.id for hit in near.hits] == brute(sets([40])[0], held)[:9] and near.total == 599
    held["r40"] = sets([40])[0]
    asked = sets(range(700, 705))
    for one, result in zip(
        asked, made.search_many(VectorSets(np.concatenate(asked), np.cumsum([0, *map(len, asked)])), k=5), strict=True
    ):
        assert [hit.id for hit in result.hits] == brute(one, held)[:5]
    assert made.search(vector=query[0], k=1).hits[0].id == brute(query[:1], held)[0]
    assert made.search("title", mode="text", k=600).total == 600
    assert len(made.search(vector=query, k=50, sort="n desc").hits) == 50


def test_unchanged_vectors_are_not_written_again(made):
    first = made.upsert(records(range(50)), sets(range(50)))
    again = made.upsert(records(range(50)), sets(range(50)))
    assert (first.added, again.unchanged) == (50, 50)
    changed = made.upsert(records(range(50)), sets(range(49)) + sets([49], 1))
    assert (changed.updated, changed.unchanged) == (1, 49)


def test_means_stand_for_records(made):
    made.upsert(records(range(10)), sets(range(10)))
    _, means = made.vectors(["r8", "r2"])
    for mean, one in zip(means, (8, 2), strict=True):
        total = sets([one])[0].sum(axis=0)
        np.testing.assert_allclose(mean, total / np.linalg.norm(total), atol=1e-6)


def test_everything_leaves(made, tmp_path):
    made.upsert(records(range(700)), sets(range(700)))
    made.upsert(records(range(5), 1), sets(range(5), 1))
    made.export(tmp_path / "out.parquet")
    table = {row["id"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert len(table) == 700
    np.testing.assert_allclose(table["r3"]["vector"], sets([3], 1)[0], atol=1e-6)
    np.testing.assert_allclose(table["r699"]["vector"], sets([699])[0], atol=1e-6)
    made.snapshot(tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        assert copy.verify().ok and copy.multi_vector and len(copy) == 700
        query = sets([4], 3)[0]
        assert copy.search(vector=query).hits == made.search(vector=query).hits


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.eye(2, D), "several vectors a record"),
        ([np.eye(2, D), np.eye(2, D + 1)], r"item 2 has vectors of shape \(2, 17\)"),
        ([np.eye(2, D), np.zeros((0, D))], "item 2 has no vector"),
        ([np.eye(2, D), np.zeros((1, D))], "item 2 has a vector that is zero"),
        ([np.eye(2, D), np.full((1, D), np.nan)], "token vector 2 holds NaN"),
        ([np.eye(2, D)], "2 records and 1 vectors"),
        ((np.eye(4, D), np.array([0, 2, 3])), "offsets must rise"),
        ([np.eye(2, D), "word"], "item 2 must be numbers"),
    ],
)
def test_bad_vectors_are_named_and_nothing_is_written(made, given, said):
    with pytest.raises(ShapeError, match=said):
        made.upsert(records(range(2)), given)
    assert len(made) == 0


def test_the_two_kinds_do_not_mix(made, tmp_path):
    with Collection.create(tmp_path / "one", dimension=D) as single:
        with pytest.raises(ShapeError, match="one vector a record"):
            single.upsert([{"id": "a"}], VectorSets(np.eye(2, D, dtype=np.float32), np.array([0, 2])))
        with pytest.raises(InputError, match=r"use vectors\(\)"):
            single.vector_sets()
        assert single.info()["format"] == 1
    assert made.info()["format"] == 2 and made.info()["multi_vector"]
    with pytest.raises(NotFoundError, match="no record 'zz'"):
        made.vector_sets(["zz"])


def test_a_flipped_bit_is_found_when_it_is_read(made):
    made.upsert(records(range(1500)), sets(range(1500)))
    made.close()
    (segment,) = (made.path / "segments").glob("*.seg")
    body = bytearray(segment.read_bytes())
    body[len(body) * 3 // 4] ^= 4
    segment.write_bytes(body)
    with Collection.open(made.path) as damaged:
        with pytest.raises(CorruptionError, match="damaged at byte"):
            damaged.search(vector=sets([1])[0])
        assert [problem.file for problem in damaged.verify().problems] == [f"segments/{segment.name}"]


def test_encodings_answer_and_are_never_trusted(made, monkeypatch):
    """Built by the writer, named by the manifest, used by readers; damaged or foreign ones are left aside."""
    monkeypatch.setattr(late, "PLAIN_VECTORS", 3000)
    monkeypatch.setattr(encoded, "SHORTLIST", 200)
    for start in range(0, 3000, 600):
        made.upsert(records(range(start, start + 600)), sets(range(start, start + 600)))
    held = {f"r{n}": v for n, v in enumerate(sets(range(3000)))}
    assert made.info()["indexes"][0]["kind"] == "muvera"
    asked = sets(range(9000, 9030), 2)
    shared = 0
    with Collection.open(made.path) as reader:
        for query in asked:
            found = reader.search(vector=query, k=10)
            assert found.plan["answer"] == "approximate"
            truth = exact(reader, query, 10)
            assert list(truth) == brute(query, held)[:10]
            assert all(hit.score == truth[hit.id] for hit in found.hits if hit.id in truth)
            shared += len(truth.keys() & {hit.id for hit in found.hits})
        few = reader.search(vector=asked[0], k=10, where="n < 90")
        assert few.plan["answer"] == "exact" and few.total == 90
    assert shared >= 0.9 * 300
    made.delete([f"r{n}" for n in range(0, 3000, 3)])
    assert not {f"r{n}" for n in range(0, 3000, 3)} & {hit.id for hit in made.search(vector=asked[1], k=50).hits}
    files = sorted((made.path / "encodings").iterdir())
    copies = {file: file.read_bytes() for file in files}
    made.close()
    for file in files:
        body = bytearray(copies[file])
        body[len(body) // 2] ^= 1
        file.write_bytes(body)
        with Collection.open(made.path) as reader:
            found = reader.search(vector=asked[2], k=5)
            truth = exact(reader, asked[2], 2000)
            assert len(found.hits) == 5 and all(hit.score == truth[hit.id] for hit in found.hits)
            assert reader.info()["indexes"][0]["problem"]
        file.write_bytes(copies[file])
    shutil.rmtree(made.path / "encodings")
    with Collection.open(made.path, writable=True) as writer:
        assert writer.search(vector=asked[2], k=5).plan["answer"] == "exact"
        writer.compact()
        assert writer.search(vector=asked[2], k=5).plan["answer"] == "approximate"
        named = {file.name for file in (made.path / "encodings").iterdir()}
        assert len(named) == 2 and writer.verify().ok


def exact(collection: Collection, query: np.ndarray, k: int) -> dict[str, float]:
    """Ids and scores of the k best, best first, whatever the encodings say."""
    with collection.read() as snapshot:
        scores, rows, done = snapshot.view.search([query], k, snapshot.view.live, exact=True)
        ids = dict(snapshot.connection.execute("SELECT row, id FROM records"))
    assert done["answer"] == "exact"
    return {ids[row]: score for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)}


class Words:
    """A late-interaction encoder of words, by hash; counts what it reads."""

    def __init__(self) -> None:
        self.read = 0

    def describe(self) -> EncoderDescription:
        return EncoderDescription("words", "d" * 32, D, multi_vector=True)

    def encode(self, texts, batch_size=64, show_progress_bar=None) -> VectorSets:
        self.read += len(texts)
        parts = [np.concatenate([sets([hash_of(word)])[0][:1] for word in text.split()]) for text in texts]
        return VectorSets(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))


def hash_of(word: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 100_003


def test_an_encoder_of_several_vectors(tmp_path):
    encoder = Words()
    with Collection.create(tmp_path / "c", encoder=encoder, schema=SCHEMA, text_columns=["title"]) as collection:
        assert collection.multi_vector
        rows = [{"id": "a", "title": "red green blue", "n": 1}, {"id": "b", "title": "one two three four", "n": 2}]
        collection.upsert(rows)
        hits = collection.search("three two").hits
        assert hits[0].id == "b" and hits[0].score == pytest.approx(2, abs=1e-5)
        before = encoder.read
        collection.upsert([{"id": "a", "title": "red green blue", "n": 7}])
        assert encoder.read == before and collection.get("a")[0]["n"] == 7
        assert [one.hits[0].id for one in collection.search_many(["green", "four"], k=1)] == ["a", "b"]
        assert collection.search("blue", mode="hybrid").hits[0].id == "a"
        with pytest.raises(FingerprintError):
            collection.search(vector=np.eye(2, D))

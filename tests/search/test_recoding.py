"""Another encoder for all records: one commit, breaks before it, readers that go on."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest

from isometry.errors import InputError
from isometry.search import Collection, SearchPlan
from isometry.types import EncoderDescription


class Letters:
    """A text to a vector that follows from its characters; `seed` makes another encoder."""

    def __init__(self, dimension: int, seed: int = 0, fail_after: int | None = None) -> None:
        self.dimension, self.seed, self.fail_after, self.seen = dimension, seed, fail_after, 0

    def describe(self) -> EncoderDescription:
        return EncoderDescription(f"letters-{self.seed}", f"{self.seed}", self.dimension)

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        self.seen += len(inputs)
        if self.fail_after is not None and self.seen > self.fail_after:
            raise RuntimeError("cut off")
        return np.stack([self._one(text) for text in inputs]) if len(inputs) else np.empty((0, self.dimension), "f4")

    def _one(self, text: str) -> np.ndarray:
        made = np.random.default_rng([self.seed, *text.encode()]).standard_normal(self.dimension)
        return (made / np.linalg.norm(made)).astype(np.float32)


def fill(path, encoder, count=1500):
    schema = pa.schema([("title", pa.string())])
    opened = Collection.create(path, encoder=encoder, schema=schema, text_columns=["title"])
    opened.upsert([{"id": f"r{i}", "title": f"text {i}"} for i in range(count)])
    return opened


def test_vectors_encoder_and_plan_change_together(tmp_path):
    old, new = Letters(16), Letters(8, 1)
    with fill(tmp_path / "c", old) as opened:
        opened.set_plan(SearchPlan(index="cells"))
        opened.delete(["r3", "r700"])
        opened.upsert([{"id": "r5", "title": "other words"}])
        seen = []
        opened.recode(new, plan=SearchPlan(index="graph", links=4), progress=lambda d, t: seen.append((d, t)))
        assert seen[-1] == (1498, 1498)
        assert (
            opened.dimension == 8 and opened.plan.index == "graph" and opened.fingerprint == new.describe().fingerprint
        )
        assert opened.info()["indexes"][0]["complete"] and opened.info()["indexes"][0]["rows"] == 1498
        ids, vectors = opened.vectors()
        texts = {f"r{i}": f"text {i}" for i in range(1500)} | {"r5": "other words"}
        np.testing.assert_allclose(vectors, new.encode([texts[one] for one in ids]), atol=1e-6)
        assert opened.search("text 9", k=1, exact=True).hits[0].id == "r9"
        assert opened.upsert([{"id": "r9", "title": "text 9"}]).unchanged == 1  # nothing is encoded for nothing
        assert opened.upsert([{"id": "r9", "title": "text nine"}]).updated == 1
        assert opened.search("text nine", k=1).hits[0].id == "r9"
        assert opened.verify().ok and not list((tmp_path / "c" / "cache").glob("recode-*"))
    with Collection.open(tmp_path / "c", encoder=new) as reader:
        assert reader.search("text nine", k=1).hits[0].id == "r9"


def test_a_break_leaves_the_old_and_the_next_call_goes_on(tmp_path):
    with fill(tmp_path / "c", Letters(16)) as opened:
        before = opened.vectors()[1]
        with pytest.raises(RuntimeError, match="cut off"):
            opened.recode(Letters(8, 1, fail_after=1100))
        np.testing.assert_array_equal(opened.vectors()[1], before)
        assert opened.search("text 9", k=1).hits[0].id == "r9"
        (part,) = (tmp_path / "c" / "cache").glob("recode-*")
        whole = part.read_bytes()
        assert len(whole) == 2 * (4 + 512 * 8 * 4)
        part.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:] + b"more")
        new = Letters(8, 1)
        opened.recode(new)
        assert new.seen == 1500 - 512  # the harmed chunk is made again, the first is not
        np.testing.assert_allclose(opened.vectors()[1], new.encode([f"text {i}" for i in range(1500)]), atol=1e-6)


def test_a_commit_that_fails_changes_nothing(tmp_path, monkeypatch):
    with fill(tmp_path / "c", Letters(16)) as opened:
        before = opened.vectors()[1]
        monkeypatch.setattr(
            "isometry.search.store.store._save_meta", lambda *given: (_ for _ in ()).throw(OSError(28, "full"))
        )
        with pytest.raises(OSError, match="full"):
            opened.recode(Letters(8, 1))
        monkeypatch.undo()
        np.testing.assert_array_equal(opened.vectors()[1], before)
        assert opened.dimension == 16 and opened.fingerprint == Letters(16).describe().fingerprint
    with Collection.open(tmp_path / "c", writable=True, encoder=Letters(16)) as opened:
        assert opened.verify().ok and opened.search("text 9", k=1).hits[0].id == "r9"
        assert len(list((tmp_path / "c" / "segments").iterdir())) == 1


def test_readers_see_the_old_or_the_new_and_nothing_between(tmp_path, monkeypatch):
    """Readers in other threads, with an own Collection, load the new encoder by its name and never mix."""
    made = {"letters-0": Letters(16), "letters-1": Letters(8, 1)}
    monkeypatch.setattr("isometry.encoders.load_encoder", lambda name: made[name])
    stop, wrong, seen = threading.Event(), [], set()

    def read():
        with Collection.open(tmp_path / "c") as reader:
            while not stop.is_set():
                for result in (reader.search("text 9", k=3), reader.search_many(["text 9"], k=3)[0]):
                    if result.hits[0].id != "r9" or result.hits[0].score < 0.999:
                        wrong.append(result)
                seen.add(reader.dimension)

    with fill(tmp_path / "c", made["letters-0"], 600) as opened:
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not seen:
            threads[0].join(0.01)
        for turn in range(4):
            opened.recode(made[f"letters-{(turn + 1) % 2}"])
        opened.recode(made["letters-1"])
        while 8 not in seen and any(thread.is_alive() for thread in threads):
            threads[0].join(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and seen == {8, 16}


def test_what_cannot_be_encoded_is_refused(tmp_path):
    with Collection.create(tmp_path / "c", dimension=4) as opened:
        opened.upsert([{"id": "a"}], np.ones((1, 4)))
        with pytest.raises(InputError, match="no text columns"):
            opened.recode(Letters(8))
    with (
        fill(tmp_path / "d", Letters(16), 3) as opened,
        Collection.open(tmp_path / "d") as reader,
        pytest.raises(InputError, match="writable=True"),
    ):
        reader.recode(Letters(8, 1))

"""One flipped bit anywhere in a store is found, or changes nothing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isometry.errors import IsometryError
from isometry.search import Collection
from isometry.search.store import verify_store
from tests.search.store.workload import DIMENSION, SCHEMA, records, vectors


def _make(folder: Path) -> None:
    with Collection.create(folder, dimension=DIMENSION, schema=SCHEMA, text_columns=["title"]) as collection:
        for start in range(0, 2400, 400):
            numbers = range(start, start + 400)
            collection.upsert(records(numbers, 1), vectors(numbers, 1))
        collection.delete([f"r{number}" for number in range(10, 60)])
        collection.upsert(records(range(70, 90), 2), vectors(range(70, 90), 2))


def _everything(folder: Path) -> dict[str, Any]:
    """All that a person can read out of a store."""
    with Collection.open(folder) as collection:
        ids, held = collection.vectors()
        table = [record for batch in collection.iter_records() for record in batch.to_pylist()]
        hits = [collection.search(vector=vectors(range(n, n + 1), 1)[0], k=7) for n in (3, 75, 2000)]
        words = [collection.search(word, mode="text", k=50) for word in ("edition", "75", "title 1999")]
        return {
            "ids": ids,
            "vectors": held.tobytes(),
            "table": table,
            "hits": [[(hit.id, hit.score) for hit in result.hits] for result in [*hits, *words]],
            "facets": collection.facets(["tags", "n"]),
        }


def _trials(tmp_path: Path, source: Path, trials: int, seed: int) -> dict[str, int]:
    files = sorted(file for file in source.rglob("*") if file.is_file() and file.stat().st_size)
    whole, chance, seen = _everything(source), random.Random(seed), {"found": 0, "harmless": 0}
    for trial in range(trials):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        original = files[trial % len(files)]
        target = copy / original.relative_to(source)
        data = bytearray(target.read_bytes())
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        data[place] ^= 1 << bit
        target.write_bytes(bytes(data))
        report = verify_store(copy)
        if report.ok:
            try:
                after = _everything(copy)
            except IsometryError:
                seen["found"] += 1
            else:
                assert after == whole, f"{original.name}, byte {place}, bit {bit}: silently changed"
                seen["harmless"] += 1
        else:
            seen["found"] += 1
        shutil.rmtree(copy)
    return seen


def test_a_flipped_bit_is_found_or_harmless(tmp_path):
    _make(tmp_path / "store")
    seen = _trials(tmp_path, tmp_path / "store", 60, seed=1)
    assert seen["found"] > 15


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_500_flipped_bits(tmp_path):
    _make(tmp_path / "store")
    seen = _trials(tmp_path, tmp_path / "store", 500, seed=2)
    assert seen["found"] > 150


def test_every_block_of_a_segment_is_guarded(tmp_path):
    """In vector files nothing is harmless: each flipped bit is reported with the file it is in."""
    _make(tmp_path / "store")
    segments = sorted((tmp_path / "store" / "segments").iterdir())
    chance = random.Random(5)
    for segment in segments:
        whole = segment.read_bytes()
        for _ in range(12):
            data = bytearray(whole)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            segment.write_bytes(bytes(data))
            report = verify_store(tmp_path / "store")
            assert [problem.file for problem in report.problems if problem.file.startswith("segments/")] == [
                f"segments/{segment.name}"
            ]
            with pytest.raises(IsometryError):
                Collection.open(tmp_path / "store")
        segment.write_bytes(whole)
    assert verify_store(tmp_path / "store").ok


def test_a_flip_in_the_log_of_a_killed_writer_is_found(tmp_path):
    """A damaged frame would make SQLite drop acknowledged commits in silence; the commit mark tells."""
    source = tmp_path / "store"
    collection = Collection.create(source, dimension=DIMENSION, schema=SCHEMA, text_columns=["title"])
    for start in range(0, 60, 10):
        collection.upsert(records(range(start, start + 10), 1), vectors(range(start, start + 10), 1))
    copy = tmp_path / "killed"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*-shm"))
    collection.close()
    whole, chance, found = (copy / "collection.sqlite-wal").read_bytes(), random.Random(3), 0
    for number in range(30):
        trial = tmp_path / f"trial {number}"
        shutil.copytree(copy, trial)
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (trial / "collection.sqlite-wal").write_bytes(bytes(data))
        if verify_store(trial).ok:
            with Collection.open(trial) as opened:
                assert len(opened) == 60
        else:
            found += 1
    assert found > 0


def test_missing_and_truncated_files(tmp_path):
    _make(tmp_path / "store")
    for name in ("collection.sqlite", "commits"):
        copy = tmp_path / f"without {name}"
        shutil.copytree(tmp_path / "store", copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        assert not verify_store(copy).ok or name == "commits"
    copy = tmp_path / "short"
    shutil.copytree(tmp_path / "store", copy)
    segment = next((copy / "segments").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(IsometryError, match="bytes instead of"):
        Collection.open(copy)
    segment.unlink()
    with pytest.raises(IsometryError):
        Collection.open(copy)
    assert not np.any([verify_store(copy).ok])

"""Facets count the records that a search speaks of, against counting by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from isometry.errors import InputError
from isometry.search import Collection
from isometry.search.queries import DEPTH

SCHEMA = pa.schema([("text", pa.string()), ("kind", pa.string()), ("tags", pa.list_(pa.string()))])


@pytest.fixture
def collection(tmp_path):
    """600 records on a half circle, in order of their angle from (1, 0)."""
    records = [
        {
            "id": f"r{n}",
            "text": f"{'river' if n % 3 else 'stone'} {n}",
            "kind": f"k{n * 7 % 5}",
            "tags": ["a", f"t{n % 2}"],
        }
        for n in range(600)
    ]
    angles = np.linspace(0, np.pi, 600)
    with Collection.create(tmp_path / "c", dimension=2, schema=SCHEMA, text_columns=["text"]) as made:
        made.add(records, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
        yield made


def as_counts(values) -> dict:
    return {one["value"]: one["count"] for one in values}


def test_words_count_only_records_that_hold_them(collection):
    held = [n for n in range(600) if n % 3 == 0]
    counts = collection.facets(["kind", "tags"], query="stone", mode="text")
    assert as_counts(counts["kind"]) == Counter(f"k{n * 7 % 5}" for n in held)
    assert as_counts(counts["tags"]) == Counter(tag for n in held for tag in ("a", f"t{n % 2}"))
    filtered = collection.facets(["kind"], query="stone", mode="text", where="kind = 'k0' OR text LIKE '%9'")["kind"]
    assert as_counts(filtered) == Counter(f"k{n * 7 % 5}" for n in held if n * 7 % 5 == 0 or n % 10 == 9)
    assert collection.facets(["kind"], query="?!", mode="text") == {"kind": []}


def test_rankings_count_the_most_relevant(collection):
    counts = collection.facets(["kind"], like="r0")["kind"]
    assert as_counts(counts) == Counter(f"k{n * 7 % 5}" for n in range(1, DEPTH + 1))
    filtered = collection.facets(["kind"], like="r0", where="'t1' IN tags")["kind"]
    assert as_counts(filtered) == Counter(f"k{n * 7 % 5}" for n in range(1, 2 * DEPTH, 2))
    assert sum(as_counts(collection.facets(["kind"], like="r0", where="kind = 'k1'")["kind"]).values()) == 120


def test_without_words_the_filter_alone_counts(collection):
    assert as_counts(collection.facets(["kind"])["kind"]) == {f"k{n}": 120 for n in range(5)}


def test_words_need_a_text_column(tmp_path):
    with Collection.create(tmp_path / "plain", dimension=2, schema=pa.schema([("kind", pa.string())])) as made:
        made.add([{"id": "1", "kind": "x"}], np.ones((1, 2), np.float32))
        with pytest.raises(InputError, match="no text columns"):
            made.facets(["kind"], query="x", mode="text")

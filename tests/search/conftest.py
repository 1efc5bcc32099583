"""Small collections of given vectors, and one of real papers with the bundled encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isometry.search import Collection

SCHEMA = pa.schema(
    [
        ("title", pa.string()),
        ("n", pa.int64()),
        ("weight", pa.float64()),
        ("created", pa.date32()),
        ("seen", pa.timestamp("us")),
        ("tags", pa.list_(pa.string())),
        ("ok", pa.bool_()),
    ]
)


def rows(numbers: range) -> list[dict]:
    """Records whose attributes follow from their number; every tenth misses some."""
    import datetime

    words = ("graph", "vector", "index", "language", "image", "sound", "matrix")
    made = []
    for number in numbers:
        bare = number % 10 == 9
        made.append(
            {
                "id": f"r{number}",
                "title": f"{words[number % 7]} number {number} {words[(number // 7) % 7]}",
                "n": number,
                "weight": None if bare else number / 4,
                "created": None if bare else datetime.date(2000 + number % 20, 1 + number % 12, 1 + number % 28),
                "seen": datetime.datetime(2020, 1, 1, number % 24, number % 60),
                "tags": None if bare else [f"t{number % 3}", f"u{number % 5}"],
                "ok": None if bare else number % 2 == 0,
            }
        )
    return made


def unit_vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def numbered(tmp_path: Path):
    """300 records with given vectors, open for writing."""
    with Collection.create(tmp_path / "numbered", dimension=16, schema=SCHEMA, text_columns=["title"]) as collection:
        collection.upsert(
            pa.Table.from_pylist(rows(range(300)), SCHEMA.insert(0, pa.field("id", pa.string()))), unit_vectors(300)
        )
        yield collection

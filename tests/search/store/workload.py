"""A fixed run of writes, acknowledged one by one; run as a program under the recorder, imported for the expected states."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

DIMENSION = 16
SCHEMA = pa.schema([("title", pa.string()), ("n", pa.int64()), ("tags", pa.list_(pa.string()))])


def records(numbers: range, edition: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"r{number}" for number in numbers],
            "title": [f"title {number} of edition {edition}" for number in numbers],
            "n": pa.array([number * edition for number in numbers], pa.int64()),
            "tags": pa.array([[f"t{number % 3}", f"e{edition}"] for number in numbers], pa.list_(pa.string())),
        }
    )


def vectors(numbers: range, edition: int) -> np.ndarray:
    return np.stack([np.random.default_rng([number, edition]).normal(size=DIMENSION) for number in numbers]).astype(
        "f4"
    )


def steps() -> list[tuple[str, Any]]:
    """(what, arguments): each is one acknowledged change."""
    plan: list[tuple[str, Any]] = [("create", None)]
    plan += [("upsert", (range(start, start + 5), 1)) for start in range(0, 40, 5)]
    plan += [("upsert", (range(0, 1200), 2))]
    plan += [("delete", range(3, 30, 4)), ("upsert", (range(1, 2), 3)), ("delete", range(0, 2))]
    plan += [("upsert", (range(start, start + 3), 4)) for start in range(2000, 2030, 3)]
    plan += [("compact", None)]
    plan += [("upsert", (range(1100, 1300), 5)), ("delete", range(2000, 2020)), ("upsert", (range(5000, 6100), 6))]
    plan += [("upsert", (range(7, 9), 7)), ("compact", None), ("upsert", (range(0, 4), 8))]
    plan += [("delete", range(5990, 6000)), ("replace", None), ("upsert", (range(4, 6), 9))]
    return plan


def expected_states() -> list[dict[str, int]]:
    """After each step: the edition of every record that is there. Entry 0 is before the first step."""
    states: list[dict[str, int]] = [{}]
    for what, given in steps():
        state = dict(states[-1])
        if what == "upsert":
            numbers, edition = given
            state |= {f"r{number}": edition for number in numbers}
        elif what == "delete":
            for number in given:
                state.pop(f"r{number}", None)
        states.append(state)
    return states


def sets(numbers: range, edition: int) -> list[np.ndarray]:
    """One to three times the same vector, so that a record's mean is that vector."""
    return [
        np.repeat(one[None], 1 + number % 3, axis=0)
        for number, one in zip(numbers, vectors(numbers, edition), strict=True)
    ]


def main(folder: Path, acks: Path, several: bool) -> None:
    """`several`: vectors a record."""
    from isometry.search import Collection

    collection: Any = None
    handle = os.open(acks, os.O_WRONLY | os.O_CREAT)
    for number, (what, given) in enumerate(steps(), start=1):
        if what == "create":
            collection = Collection.create(
                folder, dimension=DIMENSION, schema=SCHEMA, text_columns=["title"], multi_vector=several
            )
        elif what == "upsert":
            collection.upsert(records(*given), (sets if several else vectors)(*given))
        elif what == "delete":
            collection.delete([f"r{one}" for one in given])
        elif what == "replace" and not several:
            collection._writer().replace_vectors(iter([collection.vectors()[1]]), DIMENSION, {})
        else:
            collection.compact()
        os.write(handle, number.to_bytes(4, "little"))
    collection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "several" in sys.argv)

"""Several vectors a record from the command line, and the page that says how."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from isometry.encoders import load_encoder
from isometry.search import Collection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "late-interaction.md"


def test_indexed_and_found_by_token_vectors(run, tmp_path):
    titles = [f"{word} {thing}" for word in ("red", "green", "old", "quick") for thing in ("house", "river", "proof")]
    rows = [{"id": f"r{n}", "title": title, "year": 2000 + n} for n, title in enumerate(titles)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = run("index", source, "--into", tmp_path / "c", "--encoder", "default#tokens=8", "--json")
    assert made.code == 0 and made.json["records"] == 12
    found = run("search", tmp_path / "c", "a fast stream", "-k", "12", "--where", "year >= 2003", "--json").json
    encoder = load_encoder("default#tokens=8")
    asked, held = encoder.encode_queries(["a fast stream"]), encoder.encode(titles)
    best = [
        (asked.values @ held.values[start:stop].T).max(axis=1).sum()
        for start, stop in zip(held.offsets, held.offsets[1:], strict=False)
    ]
    order = sorted(range(3, 12), key=lambda n: -best[n])
    assert [hit["id"] for hit in found["hits"]] == [f"r{n}" for n in order]
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], [best[n] for n in order], atol=2e-2)
    assert found["plan"]["answer"] == "exact"
    assert run("info", tmp_path / "c", "--json").json["multi_vector"] is True
    assert run("verify", tmp_path / "c").code == 0


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, parts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(parts, {})
    draw = np.random.default_rng(0)
    first, second, query = (draw.standard_normal((count, 128)).astype(np.float32) for count in (3, 5, 2))
    given = {"schema": pa.schema([("title", pa.string())]), "records": [{"id": i, "title": i} for i in ("a", "b")],
             "array_of_first": first, "array_of_second": second, "array_of_query": query}  # fmt: skip
    exec(own, given)
    with Collection.open("late") as papers:
        assert len(papers.search(vector=query, k=2).hits) == 2

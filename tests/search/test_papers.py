"""Real papers with the bundled encoder: what a person would ask."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from isometry.search import Collection
from tests.conftest import EXAMPLES

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    from isometry.encoders import load_encoder

    table = pq.read_table(EXAMPLES / "arxiv-small.parquet").slice(2000, 150)
    path = tmp_path_factory.mktemp("papers") / "papers"
    schema = table.schema.remove(table.schema.get_field_index("id"))
    with Collection.create(path, encoder=load_encoder(), schema=schema, text_columns=["title", "abstract"]) as opened:
        opened.upsert(table)
        yield opened, table.to_pylist()


def test_a_title_finds_its_paper(papers):
    collection, records = papers
    for mode in ("vector", "text", "hybrid"):
        results = [collection.search(record["title"], k=3, mode=mode) for record in records[::10]]
        found = sum(
            record["id"] in {hit.id for hit in one.hits} for record, one in zip(records[::10], results, strict=True)
        )
        assert found >= 14, mode


def test_hybrid_explains_itself(papers):
    collection, _ = papers
    result = collection.search("learning from networks", mode="hybrid", explain=True, k=5)
    vector = [hit.id for hit in collection.search("learning from networks", k=150).hits]
    text = [hit.id for hit in collection.search("learning from networks", k=150, mode="text").hits]
    for hit in result.hits:
        parts = {name: part for name, part in hit.explanation.items() if name != "formula"}
        ranks = {"vector": vector.index(hit.id) + 1} | ({"text": text.index(hit.id) + 1} if hit.id in text else {})
        assert {name: part["rank"] for name, part in parts.items()} == ranks
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks.values()))
        assert hit.explanation["formula"] == " + ".join(f"1/(60 + {part['rank']})" for part in parts.values())
    assert {"encode", "scan", "text", "fetch"} <= set(result.plan["stages_ms"])


def test_the_filter_of_the_readme(papers):
    collection, records = papers
    wanted = {r["id"] for r in records if r["created"] >= "2017" and "cs.LG" in r["categories"].split()}
    found = collection.search("networks", k=150, where="year >= 2017 AND 'cs.LG' IN categories")
    assert {hit.id for hit in found.hits} == wanted and found.total == len(wanted)

"""isometry eval over a collection (full text) and over an encoder (a bag of letters stands in for one)."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

import isometry.encoders
from isometry.cli.main import main
from isometry.evaluation import Document, write_beir
from isometry.search import Collection
from isometry.types import EncoderDescription

WORDS = "amber basalt cedar dune ember fjord glade heath islet jetty kelp lagoon".split()  # noqa: SIM905
DOCUMENTS = [Document(f"d{i}", word, f"{word} and {WORDS[i - 1]}") for i, word in enumerate(WORDS)]
QUERIES = {f"q{i}": word for i, word in enumerate(WORDS)}
JUDGED = {f"q{i}": {f"d{i}": 2, f"d{(i + 1) % 12}": 1} for i in range(12)}


class Letters:
    """Counts letters; `scale` mixes in noise, so that one is worse than the other."""

    truncated = 0

    def __init__(self, noise=0.0):
        self.noise = noise

    def describe(self):
        return EncoderDescription("letters", str(self.noise), 26, normalized=False)

    def encode(self, texts, batch_size=64, show_progress_bar=None):
        counts = np.array([[text.count(chr(97 + c)) for c in range(26)] for text in texts], dtype=np.float32)
        return counts + self.noise * np.random.default_rng(0).random(counts.shape, dtype=np.float32)

    encode_queries = encode


@pytest.fixture
def beir(tmp_path):
    write_beir(tmp_path / "set", DOCUMENTS, QUERIES, {"test": {**JUDGED, "q0": {"d0": 0}}})
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def encoders(monkeypatch):
    monkeypatch.setattr(
        isometry.encoders, "load_encoder", lambda name, **_: {"letters": Letters(), "noisy": Letters(9)}[name]
    )


def collection(path, ids):
    rows = [document for document in DOCUMENTS if document.id in ids]
    table = pa.table({"id": [d.id for d in rows], "title": [d.title for d in rows], "text": [d.text for d in rows]})
    schema = pa.schema([("title", pa.string()), ("text", pa.string())])
    with Collection.create(path, dimension=2, schema=schema, text_columns=("title", "text")) as made:
        made.add(table, vectors=np.tile(np.array([[1, 0]], np.float32), (len(rows), 1)))
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["eval", *map(str, arguments)])
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


def test_a_collection_is_searched(beir, tmp_path, capsys):
    made = collection(tmp_path / "made", {document.id for document in DOCUMENTS})
    report = tmp_path / "report.html"
    code, text, errors = run(capsys, made, "--data", beir, "--mode", "text", "--report", report, "--json")
    assert code == 0, errors
    document = json.loads(text)
    assert (document["queries"], document["queries_without_relevant"], document["documents"]) == (11, 1, 12)
    assert set(document["metrics"]) == {"ndcg@10", "recall@10", "recall@100", "mrr@10", "map"}
    # each word stands in two documents, the relevant ones, and the better one holds it twice
    assert document["metrics"]["ndcg@10"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert report.read_text().startswith("<!doctype html>")


def test_an_encoder_is_ranked_in_memory_and_compared(beir, capsys):
    code, text, errors = run(capsys, "letters", "--data", beir, "--against", "noisy", "-k", 10, "--json")
    assert code == 0, errors
    document = json.loads(text)
    assert set(document["metrics"]) == {"ndcg@10", "recall@10", "mrr@10", "map"}  # k = 10 says nothing of recall@100
    better, worse = document["metrics"]["ndcg@10"], document["against"]["metrics"]["ndcg@10"]
    assert better["interval"][0] <= better["value"] <= better["interval"][1]
    compared = document["comparison"]["ndcg@10"]
    assert compared["effect"] == pytest.approx(better["value"] - worse["value"])
    assert compared["p_holm"] >= compared["p"]
    assert document["against"]["target"] == "noisy"


def test_a_person_gets_tables(beir, capsys):
    code, text, _ = run(capsys, "letters", "--data", beir, "--against", "noisy")
    assert code == 0
    assert "set, test: 11 queries" in text
    assert "letters - noisy" in text
    assert "p (Holm)" in text


def test_missing_documents_stop_it_unless_allowed(beir, tmp_path, capsys):
    made = collection(tmp_path / "made", {f"d{i}" for i in range(10)})
    code, text, errors = run(capsys, made, "--data", beir, "--mode", "text", "--json")
    assert (code, text) == (2, "")
    assert "2 documents of" in errors
    assert "(the first is 'd10'; 2 of them are relevant to a query)" in errors
    code, text, errors = run(capsys, made, "--data", beir, "--mode", "text", "--allow-missing", "--json")
    assert code == 0
    assert json.loads(text)["missing_documents"] == 2
    assert "2 documents of" in errors


def test_judged_documents_that_the_corpus_lacks(beir, capsys):
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tghost\t1\nq1\td1\t1\n")
    code, _, errors = run(capsys, "letters", "--data", beir)
    assert code == 2
    assert "1 documents of" in errors
    assert "'ghost'" in errors
    assert run(capsys, "letters", "--data", beir, "--allow-missing")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("letters", "--data", "nowhere"), "there is no folder nowhere"),
        (("letters", "--data", "BEIR", "--split", "dev"), "no split 'dev': it has test"),
        (("letters", "--data", "BEIR", "--mode", "text"), "needs a collection, and letters is an encoder"),
        (("letters", "--data", "BEIR", "--mode", "magic"), "choose vector, text or hybrid"),
        (("letters", "--data", "BEIR", "-k", "0"), "k is 0"),
        (("letters", "--data", "BEIR", "--report", "x.pdf"), "give an .html or .md file"),
        (("letters", "--data", "BEIR", "--against", "letters"), "nothing to compare"),
    ],
)
def test_bad_input_is_one_sentence(beir, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, text, errors = run(capsys, *(beir if one == "BEIR" else one for one in arguments))
    assert (code, text) == (2, "")
    assert words in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_corpus_with_a_document_twice(beir, capsys):
    line = (beir / "corpus.jsonl").read_text().splitlines()[0]
    with (beir / "corpus.jsonl").open("a") as file:
        file.write(line + "\n")
    code, _, errors = run(capsys, "letters", "--data", beir)
    assert code == 2
    assert "stands twice" in errors

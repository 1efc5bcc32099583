from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, IsometryError, NotFoundError, RecordError
from isometry.evaluation import Document, beir_from_parquet, read_beir, write_beir

DOCUMENTS = [Document("d1", "Title", "text"), Document("d 2", "", "öther\nline"), Document("3", "x", "")]
QUERIES = {"q1": "first?", "q2": "second", "q3": "unjudged here"}
JUDGED = {"test": {"q2": {"d1": 1, "3": 0}, "q1": {"d 2": 2}}, "dev": {"q3": {"d1": 1}}}


@pytest.fixture
def folder(tmp_path):
    write_beir(tmp_path / "set", DOCUMENTS, QUERIES, JUDGED)
    return tmp_path / "set"


def test_round_trip(folder):
    data = read_beir(folder)
    assert list(data.documents()) == DOCUMENTS
    assert (data.name, data.split) == ("set", "test")
    assert data.queries == {"q1": "first?", "q2": "second"}
    assert list(data.queries) == ["q1", "q2"]
    assert data.judgements == JUDGED["test"]
    assert read_beir(folder, "dev").judgements == JUDGED["dev"]


def test_packed_files_numbers_and_marks(folder):
    for name in ("corpus", "queries"):
        path = folder / f"{name}.jsonl"
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n"))
        path.unlink()
    assert list(read_beir(folder).documents()) == DOCUMENTS
    (folder / "queries.jsonl").write_text('{"_id": 7, "text": "a number as id", "metadata": {}}\n')
    (folder / "qrels" / "other.tsv").write_text("7\td1\t1\n")  # without a header
    assert read_beir(folder, "other").queries == {"7": "a number as id"}


@pytest.mark.parametrize(
    ("file", "content", "error", "words"),
    [
        ("queries.jsonl", b'{"_id": "a", "text": "x"}\n{"_id": \n', RecordError, r"queries\.jsonl, row 2: not JSON"),
        ("queries.jsonl", b"[1]\n", RecordError, "holds one object, not list"),
        ("queries.jsonl", b'{"text": "x"}\n', RecordError, "row 1, column '_id': is missing"),
        ("queries.jsonl", b'{"_id": "a", "text": 5}\n', RecordError, "column 'text': must be text, not 5"),
        ("queries.jsonl", b'{"_id": "a", "text": " "}\n', RecordError, "column 'text': is empty"),
        ("queries.jsonl", b'{"_id": "a", "text": "x"}\n' * 2, RecordError, "row 2.*'a' was there before"),
        ("queries.jsonl", b'{"_id": "a", "text": "x"}\n\xff\n', RecordError, "row 2: not UTF-8"),
        ("queries.jsonl", b'{"_id": "other", "text": "x"}\n', InputError, "2 queries that are not in queries.jsonl"),
        ("queries.jsonl", b"[" * 100_000, RecordError, "not JSON"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1\td1\n", RecordError, r"test\.tsv, row 2: 2 fields"),
        ("qrels/test.tsv", b"h\th\th\nq1\td1\tgood\n", RecordError, "column 'score': 'good' is not a whole number"),
        ("qrels/test.tsv", b"h\th\th\nq1\td1\t1.5\n", RecordError, "is not a whole number"),
        ("qrels/test.tsv", b"h\th\th\nq1\td1\t1\nq1\td1\t0\n", RecordError, "row 3.*were judged before"),
        ("qrels/test.tsv", b"h\th\th\n\td1\t1\n", RecordError, "an id is empty"),
        ("qrels/test.tsv", b"h\th\th\n", InputError, "holds no judgement"),
    ],
)
def test_bad_lines_are_told_with_their_place(folder, file, content, error, words):
    (folder / file).write_bytes(content)
    with pytest.raises(error, match=words):
        read_beir(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b'{"_id": "a"}\n', "column 'text': is missing"), (b'{"_id": "a", "title": 3, "text": ""}\n', "column 'title'")],
)
def test_bad_documents(folder, content, words):
    (folder / "corpus.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=words):
        list(read_beir(folder).documents())


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(NotFoundError, match="no folder"):
        read_beir(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="no split 'train': it has dev, test"):
        read_beir(folder, "train")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(NotFoundError, match=r"not a BEIR folder: it has no corpus\.jsonl"):
        read_beir(folder)
    (folder / "corpus.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(read_beir(folder).documents())


def test_ids_that_a_table_cannot_hold(tmp_path):
    with pytest.raises(InputError, match="tabs or line ends"):
        write_beir(tmp_path, DOCUMENTS, QUERIES, {"test": {"q\t1": {"d1": 1}}})


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "corpus.jsonl.gz"]), st.binary(max_size=80))
def test_any_bytes_give_data_or_a_sentence(tmp_path_factory, file, content):
    folder = tmp_path_factory.mktemp("beir")
    write_beir(folder, DOCUMENTS, QUERIES, JUDGED)
    if file.endswith(".gz"):
        (folder / "corpus.jsonl").unlink()
    (folder / file).write_bytes(content)
    try:
        list(read_beir(folder).documents())
    except IsometryError as error:
        assert str(folder) in str(error)


@pytest.mark.parametrize(
    ("dataset", "documents", "queries"), [("cranfield", 1_398, 225), ("cisi", 1_460, 76), ("cacm", 3_204, 52)]
)
def test_shared_collections_convert(shared_data, tmp_path, dataset, documents, queries):
    data = beir_from_parquet(shared_data / "text", dataset, tmp_path / dataset)
    corpus = {document.id for document in data.documents()}
    assert (len(corpus), len(data.queries)) == (documents, queries)
    assert all(document in corpus for grades in data.judgements.values() for document in grades)


def test_unknown_collection(shared_data, tmp_path):
    with pytest.raises(NotFoundError, match="it has cranfield"):
        beir_from_parquet(shared_data / "text", "trec", tmp_path)
    with pytest.raises(NotFoundError, match="no file"):
        beir_from_parquet(tmp_path, "cisi", tmp_path)

"""Every kind of source gives the same records, and every kind of Python object is taken."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import zstandard

from isometry.errors import InputError, RecordError
from isometry.records import Source, open_source

ROWS = 2500
UTC = datetime.UTC


def table_of(source: Source) -> pa.Table:
    return pa.Table.from_batches(source.batches(), source.schema)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    random = np.random.default_rng(0)
    numbers = range(ROWS)
    return pa.table(
        {
            "id": [f"r{n}" for n in numbers],
            "title": [f'Title {n}, with "quotes" and ünïcode' for n in numbers],
            "abstract": [f"line one\nline two {n}" for n in numbers],
            "year": pa.array([None if n % 7 == 0 else 1990 + n % 30 for n in numbers], pa.int64()),
            "score": random.normal(size=ROWS),
            "open": pa.array([n % 3 == 0 for n in numbers]),
            "day": pa.array([datetime.date(2000, 1, 1) + datetime.timedelta(n) for n in numbers]),
            "seen": pa.array(
                [datetime.datetime(2020, 1, 1, 12, 0, 0, n, UTC) for n in numbers], pa.timestamp("us", "UTC")
            ),
            "code": [f"{n:06d}" for n in numbers],
        }
    )


def json_lines(table: pa.Table) -> bytes:
    return "".join(json.dumps(row, default=lambda v: v.isoformat()) + "\n" for row in table.to_pylist()).encode()


def csv_bytes(table: pa.Table, separator: str = ",") -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(table, sink, pacsv.WriteOptions(delimiter=separator))
    return sink.getvalue()


def make_parquet(table, folder):
    pq.write_table(table, folder / "a.parquet", row_group_size=300)
    return folder / "a.parquet"


def make_file(name, content):
    def make(table, folder):
        (folder / name).write_bytes(content(table))
        return folder / name

    return make


def make_arrow_file(table, folder):
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as sink:
        sink.write_table(table)
    return folder / "a.arrow"


def make_arrow_stream(table, folder):
    with pa.ipc.new_stream(folder / "a.arrows", table.schema) as sink:
        sink.write_table(table)
    return folder / "a.arrows"


def make_feather(table, folder):
    feather.write_feather(table, folder / "a.feather")
    return folder / "a.feather"


def make_shards(extension):
    def make(table, folder):
        (folder / "shards" / "deep").mkdir(parents=True)
        for number, start in enumerate(range(0, ROWS, 600)):
            part = table.slice(start, 600)
            path = folder / "shards" / ("deep" if start == 0 else "") / f"part-{number}.{extension}"
            if extension == "parquet":
                pq.write_table(part, path)
            else:
                path.write_bytes(csv_bytes(part) if extension == "csv" else gzip.compress(json_lines(part)))
        (folder / "shards" / "_SUCCESS").touch()
        return folder / "shards"

    return make


def make_dataset(table, folder):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset(table)


def make_selected_dataset(table, folder):
    datasets = pytest.importorskip("datasets")
    turned = datasets.Dataset(table.take(list(reversed(range(ROWS)))))
    return turned.select(list(reversed(range(ROWS))))


KINDS = {
    "parquet": make_parquet,
    "csv": make_file("a.csv", csv_bytes),
    "csv.gz": make_file("a.csv.gz", lambda table: gzip.compress(csv_bytes(table))),
    "csv in two gzip members": make_file(
        "a.csv.gz", lambda table: gzip.compress(csv_bytes(table)[:5000]) + gzip.compress(csv_bytes(table)[5000:])
    ),
    "csv with semicolons": make_file("a.csv", lambda table: csv_bytes(table, ";")),
    "csv with a byte order mark": make_file("a.csv", lambda table: b"\xef\xbb\xbf" + csv_bytes(table)),
    "csv with crlf": make_file("a.csv", lambda table: csv_bytes(table).replace(b'Z"\n', b'Z"\r\n')),
    "tsv.zst": make_file("a.tsv.zst", lambda table: zstandard.compress(csv_bytes(table, "\t"))),
    "jsonl": make_file("a.jsonl", json_lines),
    "jsonl.gz": make_file("a.jsonl.gz", lambda table: gzip.compress(json_lines(table))),
    "ndjson.zst": make_file("a.ndjson.zst", lambda table: zstandard.compress(json_lines(table))),
    "json": make_file("a.json", lambda table: b"[" + b",".join(json_lines(table).splitlines()) + b"]"),
    "no suffix": make_file("records", json_lines),
    "arrow file": make_arrow_file,
    "arrow stream": make_arrow_stream,
    "feather": make_feather,
    "folder of parquet": make_shards("parquet"),
    "folder of csv": make_shards("csv"),
    "folder of jsonl": make_shards("jsonl.gz"),
    "pandas": lambda table, folder: table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get),
    "pandas with an index": lambda table, folder: table.to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    ).set_index("id"),
    "polars": lambda table, folder: pl.from_arrow(table),
    "polars lazy": lambda table, folder: pl.from_arrow(table).lazy(),
    "arrow table": lambda table, folder: table,
    "record batch": lambda table, folder: table.combine_chunks().to_batches()[0],
    "record batch reader": lambda table, folder: table.to_reader(200),
    "arrow dataset": lambda table, folder: pads.dataset(make_parquet(table, folder)),
    "datasets": make_dataset,
    "datasets with a selection": make_selected_dataset,
    "list of dictionaries": lambda table, folder: table.to_pylist(),
    "iterator of dictionaries": lambda table, folder: iter(table.to_pylist()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_records(kind, table, tmp_path):
    source = open_source(KINDS[kind](table, tmp_path), batch_rows=256)
    assert source.id_column == "id" and source.text_columns == ("title", "abstract")
    assert source.check().rows == ROWS
    once = table_of(source)
    assert once.sort_by("id").select(table.column_names).to_pylist() == table.sort_by("id").to_pylist()
    assert dict(zip(once.schema.names, once.schema.types, strict=True)) == dict(
        zip(table.schema.names, table.schema.types, strict=True)
    )
    assert once["id"].to_pylist() == table["id"].to_pylist()
    assert table_of(source).equals(once)
    assert all(batch.num_rows <= 256 for batch in source.batches())


def test_temporary_files_go_with_their_source(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = open_source(iter([{"id": 1, "text": "a"}]))
    assert len(list(tmp_path.iterdir())) == 1 and source.check().rows == 1
    del source
    source = open_source(pa.table({"id": [1], "text": ["a"]}).to_reader())
    assert source.check().rows == 1
    del source
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["csv", "tsv", "jsonl", "json", "arrow", "parquet"])
def test_standard_input_is_sniffed_and_read_twice(content, tmp_path):
    small = pa.table({"id": ["a", "b"], "text": ["one", "two"], "n": pa.array([1, 2], pa.int64())})
    makers = {
        "csv": csv_bytes,
        "tsv": lambda table: csv_bytes(table, "\t"),
        "jsonl": json_lines,
        "json": lambda table: json.dumps(table.to_pylist()).encode(),
        "arrow": lambda table: make_arrow_stream(table, tmp_path).read_bytes(),
        "parquet": lambda table: make_parquet(table, tmp_path).read_bytes(),
    }
    program = (
        "import sys; from isometry.records import open_source\n"
        "source = open_source('-'); rows = source.check().rows\n"
        "print(source.name, rows, [row for batch in source.batches() for row in batch.to_pylist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=makers[content](small), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == f"stdin 2 {small.to_pylist()}"


def test_types_of_arrow_are_kept_or_widened():
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 678901)
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.uint32()),
            "text": pa.array(["a", None], pa.string_view()),
            "body": pa.array(["x", "y"]).dictionary_encode(),
            "small": pa.array([1, None], pa.int8()),
            "unsigned": pa.array([2**63 - 1, 0], pa.uint64()),
            "half": pa.array(np.array([1.5, np.nan], np.float16)),
            "price": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(9, 2)),
            "huge": pa.array([decimal.Decimal("1e40"), None], pa.decimal256(60, 2)),
            "day64": pa.array([datetime.date(2020, 1, 2), None], pa.date64()),
            "nano": pa.array([moment, None], pa.timestamp("ns")),
            "zoned": pa.array([moment.replace(microsecond=0), None], pa.timestamp("s", "Europe/Paris")),
            "clock": pa.array([datetime.time(1, 2, 3), None], pa.time32("s")),
            "tags": pa.array([["a", "b"], None], pa.large_list(pa.large_string())),
            "vector": pa.array([[1.0, float("nan")], [2.0, 3.0]], pa.list_(pa.float32(), 2)),
            "nothing": pa.nulls(2),
            "nested": pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int32()), ("b", pa.large_string())])),
            "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "raw": pa.array([b"\x00\x01", None], pa.large_binary()),
            "span": pa.array([datetime.timedelta(seconds=90), None], pa.duration("s")),
            "runs": pa.array([5, 5]).cast(pa.int32()),
            "flag": pa.array([True, None]),
        }
    )  # fmt: skip
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([5], pa.int32()))
    table = table.set_column(table.column_names.index("runs"), "runs", pa.chunked_array([runs]))
    source = open_source(table)
    types = {field.name: str(field.type) for field in source.schema}
    assert types == {
        "id": "string", "text": "string", "body": "string", "small": "int64", "unsigned": "int64", "half": "double",
        "price": "double", "huge": "double", "day64": "date32[day]", "nano": "timestamp[us]",
        "zoned": "timestamp[us, tz=Europe/Paris]", "clock": "time64[us]", "tags": "list<item: string>",
        "vector": "list<item: double>", "nothing": "string", "nested": "struct<a: int64, b: string>", "pairs": "string",
        "raw": "binary", "span": "string", "runs": "int64", "flag": "bool",
    }  # fmt: skip
    first, second = table_of(source).to_pylist()
    assert first["zoned"].timestamp() == moment.replace(microsecond=0, tzinfo=UTC).timestamp()
    del first["zoned"], second["zoned"]
    assert first == {
        "id": "1", "text": "a", "body": "x", "small": 1, "unsigned": 2**63 - 1, "half": 1.5, "price": 1.25,
        "huge": 1e40, "day64": datetime.date(2020, 1, 2), "nano": moment, "clock": datetime.time(1, 2, 3),
        "tags": ["a", "b"],
        "vector": [1.0, None], "nothing": None, "nested": {"a": 1, "b": "x"}, "pairs": '[["k", 1]]',
        "raw": b"\x00\x01", "span": "0:01:30", "runs": 5, "flag": True,
    }  # fmt: skip
    assert second["half"] is None and second["vector"] == [2.0, 3.0] and second["runs"] == 5
    assert second["text"] is None and second["pairs"] is None


def test_a_number_beyond_63_bits_is_a_bad_row():
    source = open_source(pa.table({"id": ["a", "b"], "text": ["x", "y"], "n": pa.array([1, 2**63], pa.uint64())}))
    with pytest.raises(RecordError, match="9223372036854775808 is not a whole number of 64 bits") as caught:
        source.check()
    assert (caught.value.row, caught.value.column) == (2, "n")


def test_python_values_keep_their_types_through_an_iterator():
    row = {
        "id": 7, "text": "a", "day": datetime.date(2020, 1, 2), "at": datetime.datetime(2020, 1, 2, 3, 4),
        "clock": datetime.time(1, 2), "price": decimal.Decimal("2.5"), "raw": b"\x00\xff", "n": np.int64(3),
        "list": [1, 2], "mixed": {"a": [1, None]},
    }  # fmt: skip
    for source in (open_source([row]), open_source(iter([row]))):
        assert table_of(source).to_pylist() == [
            {**row, "id": "7", "price": 2.5, "n": 3, "mixed": '{"a": [1, null]}'},
        ]


def test_objects_that_are_no_source_are_refused_in_one_sentence():
    frame = pd.DataFrame({"id": [1, 2], "text": ["a", 5]})
    for source, words in (
        (5, "int is no source"),
        ({"a": [1]}, "dict is no source"),
        ([], "holds no rows"),
        ([1, 2], "not an object"),
        (pd.DataFrame(), "no columns"),
        (frame, "mixed types"),
        (pl.LazyFrame({"a": [1]}).select("b"), "cannot be computed"),
        (iter([{"id": 1, "text": object()}]), "row 1"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            open_source(source)
        assert "\n" not in str(caught.value)


def test_types_lists_and_text_are_decided_by_the_caller(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,title,notes,year,labels,flag\n1,t,n,007,a; b,true\n2,u,m,,x y,false\n3,v,o,12,"p, q",true\n')
    source = open_source(
        path, text=["notes"], types={"year": "int", "flag": "string", "title": "list"}, lists=("labels",)
    )
    assert source.text_columns == ("notes",)
    assert table_of(source).to_pylist() == [
        {"id": "1", "title": ["t"], "notes": "n", "year": 7, "labels": ["a", "b"], "flag": "true"},
        {"id": "2", "title": ["u"], "notes": "m", "year": None, "labels": ["x", "y"], "flag": "false"},
        {"id": "3", "title": ["v"], "notes": "o", "year": 12, "labels": ["p", "q"], "flag": "true"},
    ]
    assert open_source(path).schema.field("year").type == pa.string()
    with pytest.raises(InputError, match="no type 'integer' for column 'year'"):
        open_source(path, types={"year": "integer"})
    table = pa.table({"id": ["1"], "text": ["a"], "year": ["2020"], "when": ["2020-01-02"], "n": [3]})
    source = open_source(table, types={"year": "int", "when": "date", "n": "string"})
    assert table_of(source).to_pylist() == [
        {"id": "1", "text": "a", "year": 2020, "when": datetime.date(2020, 1, 2), "n": "3"}
    ]


def test_the_real_sets_are_understood(shared_data: Path):
    taken = {}
    for name in ("text/stsb", "text/xquad", "text/retrieval-docs", "text/wikiqa", "images/emoji", "images/clothing",
                 "images/flickr8k-captions", "tables/esco-occupations"):  # fmt: skip
        source = open_source(shared_data / f"{name}.parquet")
        taken[name.split("/")[1]] = (source.id_column, source.text_columns, source.image_column)
    assert taken == {
        "stsb": (None, ("sentence1", "sentence2"), None),
        "xquad": (None, ("context", "question", "answer"), None),
        "retrieval-docs": ("doc_id", ("title", "text"), None),
        "wikiqa": (None, ("question", "answer"), None),
        "emoji": (None, ("name",), None),
        "clothing": ("id", (), "image"),
        "flickr8k-captions": (None, ("caption",), None),
        "esco-occupations": ("uri", ("description",), None),
    }


def test_text_that_a_writer_left_as_bytes_is_text():
    table = pa.table({"id": [b"a", b"b"], "text": ["één".encode(), b"two\nlines"], "raw": [b"\x01", b"\xff"]})
    source = open_source(table)
    assert source.schema.types == [pa.string(), pa.string(), pa.binary()]
    assert table_of(source).to_pylist() == [
        {"id": "a", "text": "één", "raw": b"\x01"}, {"id": "b", "text": "two\nlines", "raw": b"\xff"}
    ]  # fmt: skip


def test_pictures_in_structs_become_their_bytes(tmp_path):
    """As `datasets` writes them: bytes with a path, or a path alone."""
    from PIL import Image

    held = io.BytesIO()
    Image.new("RGB", (4, 3), (9, 8, 7)).save(held, "PNG")
    (tmp_path / "b.png").write_bytes(held.getvalue())
    images = [{"bytes": held.getvalue(), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "caption": ["x", "y", "z"], "image": images}), tmp_path / "a.parquet"
    )
    source = open_source(tmp_path / "a.parquet")
    assert source.image_column == "image" and source.schema.field("image").type == pa.binary()
    assert [row["image"] for row in table_of(source).to_pylist()] == [held.getvalue(), held.getvalue(), None]
    images[0]["bytes"] = b"no picture"
    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "caption": ["x", "y", "z"], "image": images}), tmp_path / "b.parquet"
    )
    with pytest.raises(RecordError, match="not an image"):
        open_source(tmp_path / "b.parquet", image="image").check()

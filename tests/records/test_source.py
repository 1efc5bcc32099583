"""What `open_source` promises for files: columns found, types kept, bad rows named, passes repeatable."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isometry.errors import InputError, NotFoundError, RecordError
from isometry.records import Source, SourceCheck, open_source


def table_of(source: Source) -> pa.Table:
    return pa.Table.from_batches(source.batches(), source.schema)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_parquet_keeps_types_and_says_what_it_took(tmp_path):
    table = pa.table(
        {
            "doc_id": pa.array([7, 8], pa.int32()),
            "year": pa.array([2019, 2020], pa.int16()),
            "title": pa.array(["One", "Two"]).dictionary_encode(),
            "abstract": pa.array(["first", "second"], pa.large_string()),
            "day": pa.array([datetime.date(2020, 1, 2), None]),
            "tags": pa.array([["a", "b"], []]),
        }
    )
    pq.write_table(table, tmp_path / "papers.parquet")
    source = open_source(tmp_path / "papers.parquet")
    assert source.name == "papers.parquet"
    assert source.id_column == "doc_id" and source.text_columns == ("title", "abstract") and source.image_column is None
    assert source.notes == [
        "Ids come from 'doc_id' (choose another column with --id).",
        "Texts come from 'title' and 'abstract' (choose others with --text).",
    ]
    assert source.schema == pa.schema(
        [
            ("id", pa.string()),
            ("year", pa.int64()),
            ("title", pa.string()),
            ("abstract", pa.string()),
            ("day", pa.date32()),
            ("tags", pa.list_(pa.string())),
        ]
    )
    assert source.check() == SourceCheck(2, 0)
    assert table_of(source).to_pylist() == [
        {
            "id": "7",
            "year": 2019,
            "title": "One",
            "abstract": "first",
            "day": datetime.date(2020, 1, 2),
            "tags": ["a", "b"],
        },
        {"id": "8", "year": 2020, "title": "Two", "abstract": "second", "day": None, "tags": []},
    ]


def test_csv_infers_types_and_numbers_rows(tmp_path):
    path = write(
        tmp_path / "a.csv",
        "title,year,score,open,day,zip,seen\n"
        '"A, b",2019,0.5,true,2020-01-31,01234,2020-01-31T10:00:00Z\n'
        '"two\nlines",,1e3,FALSE,,99999,2020-01-31 10:00:00+01:00\n',
    )
    source = open_source(path)
    assert source.id_column is None
    assert "No column looks like an id, so rows are numbered from 1 (name one with --id)." in source.notes
    utc = datetime.UTC
    assert table_of(source).to_pylist() == [
        {"id": "1", "title": "A, b", "year": 2019, "score": 0.5, "open": True, "day": datetime.date(2020, 1, 31),
         "zip": "01234", "seen": datetime.datetime(2020, 1, 31, 10, tzinfo=utc)},
        {"id": "2", "title": "two\nlines", "year": None, "score": 1000.0, "open": False, "day": None,
         "zip": "99999", "seen": datetime.datetime(2020, 1, 31, 9, tzinfo=utc)},
    ]  # fmt: skip


def test_a_plain_table_singles_no_column_out(tmp_path):
    source = open_source(write(tmp_path / "rows.csv", "key,n,word\n1,5,a\n1,,\n"), table=True)
    assert (source.id_column, source.text_columns, source.image_column) == (None, (), None)
    assert table_of(source).to_pylist() == [
        {"id": "1", "key": 1, "n": 5, "word": "a"},
        {"id": "2", "key": 1, "n": None, "word": None},
    ]


def test_a_bad_row_is_named_by_file_row_column_and_line(tmp_path):
    rows = [{"id": str(n), "text": f"t{n}", "year": n} for n in range(20)]
    lines = [json.dumps(row) for row in rows]
    lines[12] = '{"id": "12", "text": "t", "year": "soon"}'
    source = open_source(write(tmp_path / "a.jsonl", "\n\n".join(lines)), types={"year": "int"})
    with pytest.raises(RecordError) as caught:
        source.check()
    error = caught.value
    assert (error.file, error.row, error.column) == ("a.jsonl", 13, "year")
    assert str(error) == (
        "a.jsonl, row 13, column 'year': 'soon' is not a whole number of 64 bits; correct it, or read the column as "
        "text with --types year=string (line 25)"
    )


def test_skip_writes_rejects_and_goes_on(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text\n1,one\n1,again\n,none\n3,"  "\n4,four,more\n5,five\n6,"open\n7,seven\n')
    rejects = tmp_path / "a.rejects.jsonl"
    source = open_source(path, on_bad_row="skip", rejects=rejects)
    assert source.check() == SourceCheck(3, 5)
    assert source.rejected == 5 and source.rejects_file == rejects
    assert [row["id"] for row in table_of(source).to_pylist()] == ["1", "5", "7"]
    written = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["row"], row["column"]) for row in written] == [(2, "id"), (3, "id"), (4, "text"), (5, None), (7, None)]
    assert "in row 1" in written[0]["reason"] and "(line 3)" in written[0]["reason"]
    assert written[0]["record"] == {"id": "1", "text": "again"}
    assert written[4]["record"] == '6,"open'
    assert "never closed" in written[4]["reason"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.rejects.jsonl"]


def test_wrong_names_suggest_the_nearest(tmp_path):
    path = write(tmp_path / "a.csv", "id,title,abstract\n1,a,b\n")
    with pytest.raises(InputError, match="no column 'abstrct'; did you mean 'abstract'"):
        open_source(path, text=["abstrct"])
    with pytest.raises(NotFoundError, match="no file or folder"):
        open_source(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is empty"):
        open_source(write(tmp_path / "empty.csv", ""))

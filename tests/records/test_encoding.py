"""Texts that are not UTF-8: the advice given works, whatever the format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isometry.errors import InputError, RecordError
from isometry.records import open_source

ROWS = [{"id": "é", "title": "café crème", "n": 1}, {"id": "b", "title": "naïve façade", "n": 2}]
CSV = "id,title,n\n" + "".join(f"{row['id']},{row['title']},{row['n']}\n" for row in ROWS)
SHAPES = {
    "a.csv": CSV,
    "a.tsv": CSV.replace(",", "\t"),
    "a.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "a.json": json.dumps(ROWS, ensure_ascii=False),
}


def read(path: Path, **given) -> list[dict]:
    return [row for batch in open_source(path, **given).batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8", "utf-8-sig", "UTF8"])
def test_every_format_in_every_encoding(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(SHAPES[name].encode(encoding))
    assert read(tmp_path / name, encoding=encoding) == ROWS


@pytest.mark.parametrize("name", SHAPES)
def test_the_advice_works(tmp_path, name):
    """What the sentence says to add makes the same file readable."""
    path = tmp_path / name
    path.write_bytes(SHAPES[name].encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8") as caught:
        read(path)
    (advised,) = re.findall(r"--encoding ([\w-]+)", str(caught.value))
    assert read(path, encoding=advised) == ROWS


def test_a_row_that_is_not_in_its_encoding_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,title\na,fine\nb,\x81\n")
    with pytest.raises(RecordError, match="is not CP1252") as caught:
        read(tmp_path / "a.csv", encoding="cp1252")
    assert (caught.value.row, caught.value.column) == (2, "title")
    (tmp_path / "u.csv").write_bytes("id,title\na,fine\n".encode("utf-16")[:-1])
    with pytest.raises(RecordError, match="not UTF-16"):
        read(tmp_path / "u.csv", encoding="utf-16")
    with pytest.raises(InputError, match="--encoding utf-16"):
        read(tmp_path / "u.csv")
    for wrong in ("hex", "rot13", "no-such", "", "utf-8\0"):
        with pytest.raises(InputError, match="no encoding"):
            open_source(tmp_path / "a.csv", encoding=wrong)


def test_a_folder_of_texts_and_a_header(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes("déjà vu".encode("latin-1"))
    with pytest.raises(RecordError, match="--encoding latin-1"):
        read(tmp_path / "texts")
    assert read(tmp_path / "texts", encoding="latin-1")[0]["text"] == "déjà vu"
    (tmp_path / "h.csv").write_bytes("id,título\na,x\n".encode("latin-1"))
    with pytest.raises(InputError, match="--encoding latin-1"):
        read(tmp_path / "h.csv")
    assert read(tmp_path / "h.csv", encoding="latin-1") == [{"id": "a", "título": "x"}]


def test_a_format_with_types_is_to_be_written_again(tmp_path):
    table = pa.table({"id": ["a"], "title": pa.array([b"caf\xe9"]).view(pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(RecordError, match="write the file again with texts in UTF-8") as caught:
        read(tmp_path / "a.parquet")
    assert "--encoding" not in str(caught.value) and "--types" not in str(caught.value)

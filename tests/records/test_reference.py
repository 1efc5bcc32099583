"""Random files against the parsers that everybody has: csv, json and pyarrow."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.records import open_source

_MODEST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def cleaned(text: str | None) -> str | None:
    """What the reader promises to do to a text: control characters become spaces, nothing is missing."""
    return None if text in (None, "") else _control.sub(" ", text)


def read(path: Path, **given: Any) -> list[dict]:
    return [row for batch in open_source(path, batch_rows=3, **given).batches() for row in batch.to_pylist()]


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return zstandard.ZstdCompressor().compress(content) if suffix == ".zst" else content


@_MODEST
@given(
    st.lists(st.tuples(_texts, _texts), min_size=1, max_size=12),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["", ".gz", ".zst"]),
    st.booleans(),
)
def test_delimited_files_are_read_as_the_csv_module_reads_them(tmp_path, rows, mark, end, quoting, suffix, with_mark):
    if quoting == csv.QUOTE_MINIMAL:  # the csv module writes a lone carriage return without quotes, and so ends the row
        rows = [tuple(one.replace("\r", "") for one in row) for row in rows]
    held = io.StringIO(newline="")
    writer = csv.writer(held, delimiter=mark, lineterminator=end, quoting=quoting)
    writer.writerow(["id", "title", "note"])
    writer.writerows([f"r{number}", f"x{title}", note] for number, (title, note) in enumerate(rows))
    path = tmp_path / f"a.{'csv' if mark == ',' else 'tsv'}{suffix}"
    path.write_bytes(packed(held.getvalue().encode("utf-8-sig" if with_mark else "utf-8"), suffix))
    held.seek(0)
    header, *wanted = csv.reader(held, delimiter=mark)
    found = read(path, text="title", types={"note": "string", "title": "string"})
    assert found == [dict(zip(header, map(cleaned, row), strict=True)) for row in wanted if row]


_numbers = st.integers(-(2**63), 2**63 - 1)
_scalars = {
    "string": _texts,
    "int": _numbers,
    "float": st.floats(allow_nan=True, allow_infinity=True, width=64),
    "bool": st.booleans(),
    "list": st.lists(_texts.filter(bool), max_size=3),
}


@_MODEST
@given(st.data(), st.sampled_from(["", ".gz", ".zst"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_json_lines_keep_values_and_types(tmp_path, data, suffix, end, escaped):
    kinds = data.draw(st.lists(st.sampled_from(sorted(_scalars)), min_size=1, max_size=4), label="kinds")
    columns = {f"{kind}{number}": st.none() | _scalars[kind] for number, kind in enumerate(kinds)}
    rows = data.draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=10), label="rows")
    records = [{"id": f"r{number}", "title": f"t {number}", **row} for number, row in enumerate(rows)]
    path = tmp_path / f"a.jsonl{suffix}"
    lines = [json.dumps(record, ensure_ascii=escaped) + end for record in records]
    path.write_bytes(packed("".join(lines).encode(), suffix))
    types = {name: re.sub(r"\d", "", name) for name in columns}
    found = read(path, text="title", types=types)
    for record, back in zip(records, found, strict=True):
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            if isinstance(value, str):
                value = _control.sub(" ", value)
            assert back[name] == value and type(back[name]) is type(value), name


_zones = st.sampled_from([None, "UTC", "Europe/Paris", "+05:30"])
_days = st.dates(datetime.date(1, 1, 2), datetime.date(9999, 12, 30))


@_MODEST
@given(st.data(), _zones, st.sampled_from(["s", "ms", "us"]), st.integers(1, 9))
def test_parquet_keeps_what_pyarrow_reads(tmp_path, data, zone, unit, rows):
    columns = {
        "day": (pa.date32(), _days),
        "at": (pa.timestamp(unit, zone), st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2200, 1, 1))),
        "n": (pa.int64(), _numbers),
        "small": (pa.int8(), st.integers(-128, 127)),
        "x": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
        "ok": (pa.bool_(), st.booleans()),
        "tags": (pa.list_(pa.string()), st.lists(_texts, max_size=3)),
        "nested": (pa.struct([("a", pa.int64()), ("b", pa.string())]), st.fixed_dictionaries({"a": _numbers, "b": _texts})),
    }  # fmt: skip
    arrays: dict[str, pa.Array] = {"id": pa.array([f"r{n}" for n in range(rows)]), "title": pa.array(["t"] * rows)}
    for name, (kind, values) in columns.items():
        drawn = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows), label=name)
        if pa.types.is_timestamp(kind):
            drawn = [None if one is None else one.replace(microsecond=0) for one in drawn]
            arrays[name] = pa.array(drawn, pa.timestamp(unit)).cast(kind) if zone is None else pa.array(
                [None if one is None else one.replace(tzinfo=datetime.UTC) for one in drawn], kind
            )  # fmt: skip
        else:
            arrays[name] = pa.array(drawn, kind)
    table = pa.table(arrays)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    assert read(tmp_path / "a.parquet", text="title") == pq.read_table(tmp_path / "a.parquet").to_pylist()


def valid(kind: str) -> bytes:
    records = [{"id": f"r{n}", "title": f'a "title", {n}', "n": n} for n in range(40)]
    if kind == "parquet":
        held = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(records), held, row_group_size=16)
        return held.getvalue()
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["id", "title", "n"])
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue().encode()
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    return packed(content, kind.removeprefix("jsonl"))


_WHOLE = {kind: valid(kind) for kind in ("csv", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(_WHOLE)),
    st.floats(0, 1),
    st.sampled_from(["cut", "flip", "insert", "double", "drop"]),
    st.binary(min_size=1, max_size=4)
    | st.sampled_from([b'"', b"\n", b"\r", b"\0", b"\xff", b",", b"{", b"\xef\xbb\xbf"]),
    st.sampled_from(["error", "skip"]),
)
def test_damaged_files_give_whole_records_or_one_sentence(tmp_path, kind, where, how, new, on_bad_row):
    """One place of a valid file is damaged: every row that comes is whole and unique; else the sentence names the file."""
    whole = _WHOLE[kind]
    place = int(where * (len(whole) - 1))
    content = {
        "cut": whole[:place],
        "flip": whole[:place] + bytes([whole[place] ^ (new[0] or 1)]) + whole[place + 1 :],
        "insert": whole[:place] + new + whole[place:],
        "double": whole[:place] + whole[place // 2 :],
        "drop": whole[:place] + whole[place + len(new) :],
    }[how]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    rejects = tmp_path / "rejects.jsonl"
    try:
        source = open_source(path, on_bad_row=on_bad_row, rejects=rejects)
        check = source.check()
        rows = [row for batch in source.batches() for row in batch.to_pylist()]
    except (InputError, LookupError) as error:
        assert "\n" not in str(error) and "a." in str(error) and len(str(error)) < 1000
        return
    assert len(rows) == check.rows and len({row["id"] for row in rows}) == len(rows)
    if check.rejected:
        said = [json.loads(line) for line in rejects.read_text().splitlines()]
        assert on_bad_row == "skip" and len(said) == check.rejected and all(one["reason"] for one in said)

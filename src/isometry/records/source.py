"""One way into the house for records: open a source, see what was understood, check it, read it in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from isometry.errors import InputError, RecordError
from isometry.records._chunks import BadRow, Chunk, Reader, shown
from isometry.records._cleaning import clean
from isometry.records._opening import open_reader
from isometry.records._planning import Plan, make_plan
from isometry.records._rejects import RejectsFile, SeenIds
from isometry.types import Progress


@dataclass(frozen=True)
class SourceCheck:
    """What a pass over a source found: rows that can be taken, rows that cannot, whether it came to the end."""

    rows: int
    rejected: int
    finished: bool = True


class Source:
    """Records of one source, readable any number of times; made by `open_source`.

    Attributes:
        name: how messages call the source.
        schema: `id` (string) first, then the attributes with their types.
        text_columns / image_column: what is to be encoded.
        id_column: where ids come from; None where rows are numbered from 1.
        notes: what was guessed and how to decide otherwise, one sentence each.
        total: rows in the source where its format says so, else None.
        rejected: bad rows met in the last pass (`on_bad_row="skip"`).
        rejects_file: where they are written, None where no file was asked for.
    """

    def __init__(self, reader: Reader, plan: Plan, skip: bool, rejects: Path | None, batch_rows: int) -> None:
        self._reader, self._plan, self._skip, self._batch_rows = reader, plan, skip, batch_rows
        self.name = reader.name
        self.schema = plan.schema
        self.text_columns, self.image_column, self.id_column = plan.text_columns, plan.image_column, plan.id_column
        self.notes = list(plan.notes)
        self.total = reader.total
        self.rejected = 0
        self.rejects_file = rejects if skip else None

    def check(self, progress: Progress | None = None) -> SourceCheck:
        """Read everything once.

        Raises:
            RecordError: the first bad row, with `on_bad_row="error"`; a damaged file in either mode.
        """
        rows = 0
        for batch in self.batches():
            rows += batch.num_rows
            if progress is not None and progress(rows + self.rejected, self.total) is False:
                return SourceCheck(rows, self.rejected, finished=False)
        return SourceCheck(rows, self.rejected)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The records, at most `batch_rows` in a batch and fewer where they are large; bad rows are left out.

        Every call starts from the beginning, gives the same batches, and writes the rejects file anew, complete
        once the last batch is out.
        """
        rejects, seen = RejectsFile(self.rejects_file), SeenIds()
        files: list[str] = []
        self.rejected = 0
        try:
            for chunk in self._reader.chunks(self._batch_rows):
                if not files or files[-1] != chunk.file:
                    files.append(chunk.file)
                batch = self._clean(chunk, rejects, seen, files)
                self.rejected = rejects.count
                if batch.num_rows:
                    yield batch
            rejects.finish()
        finally:
            rejects.abandon()
            seen.close()

    def _clean(self, chunk: Chunk, rejects: RejectsFile, seen: SeenIds, files: list[str]) -> pa.RecordBatch:
        batch, bad = clean(chunk, self._plan, self._reader.folder)
        if self._plan.id_column is not None:
            good = [place for place in range(len(chunk)) if place not in bad] if bad else list(range(len(chunk)))
            ids = batch["id"].to_pylist()
            here = (len(files) - 1) << 40
            repeated = seen.add([ids[place] for place in good], [here + chunk.rows[place] for place in good])
            for position, before in repeated.items():
                place = good[position]
                where = f"row {before & ((1 << 40) - 1)}"
                if before >> 40 != len(files) - 1:
                    where += f" of {files[before >> 40]}"
                reason = (
                    f"the id {shown(ids[place])} was there before, in {where}; "
                    "ids must be unique, so correct it or choose another column with --id"
                )
                bad[place] = (self._plan.id_column, reason)
        if not bad and not chunk.rejected:
            return batch
        rows = [*chunk.rejected, *(_bad_row(chunk, place, *bad[place]) for place in bad)]
        for row in sorted(rows, key=lambda row: row.row):
            if not self._skip:
                raise RecordError(row.file, row.row, row.column, row.reason)
            rejects.add(row)
        keep = np.ones(len(chunk), bool)
        keep[list(bad)] = False
        return batch.filter(pa.array(keep))


def open_source(
    source: Any,
    *,
    text: Sequence[str] | None = None,
    image: str | None = None,
    id: str | None = None,
    lists: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    rejects: Path | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    batch_rows: int = 1024,
    table: bool = False,
) -> Source:
    """Open records from a file, a folder, standard input or a Python object.

    Args:
        source: a path (parquet, csv, tsv, jsonl, json, arrow; csv, tsv and json also as .gz or .zst; a folder of text
            files, of images, or of several files of one kind), '-' for standard input, or a pandas or polars frame, an
            Arrow table, batch, reader or dataset, a `datasets.Dataset`, or dictionaries.
        text: columns to be encoded as text; guessed where None. An empty list means none.
        image: column of images (bytes, or paths relative to the file); guessed where None.
        id: column of ids (text or whole numbers); guessed where None, numbered from 1 where there is none.
        lists: text columns to be split into lists: on ';' where a value has one, else on ',', else on white space.
        types: column to type (string, int, float, bool, date, timestamp, list), instead of the one found. Types of csv
            and json columns are otherwise taken from the first 10,000 rows; later rows that do not fit are bad rows.
        on_bad_row: 'error' stops at the first bad row, 'skip' leaves bad rows out.
        rejects: file for the bad rows in 'skip' mode, as json lines `{"file", "row", "column", "reason", "record"}`.
        format: the format where neither name nor content says it.
        encoding: of csv, tsv, json and text files, as Python names it ('latin-1', 'cp1252', 'utf-16').
        batch_rows: most rows in a batch.
        table: take the columns as they are: rows are numbered, no id, text or image is looked for.

    Raises:
        NotFoundError: no such file. InputError: not a source of records, or a column that is not there.

    What counts as a bad row: a missing, repeated or overlong id, or one with control characters; nothing in any text
    column (nor the image column); a text above 16 MB or not in its encoding; a value that does not fit its column's type; a csv
    row with too few or too many fields or an open quote; a json line that is not an object; an image that cannot be
    decoded. NaN and infinity become null; control characters in texts become spaces.
    """
    if on_bad_row not in ("error", "skip"):
        raise InputError(f"on_bad_row is 'error' or 'skip', not '{on_bad_row}'")
    if batch_rows < 1:
        raise InputError(f"batch_rows must be at least 1, not {batch_rows}")
    reader = open_reader(source, format, encoding)
    plan = make_plan(
        reader, text=_names(text), image=image, id=id, lists=_names(lists) or (), types=dict(types or {}), table=table
    )
    return Source(reader, plan, on_bad_row == "skip", None if rejects is None else Path(rejects), batch_rows)


def _names(names: Sequence[str] | None) -> Sequence[str] | None:
    return [names] if isinstance(names, str) else names


def _bad_row(chunk: Chunk, place: int, column: str | None, reason: str) -> BadRow:
    line = f" (line {chunk.lines[place]})" if chunk.lines else ""
    record = {}
    for name, values in chunk.columns.items():
        value = values[place]
        if isinstance(value, pa.Scalar):
            try:
                value = value.as_py()
            except (ValueError, OverflowError):
                value = "(cannot be shown)"
        record[name] = value
    file = chunk.files[place] if chunk.files else chunk.file
    return BadRow(file, chunk.rows[place], column, reason + line, record)

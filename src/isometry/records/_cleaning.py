"""From chunks to records: types, ids, texts and images checked, whole columns at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isometry.records._chunks import MAX_ID_BYTES, MAX_TEXT_BYTES, Chunk, shown
from isometry.records._images import check_images
from isometry.records._planning import Plan
from isometry.records._types import convert

Bad = dict[int, tuple[str | None, str]]  # place in the chunk -> column and reason

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_IS_CONTROL = np.zeros(256, bool)
_IS_CONTROL[[*range(9), 11, 12, *range(14, 32), 127]] = True
_VISIBLE = r"[^\s\p{Z}\p{C}]"


def clean(chunk: Chunk, plan: Plan, folder: Path | None) -> tuple[pa.RecordBatch, Bad]:
    """All rows of a chunk as records `(rows, schema)`, and what is wrong with those that cannot be taken."""
    bad: Bad = {}

    def note(column: str | None, reasons: dict[int, str]) -> None:
        for place, reason in reasons.items():
            bad.setdefault(place, (column, reason))

    if plan.id_column is None:
        ids = pc.cast(pa.array(np.asarray(chunk.rows, np.int64) + chunk.offset), pa.string())
    else:
        ids, reasons = _ids(_column(chunk, plan.id_column))
        name = plan.id_column
        reasons = {at: _advised(one, name, plan) if one.endswith("UTF-8") else one for at, one in reasons.items()}
        note(plan.id_column, reasons)

    arrays = []
    for column in plan.columns:
        array, reasons = convert(_column(chunk, column.source), column.type, column.asked)
        note(column.source, {place: _advised(reason, column.source, plan) for place, reason in reasons.items()})
        if pa.types.is_string(array.type):
            note(column.source, _too_long(array))
            array = without_control_characters(array)
        if column.name == plan.image_column:
            array, reasons = check_images(array, folder)
            note(column.source, reasons)
        arrays.append(array)

    known = {column.source for column in plan.columns} | {plan.id_column}
    for name in chunk.columns.keys() - known:
        note(name, _unexpected(chunk.columns[name]))

    batch = pa.RecordBatch.from_arrays([ids, *arrays], schema=plan.schema)
    note(*_without_content(batch, plan))
    return batch, bad


def without_control_characters(texts: pa.Array) -> pa.Array:
    """Control characters other than tab and line ends become spaces."""
    data = texts.buffers()[2]
    if data is None or not len(texts):
        return texts
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if not _IS_CONTROL[np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]].any():
        return texts
    return pc.replace_substring_regex(texts, _CONTROL, " ")


def _column(chunk: Chunk, name: str) -> pa.Array | list:
    found = chunk.columns.get(name)
    return [None] * len(chunk) if found is None else found


def _advised(reason: str, column: str, plan: Plan) -> str:
    """What is wrong with a value, and what to do about it."""
    if not reason.endswith("UTF-8"):
        return f"{reason}; correct it, or read the column as text with --types {column}=string"
    if plan.encoding is None:
        return f"{reason}; write the file again with texts in UTF-8"
    said = reason.removesuffix("UTF-8") + plan.encoding.upper()
    return f"{said}; name the file's encoding, as in --encoding {'latin-1' if plan.encoding == 'utf-8' else 'cp1252'}"


def _ids(values: pa.Array | list) -> tuple[pa.Array, dict[int, str]]:
    bad: dict[int, str] = {}
    if isinstance(values, list):
        for place, value in enumerate(values):
            if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
                bad[place] = f"the id {shown(value)} is neither text nor a whole number"
        values = [None if place in bad else str(v) if isinstance(v, int) else v for place, v in enumerate(values)]
    ids, reasons = convert(values, pa.string(), False)
    bad.update(reasons)
    visible = pc.match_substring_regex(ids, _VISIBLE)
    if ids.null_count or not pc.all(visible).as_py():
        for place in pc.indices_nonzero(pc.invert(pc.fill_null(visible, False))).to_pylist():
            bad.setdefault(place, "the id is missing; give every row one")
    if len(ids) and (pc.max(pc.binary_length(ids)).as_py() or 0) > MAX_ID_BYTES:
        for place in pc.indices_nonzero(pc.greater(pc.binary_length(ids), MAX_ID_BYTES)).to_pylist():
            bad.setdefault(place, f"the id is longer than {MAX_ID_BYTES} bytes")
    control = pc.match_substring_regex(ids, _CONTROL.replace(r"\x08\x0b\x0c\x0e-", r"\x08\x09-"))
    for place in pc.indices_nonzero(pc.fill_null(control, False)).to_pylist():
        bad.setdefault(place, f"the id {shown(ids[place].as_py())} holds control characters")
    return pc.fill_null(ids, ""), bad


def _too_long(texts: pa.Array) -> dict[int, str]:
    lengths = pc.binary_length(texts)
    if (pc.max(lengths).as_py() or 0) <= MAX_TEXT_BYTES:
        return {}
    places = pc.indices_nonzero(pc.fill_null(pc.greater(lengths, MAX_TEXT_BYTES), False)).to_pylist()
    return {
        place: f"the text has {lengths[place].as_py():,} bytes; at most {MAX_TEXT_BYTES:,} are taken, so split it"
        for place in places
    }


def _unexpected(values: pa.Array | list) -> dict[int, str]:
    return {
        place: "this column does not occur in the first rows, from which types are taken; name its type with --types"
        for place, value in enumerate(values)
        if value is not None
    }


def _without_content(batch: pa.RecordBatch, plan: Plan) -> tuple[str | None, dict[int, str]]:
    """Rows in which every text is empty and there is no image either."""
    content = None
    for name in plan.text_columns:
        visible = pc.fill_null(pc.match_substring_regex(batch[name], _VISIBLE), False)
        content = visible if content is None else pc.or_(content, visible)
        if pc.all(content).as_py():
            return None, {}
    names = list(plan.text_columns)
    if plan.image_column:
        names.append(plan.image_column)
        there = pc.is_valid(batch[plan.image_column])
        content = there if content is None else pc.or_(content, there)
    if content is None:
        return None, {}
    what = "text" if plan.text_columns else "image"
    reason = f"there is no {what} in it; fill it in or leave the row out"
    if len(names) > 1:
        reason = f"there is nothing in {', '.join(names)}; fill one in or leave the row out"
    places = pc.indices_nonzero(pc.invert(content)).to_pylist()
    return (names[0] if len(names) == 1 else None), dict.fromkeys(places, reason)

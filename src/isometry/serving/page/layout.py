"""How a collection is shown: which column heads a card, which is its date, and which ones filter."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from isometry.search import Collection

SAMPLE = 100  # records looked at to tell a date from other text
MOST_VALUES = 300  # a facet with more values is no help to a reader
FIRST = ", the first one"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Facet:
    """An attribute, or the year of one, that the page offers as a filter.

    `kind` is how a value is written in a filter: 'string', 'number', 'bool' or 'list'.
    """

    column: str
    expression: str
    label: str
    kind: str


@dataclass(frozen=True)
class Colour:
    """An attribute that the map can be coloured by; `grouped` takes texts up to their first '.', as cs of cs.IR."""

    key: str
    expression: str
    label: str
    grouped: bool = False


@dataclass(frozen=True)
class Layout:
    """What the scripts of the page need to know of a collection."""

    name: str
    title: str | None
    body: tuple[str, ...]
    byline: str | None
    image: str | None
    date: str | None
    date_expression: str | None
    chips: tuple[str, ...]
    facets: tuple[Facet, ...]
    colours: tuple[Colour, ...]
    modes: tuple[str, ...]
    example: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_layout(name: str, collection: Collection) -> Layout:
    """Look at the columns and a few records of a collection and choose what the page shows of it."""
    fields = [field for field in collection.schema if field.name != "id"]
    texts = collection.text_columns
    names = [field.name for field in fields]
    title = next((one for one in ("title", "name", "headline") if one in names), texts[0] if texts else None)
    sample = [hit.record for hit in collection.search(k=SAMPLE).hits] if len(collection) else []
    dates = [field.name for field in fields if _is_date(field, sample)]
    facets, colours = [], []
    for field in fields:
        kind = _facet_kind(field.type)
        if field.name in texts or field.name in dates or kind is None:
            continue
        expression, label = quoted(field.name), field.name.replace("_", " ")
        if kind == "float":
            colours.append(Colour(expression, expression, label))
            continue
        values = collection.facets([expression], limit=MOST_VALUES + 1)[expression]
        if not (2 <= len(values) <= MOST_VALUES and values[0]["count"] > 1 and _repeats(values)):
            if kind == "number" and len(values) >= 2:
                colours.append(Colour(expression, expression, label))
            continue
        facets.append(Facet(field.name, expression, label, kind))
        if kind == "string" and _dotted(values):
            colours.insert(0, Colour(expression + "*", expression, f"{label}, first part", grouped=True))
        colours.append(Colour(expression, expression, label + FIRST if kind == "list" else label))
    for one in dates[:1]:
        facets.append(Facet(one, f"year({quoted(one)})", f"year {one.replace('_', ' ')}", "number"))
        colours.append(Colour(quoted(one), quoted(one), one.replace("_", " ")))
    modes = (["vector"] if collection.encoder_description else []) + (["text"] if texts else [])
    return Layout(
        name=name,
        title=title,
        body=tuple(one for one in texts if one != title),
        byline=next((one for one in ("authors", "author", "by") if one in names), None),
        image=collection.image_column,
        date=dates[0] if dates else None,
        date_expression=quoted(dates[0]) if dates else None,
        chips=_chips(facets),
        facets=tuple(facets),
        colours=tuple(sorted(colours, key=lambda one: (not one.grouped, one.label.endswith(FIRST)))),
        modes=(*modes, "hybrid") if len(modes) == 2 else tuple(modes),
        example=f"year({quoted(dates[0])}) >= 2018" if dates else "id LIKE 'a%'",
    )


def quoted(name: str) -> str:
    """An attribute as a filter names it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else '"' + name.replace('"', '""') + '"'


def _chips(facets: list[Facet]) -> tuple[str, ...]:
    lists = [facet.column for facet in facets if facet.kind == "list"]
    return tuple((lists or [facet.column for facet in facets if facet.kind == "string"])[:2])


def _dotted(values: list[dict[str, Any]]) -> bool:
    """Whether more values than a map has colours for share far fewer first parts."""
    firsts = {str(value["value"]).split(".", maxsplit=1)[0] for value in values}
    return len(values) > 12 and 2 <= len(firsts) <= len(values) // 2


def _repeats(values: list[dict[str, Any]]) -> bool:
    return sum(value["count"] for value in values) >= 2 * len(values) or len(values) <= 10


def _is_date(field: pa.Field, sample: list[dict[str, Any]]) -> bool:
    if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
        return True
    values = [record[field.name] for record in sample if record.get(field.name) is not None]
    return bool(values) and all(isinstance(value, str) and _DATE.match(value) for value in values)


def _facet_kind(kind: pa.DataType) -> str | None:
    """How the values of a type are written in a filter; 'float' colours the map and is no facet."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "list"
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "number"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    return "string" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None

"""How a collection is searched: the one durable choice, kept in its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from isometry.errors import CorruptionError, InputError

IndexKind = Literal["exact", "codes", "cells", "graph"]


@dataclass(frozen=True, eq=False)
class SearchPlan:
    """What is kept in memory for searching, and how many rows are scored exactly.

    Vectors stay on disk as float32 whatever the plan; every score that a search returns is the exact one. A plan says
    only which rows get that far:

    - `exact` (the default): an int8 copy of every vector in memory with proven bounds; the answer is float32 brute
      force.
    - `codes`: a compressed copy (`code`) in memory is scanned, the best `shortlist` rows are scored exactly from the
      memory map (the serving of paper 19). Approximate, unless no more rows match than the shortlist holds.
    - `cells`: the int8 copy and a partition into cells; `graph`: both and a neighbour graph. For each query and filter
      the planner (`isometry.search.planner`, paper 25) chooses among all ways through them. Approximate, unless it
      chose an exact scan.

    Args:
        index: 'exact', 'codes', 'cells' or 'graph'.
        code: for 'codes', an estimator of `isometry.compression`, not fitted: it is fitted on the collection's vectors.
        shortlist: rows scored exactly for each query (at least k are).
        fit_rows: most vectors that the code learns from, drawn with a fixed seed.
        recall: for 'cells' and 'graph', of the unfiltered answer; they read as much as that takes.
        links: for 'graph', half the neighbours of a row (M).
        build_breadth: rows looked at for each when it is built.
        cells: their number; None for the square root of the number of rows.
    """

    index: IndexKind = "exact"
    code: Any = None
    shortlist: int = 100
    fit_rows: int = 50_000
    recall: float = 0.97
    links: int = 16
    build_breadth: int = 100
    cells: int | None = None

    def __post_init__(self) -> None:
        if self.index not in get_args(IndexKind):
            raise InputError(f"a plan's index is one of {', '.join(get_args(IndexKind))}, not {self.index!r}")
        if (self.code is not None) != (self.index == "codes"):
            raise InputError(
                "a plan with codes needs a code, such as SignBinarizer()"
                if self.code is None
                else f"a plan with index '{self.index}' takes no code"
            )
        if self.code is not None:
            from isometry.compression import CodeEstimator

            if not isinstance(self.code, CodeEstimator):
                raise InputError(f"{type(self.code).__name__} is no code; give an estimator of isometry.compression")
        if isinstance(self.recall, bool) or not 0.5 <= self.recall <= 1:
            raise InputError(f"a plan's recall is from 0.5 to 1, not {self.recall!r}")
        for name in ("shortlist", "fit_rows", "links", "build_breadth", "cells"):
            value = getattr(self, name)
            if name == "cells" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"a plan's {name} is a whole number of at least 1, not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the code as its class's name and parameters."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.code is not None:
            content["code"] = {"part": type(self.code).__name__, "parameters": self.code.get_params(deep=False)}
        return content

    @property
    def key(self) -> str:
        """The plan as one line of text, equal for equal plans."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchPlan) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SearchPlan:
        """Of `to_dict`. Raises: CorruptionError for anything else."""
        try:
            values = dict(content)
            if values.get("code") is not None:
                from isometry.compression import restore_compressor

                values["code"] = restore_compressor(values["code"]["part"], values["code"]["parameters"])
            return cls(**values)
        except (InputError, KeyError, TypeError) as error:
            raise CorruptionError(f"the search plan in the manifest is not readable ({error}); set it again") from error

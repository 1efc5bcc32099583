"""What is tried: encoder exits x dimensions x codes x bits x index parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from isometry.compression import ProductQuantizer, RecurrentBinary, ScalarQuantizer, SignBinarizer, Truncate
from isometry.search.plan import SearchPlan

SHORTLISTS = (40, 100, 400)
RECALLS = (0.9, 0.95, 0.99)
LINKS = (8, 16, 32)


@dataclass(frozen=True)
class Candidate:
    """One way to keep and search a collection.

    Args:
        plan: what is in memory and how it is searched.
        layers, dimensions: what of the encoder is kept, None for what the collection has. Another cut means other
            vectors: every record is encoded again.
    """

    plan: SearchPlan
    layers: int | None = None
    dimensions: int | None = None

    @property
    def recodes(self) -> bool:
        """Whether every record would have to be encoded again."""
        return self.layers is not None or self.dimensions is not None

    @property
    def label(self) -> str:
        """In words, for tables."""
        plan = self.plan
        if plan.index == "codes":
            text = f"{' '.join(repr(plan.code).split())}, shortlist {plan.shortlist}"
        elif plan.index == "graph":
            text = f"graph of {plan.links} links, recall {plan.recall:g}"
        else:
            text = "exact" if plan.index == "exact" else f"cells, recall {plan.recall:g}"
        cut = [f"{n} {what}" for n, what in ((self.layers, "layers"), (self.dimensions, "dimensions")) if n is not None]
        return f"{' x '.join(cut)}: {text}" if cut else text

    @property
    def built(self) -> str:
        """What has to be built for it, as a key: candidates that differ in search parameters only share it."""
        plan = replace(self.plan, shortlist=100, recall=0.97)
        return json.dumps([self.layers, self.dimensions, plan.to_dict()], sort_keys=True)

    @property
    def key(self) -> str:
        """The candidate as one line of text, equal for equal ones."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        return {"layers": self.layers, "dimensions": self.dimensions, "plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Candidate:
        """Of `to_dict`. Raises: CorruptionError for a plan that is not readable."""
        return cls(SearchPlan.from_dict(content["plan"]), content["layers"], content["dimensions"])


def candidates(dimension: int, layers: int | None = None) -> list[Candidate]:
    """Everything that is tried for vectors of this dimension.

    Args:
        layers: transformer layers of the encoder; None for one that cannot be cut, or vectors that were given.
    """
    found = [Candidate(SearchPlan())]
    for code in _codes(dimension):
        found += [Candidate(SearchPlan(index="codes", code=code, shortlist=size)) for size in SHORTLISTS]
    found += [Candidate(SearchPlan(index="cells", recall=recall)) for recall in RECALLS]
    found += [Candidate(SearchPlan(index="graph", links=links, recall=recall)) for links in LINKS for recall in RECALLS]
    for kept, width in _exits(dimension, layers):
        found.append(Candidate(SearchPlan(), kept, width))
        code = ProductQuantizer(max(1, (width or dimension) // 4), bits=4)
        found.append(Candidate(SearchPlan(index="codes", code=code, shortlist=100), kept, width))
    return found


def _codes(d: int) -> Iterator[Any]:
    yield SignBinarizer(d)
    yield SignBinarizer(2 * d)
    yield RecurrentBinary(max(1, d - 16), loops=0) if d > 32 else RecurrentBinary(d, loops=0)
    if d >= 16:
        yield ProductQuantizer(d // 8, bits=4, rotate=True)
        yield ProductQuantizer(d // 4, bits=4, rotate=True)
        yield ProductQuantizer(d // 2, bits=4, rotate=True)
        yield ProductQuantizer(d // 8)
        yield Truncate(d // 4, precision="float16")
    yield ScalarQuantizer(4)


def _exits(dimension: int, layers: int | None) -> Iterator[tuple[int | None, int | None]]:
    if layers is None:
        return
    widths = [None, *(width for width in (dimension // 2, dimension // 4) if width >= 8)]
    for kept in range(layers, 0, -1):
        for width in widths:
            if kept < layers or width is not None:
                yield (kept if kept < layers else None), width

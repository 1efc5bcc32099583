"""What a recipe is: one paper's claims, fixed before anything runs, and the measurement that decides them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from isometry.errors import InputError
from isometry.evaluation import Claim, Evidence
from isometry.types import Progress


@dataclass(frozen=True)
class Measurement:
    """What a recipe measured: values[metric][system] = one value per seed, or one for a published figure.

    Attributes:
        data: what was measured on, in words.
        measured: further figures without a verdict, unit in the name.
    """

    data: str
    values: Mapping[str, Mapping[str, Sequence[float]]]
    measured: Mapping[str, float] = field(default_factory=dict)


class Measure(Protocol):
    """The recipe's work: scale, seeds and a folder of data sets (None: the usual places) to a Measurement."""

    def __call__(
        self, scale: str, seeds: Sequence[int], data: Path | None, progress: Progress | None
    ) -> Measurement: ...


@dataclass(frozen=True)
class Recipe:
    """One paper put together from parts of the house.

    Args:
        name: slug, also the name of its file in this folder.
        paper: its number in the seed list.
        title: the paper's.
        claim: what it says, in a sentence.
        parts: dotted public names of what the recipe is made of.
        claims: the statements that are checked, per scale; the first is the paper's main one.
        seeds: how many seeds a scale runs unless told otherwise.
        measure: does the work.
    """

    name: str
    paper: int
    title: str
    claim: str
    parts: tuple[str, ...]
    claims: Mapping[str, tuple[Claim, ...]]
    seeds: Mapping[str, int]
    measure: Measure

    @property
    def scales(self) -> tuple[str, ...]:
        return tuple(self.claims)

    def _training(self, scale: str) -> str:
        """Where the paper's own training is to be had instead."""
        if scale != "full":
            return ""
        try:
            from isometry.training import FULL_SCALE
        except ImportError:  # the extra is not installed
            return ""
        return (
            f"; the paper's own training is 'isometry train {self.name} --scale full'"
            if self.name in FULL_SCALE
            else ""
        )

    def prove(
        self,
        scale: str = "laptop",
        seeds: int | None = None,
        data: Path | None = None,
        progress: Progress | None = None,
    ) -> Evidence:
        """Measure, and let the statistics judge.

        Raises:
            InputError: a scale that the recipe does not have, or fewer than 3 seeds.
            NotFoundError: a data set that is not there.
        """
        if scale not in self.claims:
            raise InputError(
                f"recipe '{self.name}' has no scale '{scale}': use one of {', '.join(self.claims)}{self._training(scale)}"
            )
        count = self.seeds[scale] if seeds is None else seeds
        if count < 3:
            raise InputError(f"{count} seeds say nothing about chance: use at least 3")
        began = time.perf_counter()
        numbers = list(range(count))
        found = self.measure(scale, numbers, data, progress)
        seconds = time.perf_counter() - began
        return Evidence.judge(
            self.name, self.paper, scale, found.data, numbers, self.claims[scale], found.values, seconds, found.measured
        )

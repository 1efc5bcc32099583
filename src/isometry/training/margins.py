"""Where a negative stops being safe: thresholds below the score of a row's own positive.

Papers 05 and 42 (mining) and 55 (guided masks). One rule for arrays and tensors alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from isometry.errors import InputError


@dataclass(frozen=True)
class MarginRule:
    """A candidate is kept when its score is at most the positive's score less a margin.

        absolute:  s- <= s+ - margin
        relative:  s- <= s+ - margin * |s+|        (margin .05 is the "95 % of the positive" rule of papers 05 and 42)

    The relative form reads "95 % of s+" for positive scores and stays below s+ for negative ones, where .95 s+ would
    lie above it. A negative margin lets candidates stand above their positive by that much (self-guiding, paper 55).
    """

    kind: Literal["absolute", "relative"] = "relative"
    margin: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in ("absolute", "relative"):
            raise InputError(f"a margin is 'absolute' or 'relative', not '{self.kind}'")

    def threshold(self, positive: Any) -> Any:
        """Scores of the positives, any shape, to the highest score a negative may have, same shape."""
        return positive - self.margin * (abs(positive) if self.kind == "relative" else 1.0)

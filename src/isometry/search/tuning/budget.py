"""What a search may cost and has to reach, and which of the measured ways fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from isometry.errors import InputError
from isometry.search.tuning.measuring import Measured

# name in the budget, attribute of what was measured, whether at most (else at least), how it is written
_LIMITS = (
    ("recall", "recall", False, "recall {:.3f}"),
    ("p95_ms", "p95_ms", True, "p95 {:.3g} ms"),
    ("bytes_per_vector", "bytes_per_vector", True, "{:.0f} bytes a vector in memory"),
    ("ram_mb", "ram_mb", True, "{:.1f} MB of memory"),
    ("disk_mb", "disk_mb", True, "{:.1f} MB on disk"),
)


@dataclass(frozen=True)
class Budget:
    """Limits; None where there is none.

    Args:
        recall: at least this share of the exact k best.
        p95_ms: of encoding and searching a query, milliseconds.
        bytes_per_vector: index bytes in memory for each record.
        ram_mb, disk_mb: of the whole collection, 10^6 bytes.
    """

    recall: float | None = None
    p95_ms: float | None = None
    bytes_per_vector: float | None = None
    ram_mb: float | None = None
    disk_mb: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            most = 1 if field.name == "recall" else float("inf")
            if isinstance(value, bool) or not 0 < value <= most:
                what = "from above 0 to 1" if field.name == "recall" else "above 0"
                raise InputError(f"a budget's {field.name} is {what}, not {value}")

    @property
    def limited(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def misses(self, measured: Measured) -> dict[str, float]:
        """Limits that are not kept, each with how far it is missed as a share of the limit."""
        found = {}
        for name, attribute, at_most, _ in _LIMITS:
            limit = getattr(self, name)
            if limit is None:
                continue
            value = getattr(measured, attribute)
            gap = (value - limit) / limit if at_most else (limit - value) / limit
            if gap > 0:
                found[name] = gap
        return found

    def choose(self, measured: Sequence[Measured]) -> Measured | None:
        """The recommended one of those that keep every limit; None where none does.

        Where a recall is asked for, the least memory that reaches it, else the highest recall; then the lowest p95.
        With no limit at all: a recall of 0.95.
        """
        limits = self if self.limited else Budget(recall=0.95)
        fitting = [one for one in measured if not limits.misses(one)]
        if not fitting:
            return None
        if limits.recall is not None:
            return min(fitting, key=lambda one: (one.bytes_per_vector, one.p95_ms, one.candidate.key))
        return min(fitting, key=lambda one: (-one.recall, one.p95_ms, one.candidate.key))

    def nearest(self, measured: Sequence[Measured]) -> Measured:
        """The one that misses the limits by the least, summed."""
        return min(measured, key=lambda one: (sum(self.misses(one).values()), one.candidate.key))

    def refusal(self, measured: Sequence[Measured]) -> str:
        """A sentence for a budget that nothing meets."""
        near = self.nearest(measured)
        missed = self.misses(near)
        gives = [text.format(getattr(near, attribute)) for name, attribute, _, text in _LIMITS if name in missed]
        asked = [text.format(getattr(self, name)) for name, _, _, text in _LIMITS if name in missed]
        return (
            f"nothing measured meets this budget; the nearest is '{near.candidate.label}' with {' and '.join(gives)}"
            f" where {' and '.join(asked)} was asked for"
        )

    def to_dict(self) -> dict[str, float]:
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

"""Elastic materials in SI units."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from isometry.errors import InputError


@dataclass(frozen=True)
class Material:
    """What an object is made of.

    Args:
        young: Young's modulus in pascal.
        poisson: Poisson's ratio, 0 to 0.49.
        density: kg per cubic metre.
        damping: velocity lost per second (1/s), exp(-damping t).
        friction: Coulomb's coefficient.
    """

    young: float
    poisson: float
    density: float
    damping: float = 0.8
    friction: float = 0.5

    def __post_init__(self) -> None:
        limits = {"young": (1.0, 1e10), "poisson": (0.0, 0.49), "density": (0.1, 50_000.0)}
        limits |= {"damping": (0.0, 1000.0), "friction": (0.0, 10.0)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
                raise InputError(f"{name} of a material must lie within {low:g} and {high:g} and is {value!r}")

    @property
    def lame(self) -> tuple[float, float]:
        """The two constants (lambda, mu) in pascal."""
        mu = self.young / (2 * (1 + self.poisson))
        return self.young * self.poisson / ((1 + self.poisson) * (1 - 2 * self.poisson)), mu


PRESETS = {
    "jelly": Material(8e3, 0.45, 1000.0, 0.6, 0.4),
    "foam": Material(2e4, 0.2, 120.0, 2.0, 0.8),
    "rubber": Material(2.5e5, 0.45, 1100.0, 0.5, 0.9),
    "wood": Material(4e6, 0.3, 600.0, 1.0, 0.5),
}


def material(name: str) -> Material:
    """A preset by name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PRESETS)}"
        raise InputError(f"no material '{name}'; {hint}")
    return PRESETS[name]

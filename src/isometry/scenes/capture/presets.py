"""How long, how large and how fast a scene is trained: the reference 3DGS schedule, and one that fits a laptop.

Paper 1, section 1 of its note: values of the reference implementation as another repository carries them. The laptop
preset keeps every rate and threshold and shortens the schedule; its sizes are ours.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from isometry.errors import InputError


@dataclass(frozen=True)
class Preset:
    """One schedule.

    Args:
        iterations: one view each.
        longest: pixels of a photograph's longer side.
        most: Gaussians at most.
        degree: of the harmonics at the end.
        degree_every: iterations between two degrees.
        position, position_end: learning rate of the centres at start and end, times the scene's extent, falling
            exponentially.
        feature: of the constant harmonic (the others a twentieth).
        opacity, scaling, rotation: rates.
        structure: weight of 1 - SSIM, the rest is L1.
        densify_from, densify_until, densify_every: iterations.
        gradient: of the place on the picture (half picture sizes) that makes a Gaussian multiply.
        dense: share of the extent up to which it is cloned, not split.
        faintest: opacity below which it goes.
        reset_every: iterations between opacity resets.
    """

    name: str
    iterations: int
    longest: int
    most: int
    degree: int
    degree_every: int
    densify_from: int
    densify_until: int
    reset_every: int
    densify_every: int = 100
    gradient: float = 2e-4
    dense: float = 0.01
    faintest: float = 0.005
    position: float = 1.6e-4
    position_end: float = 1.6e-6
    feature: float = 2.5e-3
    opacity: float = 0.05
    scaling: float = 5e-3
    rotation: float = 1e-3
    structure: float = 0.2

    def multiplies_at(self, iteration: int) -> bool:
        """Whether Gaussians are cloned, split and pruned after this iteration."""
        return self.densify_from < iteration < self.densify_until and iteration % self.densify_every == 0

    def dims_at(self, iteration: int) -> bool:
        """Whether opacities are set back after this iteration."""
        return iteration < self.densify_until and iteration % self.reset_every == 0

    def changed(self, *, iterations: int | None = None, longest: int | None = None, most: int | None = None) -> Preset:
        """With other sizes; another number of iterations shrinks or stretches the whole schedule."""
        limits = {
            "iterations": (iterations, 1, 1_000_000),
            "pixels": (longest, 16, 16_384),
            "splats": (most, 10, 50_000_000),
        }
        for name, (value, low, high) in limits.items():
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} must lie within {low} and {high:,} and are {value}")
        new = replace(self, longest=longest or self.longest, most=most or self.most)
        if iterations is None:
            return new
        share = iterations / self.iterations
        scaled = {
            name: max(1, round(getattr(self, name) * share))
            for name in ("degree_every", "densify_from", "densify_until", "reset_every")
        }
        every = max(10, min(self.densify_every, round(self.densify_every * share)))
        return replace(new, iterations=iterations, densify_every=every, **scaled)

    def position_rate(self, iteration: int) -> float:
        """Learning rate of the centres, before the extent."""
        share = min(1.0, iteration / max(1, self.iterations))
        return float(self.position ** (1 - share) * self.position_end**share)

    def degree_at(self, iteration: int) -> int:
        """Harmonic degree in use."""
        return min(self.degree, iteration // self.degree_every)


PRESETS = {
    "laptop": Preset("laptop", 3000, 240, 30_000, 2, 700, 300, 2000, 1200),
    "full": Preset("full", 30_000, 1600, 5_000_000, 3, 1000, 500, 15_000, 3000),
}


def find_preset(name: str) -> Preset:
    """A preset by name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise InputError(f"no preset '{name}'; {f'did you mean {near[0]!r}?' if near else 'there are laptop and full'}")
    return PRESETS[name]

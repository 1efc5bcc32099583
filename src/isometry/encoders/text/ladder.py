"""A size ladder: the (layers, dimensions) pairs at which one encoder is meant to be used.

Papers 03 (a fixed diagonal ladder) and 23 (any layer, any prefix).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isometry.errors import InputError


@dataclass(frozen=True)
class Size:
    """One rung: keep `layers` transformer layers and the first `dimensions` coordinates; `weight` of its loss."""

    layers: int
    dimensions: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.dimensions < 1 or self.weight < 0:
            raise InputError(f"a size has at least one layer and one dimension and no negative weight: {self}")


@dataclass(frozen=True)
class Ladder:
    """Sizes from small to full; the last is the full size and the teacher of the others.

    Raises:
        InputError: no sizes, or a rung that does not grow in layers or dimensions while losing in neither.
    """

    sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        if not self.sizes:
            raise InputError("a ladder has at least one size")
        for low, high in zip(self.sizes, self.sizes[1:], strict=False):
            grows = (high.layers, high.dimensions) != (low.layers, low.dimensions)
            if high.layers < low.layers or high.dimensions < low.dimensions or not grows:
                raise InputError(f"a ladder grows from small to full, but {high} follows {low}")

    @classmethod
    def of(cls, *pairs: tuple[int, int]) -> Ladder:
        """From (layers, dimensions) pairs, all of weight 1: `Ladder.of((2, 48), (4, 96), (6, 384))`."""
        return cls(tuple(Size(layers, dimensions) for layers, dimensions in pairs))

    @property
    def full(self) -> Size:
        return self.sizes[-1]

    @property
    def parts(self) -> tuple[Size, ...]:
        """All sizes but the full one."""
        return self.sizes[:-1]

    @property
    def layers(self) -> tuple[int, ...]:
        """Every exit that is read, ascending, each once."""
        return tuple(sorted({size.layers for size in self.sizes}))

    def __iter__(self) -> Iterator[Size]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def check(self, layers: int, dimensions: int) -> None:
        """Refuse a ladder whose last rung is not the model's full size.

        Raises:
            InputError: names both sizes.
        """
        if (self.full.layers, self.full.dimensions) != (layers, dimensions):
            raise InputError(
                f"the ladder ends at {self.full.layers} layers x {self.full.dimensions} dimensions "
                f"and the model has {layers} x {dimensions}; the last rung must be the full size"
            )


STARBUCKS = Ladder.of((2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768))
"""The ladder of paper 03 for BERT-base: Demi, Short, Tall, Grande, Venti, Trenta."""


def geometric_widths(dimension: int, smallest: int = 8) -> tuple[int, ...]:
    """8, 16, 32, … below `dimension`, then `dimension` itself (paper 23): 384 gives 8, 16, 32, 64, 128, 256, 384."""
    widths = []
    width = smallest
    while width < dimension:
        widths.append(width)
        width *= 2
    return (*widths, dimension)

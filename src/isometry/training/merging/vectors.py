"""Weights as one flat vector, and the difference of two models as a task vector. Paper 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from isometry.errors import InputError, ShapeError


@dataclass(frozen=True)
class TaskVector:
    """What training changed: trained minus base, per floating-point parameter.

    Integer tensors and buffers such as position numbers are no part of it; they are copied from the base.
    """

    parts: dict[str, Tensor]

    @classmethod
    def between(cls, base: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> TaskVector:
        """From two state dictionaries of the same architecture.

        Raises:
            InputError: other names. ShapeError: other shapes; both name the first one.
        """
        if base.keys() != trained.keys():
            name = sorted(base.keys() ^ trained.keys())[0]
            raise InputError(f"the models do not share an architecture: '{name}' is in one of them only")
        for name, value in base.items():
            if value.shape != trained[name].shape:
                raise ShapeError(f"'{name}' has shape {tuple(trained[name].shape)}, in the base {tuple(value.shape)}")
        parts = {
            name: trained[name].detach().to(torch.float32) - value.detach().to(torch.float32)
            for name, value in base.items()
            if value.is_floating_point()
        }
        return cls(parts)

    def flat(self) -> Tensor:
        """All parts in one vector `(p,)`, in the order of their names."""
        return torch.cat([self.parts[name].flatten() for name in sorted(self.parts)])

    def unflatten(self, vector: Tensor) -> TaskVector:
        """A vector `(p,)` in the shapes of this one."""
        parts, start = {}, 0
        for name in sorted(self.parts):
            size = self.parts[name].numel()
            parts[name] = vector[start : start + size].reshape(self.parts[name].shape)
            start += size
        return TaskVector(parts)

    def apply(self, base: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
        """base + scale * this, in the base's types; what is no part of the vector is the base's."""
        return {
            name: (value.to(torch.float32) + scale * self.parts[name]).to(value.dtype)
            if name in self.parts
            else value.clone()
            for name, value in base.items()
        }

    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.flat()))

    def cosine(self, other: TaskVector) -> float:
        """Cosine with another task vector; 0 where one is zero."""
        mine, theirs = self.flat(), other.flat()
        lengths = torch.linalg.vector_norm(mine) * torch.linalg.vector_norm(theirs)
        return float(mine @ theirs / lengths) if lengths > 0 else 0.0

    def save(self, path: str | Path) -> None:
        """As safetensors."""
        from safetensors.torch import save_file

        save_file({name: part.contiguous() for name, part in self.parts.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> TaskVector:
        from safetensors.torch import load_file

        return cls(load_file(str(path)))


def task_matrix(vectors: Sequence[TaskVector]) -> Tensor:
    """n task vectors as rows `(n, p)`.

    Raises:
        InputError: no vector, or vectors of different parts.
    """
    if not vectors:
        raise InputError("nothing to merge: no models were given")
    if any(vector.parts.keys() != vectors[0].parts.keys() for vector in vectors):
        raise InputError("the models to merge do not share an architecture")
    return torch.stack([vector.flat() for vector in vectors])

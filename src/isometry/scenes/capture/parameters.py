# mypy: allow-untyped-defs
"""What training changes: the parameters of all Gaussians, with the moments of Adam beside them."""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.raster import Gradients

NAMES = ("means", "log_scales", "quaternions", "logits", "harmonics")


class Parameters:
    """Arrays by name, `(n, …)` float32, and Adam's two moments of the same shapes.

    Adam as in the reference: beta 0.9 and 0.999, epsilon 1e-15, one step count for all; rows added later start with
    moments of zero.
    """

    def __init__(self, gaussians: Gaussians, degree: int) -> None:
        padded = gaussians.with_degree(degree)
        self.values = {name: getattr(padded, name).copy() for name in NAMES}
        self.first = {name: np.zeros_like(array) for name, array in self.values.items()}
        self.second = {name: np.zeros_like(array) for name, array in self.values.items()}
        self.steps = 0

    def __len__(self) -> int:
        return len(self.values["means"])

    def gaussians(self, degree: int | None = None) -> Gaussians:
        """As Gaussians, with harmonics cut to `degree`."""
        values = self.values
        harmonics = values["harmonics"] if degree is None else values["harmonics"][:, : (degree + 1) ** 2]
        return Gaussians(values["means"], values["log_scales"], values["quaternions"], values["logits"], harmonics)

    def descend(self, gradients: Gradients, rates: dict[str, float], rows: np.ndarray | None = None) -> None:
        """One step of Adam; `rates` also holds `rest`, the rate of all harmonics but the constant one.

        Args:
            rows: `(n,)` bool; other Gaussians are left as they are. None for all.
        """
        self.steps += 1
        change = np.ones(len(self), bool) if rows is None else rows
        for name in NAMES:
            value, slope = self.values[name], getattr(gradients, name)
            n = len(value)
            columns = value.size // max(1, n)
            given = slope.size // max(1, n)
            fast = 3 if name == "harmonics" else given
            rate = rates[name]
            slow = rates["rest"] if name == "harmonics" else rate
            adam(
                value.reshape(n, columns), slope.reshape(n, given), self.first[name].reshape(n, columns),
                self.second[name].reshape(n, columns), change, fast, rate, slow, self.steps,
            )  # fmt: skip

    def keep(self, rows: np.ndarray) -> None:
        """Only these Gaussians."""
        for table in (self.values, self.first, self.second):
            for name in NAMES:
                table[name] = np.ascontiguousarray(table[name][rows])

    def add(self, values: dict[str, np.ndarray]) -> None:
        """Further Gaussians, after the others."""
        for name in NAMES:
            more = np.asarray(values[name], np.float32)
            self.values[name] = np.concatenate([self.values[name], more])
            self.first[name] = np.concatenate([self.first[name], np.zeros_like(more)])
            self.second[name] = np.concatenate([self.second[name], np.zeros_like(more)])

    def forget(self, name: str) -> None:
        """Moments of one parameter back to zero."""
        self.first[name][:] = 0
        self.second[name][:] = 0


@compiled
def adam(value, slope, first, second, change, fast, rate, slow, steps):
    """Columns below `fast` move by `rate`, the others by `slow`; rows without `change` and columns without slope stay."""
    low, high = 1.0 - 0.9**steps, 1.0 - 0.999**steps
    root = np.float32(1.0 / np.sqrt(high))
    for i in range(len(value)):
        if not change[i]:
            continue
        for k in range(slope.shape[1]):
            g = slope[i, k]
            a = np.float32(0.9) * first[i, k] + np.float32(0.1) * g
            b = np.float32(0.999) * second[i, k] + np.float32(0.001) * g * g
            first[i, k], second[i, k] = a, b
            step = np.float32((rate if k < fast else slow) / low)
            value[i, k] -= step * a / (np.sqrt(b) * root + np.float32(1e-15))

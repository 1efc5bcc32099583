"""As much of warp as the solver uses, one thread after the other in plain Python: for machines without warp.

It holds the kernels' arithmetic and what is handed to them to the numba solver; that warp compiles them it cannot show.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np


class _Array:
    def __init__(self, data: Any = None, dtype: Any = float, device: str = "cpu") -> None:
        kind = {int: np.int32}.get(dtype, np.float32)
        self.data = np.array(data, kind)
        self.shape = self.data.shape

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: Any) -> Any:
        found = self.data[at]
        return found.copy() if isinstance(found, np.ndarray) else found

    def __setitem__(self, at: Any, value: Any) -> None:
        self.data[at] = value

    def numpy(self) -> np.ndarray:
        return self.data


def _vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def make() -> types.ModuleType:
    """A module to stand in `sys.modules` as warp."""
    warp: Any = types.ModuleType("warp")
    thread = [0]

    def launch(kernel: Any, count: int, given: list, device: str | None = None) -> None:
        for thread[0] in range(count):
            kernel(*given)

    def atomic_add(array: _Array, at: int, value: int) -> None:
        array.data[at] += value

    def zeros(shape: Any, dtype: Any = float, device: str | None = None) -> _Array:
        return _Array(np.zeros(shape), dtype)

    def zeros_like(array: _Array) -> _Array:
        return _Array(np.zeros_like(array.data))

    def array(data: Any = None, dtype: Any = float, device: str = "cpu") -> _Array | None:
        return None if data is None else _Array(data, dtype)

    warp.config = types.SimpleNamespace(quiet=False)
    warp.kernel = warp.func = lambda function: function
    warp.init = lambda: None
    warp.get_devices = lambda: [types.SimpleNamespace(alias="cpu")]
    warp.tid = lambda: thread[0]
    warp.launch, warp.atomic_add, warp.zeros, warp.zeros_like = launch, atomic_add, zeros, zeros_like
    warp.array = warp.array2d = warp.array3d = array
    warp.vec3 = warp.vec4 = warp.mat33 = _vector
    warp.float64, warp.float32 = np.float64, np.float32
    warp.dot, warp.cross, warp.outer, warp.length = np.dot, np.cross, np.outer, np.linalg.norm
    warp.sqrt, warp.exp, warp.min, warp.max, warp.isfinite = np.sqrt, np.exp, min, max, np.isfinite
    sys.modules.pop("isometry.scenes.physics.on_warp", None)
    return warp

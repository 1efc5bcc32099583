"""The one way this room compiles a loop: cached on disk, without the interpreter lock, exact float semantics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isometry.errors import MissingExtraError

try:
    import numba
except ImportError as error:
    raise MissingExtraError("scenes", "scene") from error


def compiled(function: Callable[..., Any]) -> Any:
    """`numba.njit` with what every kernel here wants; multiply-adds may be fused."""
    return numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")(function)


def compiled_parallel(function: Callable[..., Any]) -> Any:
    """The same for a loop over `numba.prange`."""
    return numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy", parallel=True)(function)

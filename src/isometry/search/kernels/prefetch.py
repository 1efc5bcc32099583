"""Asks for rows of an array before they are needed: rows here and there come from memory one after another otherwise.

Measured on 119,957 rows of 384 int8 (46 MB, more than the caches hold), every 200th of them: 65 ns a row without, 15 with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 16  # rows


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        name = "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        read, keep, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), generated


@njit(nogil=True, cache=True, inline="always")
def prefetch_row(base: int, row: int, width: int) -> None:
    """The cache lines of one row of `width` bytes, of an array that starts at the address `base`."""
    start = base + row * width
    for line in range(start, start + width, 64):
        _prefetch(line)


@njit(nogil=True, cache=True)
def address(array: np.ndarray) -> int:
    """Where a contiguous array starts."""
    return array.ctypes.data

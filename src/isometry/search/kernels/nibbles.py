"""Scans over codes of 4-bit digits by table look-up in registers, with top-k and filter inside the loop. Needs numba.

Every digit of a code picks one of 16 numbers that depend on the query, and a row's score is their sum: product codes of
4 bits a part, and any binary code whose score is a weighted sum of signs, four bits to a digit. The numbers are rounded
to bytes, so that a shuffle instruction looks up 64 rows at once ("fast scan", Andre et al., VLDB 2015; faiss' PQ4).

Rows are laid out in blocks of 128: `blocks` (ceil(n / 128), digits, 64) uint8. Byte 2 i of a digit holds rows i (low
half) and 64 + i (high half), byte 2 i + 1 rows 32 + i and 96 + i: 16-bit sums over even and odd bytes then come out in
the order of the rows. Reading is strictly sequential, and a block stays in the nearest cache while several queries pass.
"""

from __future__ import annotations

import platform

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from isometry.search.kernels.bits import heap_replace

ROWS = 128
_GROUP = 4


def _shuffle_width() -> int:
    """Bytes that one shuffle instruction of this processor looks up: 64, 32, 16, or 0 where there is none known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return 0
    features = llvm.get_host_cpu_features()
    return next((w for w, name in ((64, "avx512bw"), (32, "avx2"), (16, "ssse3")) if features.get(name)), 0)


SHUFFLE_WIDTH = _shuffle_width()
_SHUFFLES = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}


@intrinsic
def _block_sums(typingctx, codes, at, tables, table, pairs, out):  # type: ignore[no-untyped-def]
    """Sums of table entries over all digits of one block: codes[at : at + pairs * 128] to out[:128] uint16.

    `tables` holds 32 bytes for each pair of digits from `table` on, and no sum over a pair exceeds 255. Written as vector
    code, since no loop vectoriser finds the shuffle.
    """
    width = SHUFFLE_WIDTH
    pieces = 64 // width

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        from numba.np.arrayobj import make_array

        whole, byte, short = ir.IntType(64), ir.IntType(8), ir.IntType(16)
        bytes_, shorts = ir.VectorType(byte, width), ir.VectorType(short, width // 2)
        lane = ir.VectorType(byte, 16)

        def data(position):  # type: ignore[no-untyped-def]
            return make_array(signature.args[position])(context, builder, arguments[position]).data

        source, entries, target = data(0), data(2), data(5)
        at, table, pairs = (arguments[i] for i in (1, 3, 4))
        name = _SHUFFLES[width]
        shuffle = cgutils.get_or_insert_function(builder.module, ir.FunctionType(bytes_, [bytes_, bytes_]), name)
        low = ir.Constant(bytes_, [15] * width)
        eight, four = (ir.Constant(shorts, [amount] * (width // 2)) for amount in (8, 4))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(shorts, [0] * (width // 2))) for _ in range(4 * pieces)]
        repeat = ir.Constant(ir.VectorType(ir.IntType(32), width), [i % 16 for i in range(width)])

        def add(place, value):  # type: ignore[no-untyped-def]
            builder.store(builder.add(builder.load(place), value), place)

        with cgutils.for_range(builder, pairs, intp=whole) as loop:
            entry = builder.add(table, builder.mul(loop.index, ir.Constant(whole, 32)))
            place = builder.add(at, builder.mul(loop.index, ir.Constant(whole, 128)))
            numbers = []
            for member in range(2):
                here = builder.gep(entries, [builder.add(entry, ir.Constant(whole, 16 * member))])
                row = builder.load(builder.bitcast(here, lane.as_pointer()))
                row.align = 1
                numbers.append(builder.shuffle_vector(row, ir.Constant(lane, ir.Undefined), repeat))
            for piece in range(pieces):
                found = []
                for member in range(2):
                    offset = ir.Constant(whole, 64 * member + piece * width)
                    here = builder.gep(source, [builder.add(place, offset)])
                    packed = builder.load(builder.bitcast(here, bytes_.as_pointer()))
                    packed.align = 1
                    upper = builder.bitcast(builder.lshr(builder.bitcast(packed, shorts), four), bytes_)
                    for digit in (packed, upper):
                        found.append(builder.call(shuffle, [numbers[member], builder.and_(digit, low)]))
                for half in range(2):
                    both = builder.bitcast(builder.add(found[half], found[2 + half]), shorts)
                    # The even sum keeps 256 times the odd one on top, wrapping around; it is taken off at the end.
                    add(sums[4 * piece + 2 * half], both)
                    add(sums[4 * piece + 2 * half + 1], builder.lshr(both, eight))
        for piece in range(pieces):
            for half in range(2):
                odd = builder.load(sums[4 * piece + 2 * half + 1])
                even = builder.sub(builder.load(sums[4 * piece + 2 * half]), builder.shl(odd, eight))
                for parity, value in enumerate((even, odd)):
                    start = ir.Constant(whole, half * 64 + parity * 32 + piece * width // 2)
                    store = builder.store(value, builder.bitcast(builder.gep(target, [start]), shorts.as_pointer()))
                    store.align = 2
        return context.get_dummy_value()

    return types.void(codes, types.int64, tables, types.int64, types.int64, out), generate


@intrinsic
def _weigh(typingctx, sums, times, plus, factor, start, found):  # type: ignore[no-untyped-def]
    """(sums * times + plus) * factor[start : start + 128] into found[:128]; returns the largest. Generic vector code.

    factor holds the bits of float16 numbers as uint16.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        from numba.np.arrayobj import make_array

        def data(position):  # type: ignore[no-untyped-def]
            return make_array(signature.args[position])(context, builder, arguments[position]).data

        single, whole = ir.FloatType(), ir.IntType(64)
        floats = ir.VectorType(single, 16)
        undefined = ir.Constant(floats, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), 16), [0] * 16)

        def spread(value):  # type: ignore[no-untyped-def]
            one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, undefined, everywhere)

        def place(array, at, kind):  # type: ignore[no-untyped-def]
            return builder.bitcast(builder.gep(array, [at]), kind.as_pointer())

        source, weights, target = data(0), data(3), data(5)
        times, plus = spread(arguments[1]), spread(arguments[2])
        best = None
        for lane in range(0, ROWS, 16):
            at = ir.Constant(whole, lane)
            counted = builder.load(place(source, at, ir.VectorType(ir.IntType(16), 16)))
            counted.align = 2
            half = builder.load(place(weights, builder.add(arguments[4], at), ir.VectorType(ir.HalfType(), 16)))
            half.align = 2
            weight = builder.fpext(half, floats)
            value = builder.fadd(builder.fmul(builder.uitofp(counted, floats), times), plus)
            value = builder.fmul(value, weight)
            store = builder.store(value, place(target, at, floats))
            store.align = 4
            best = value if best is None else builder.select(builder.fcmp_ordered(">", value, best), value, best)
        kind = ir.FunctionType(single, [floats])
        largest = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fmax.v16f32")
        return builder.call(largest, [best])

    return types.float32(sums, types.float32, types.float32, factor, types.int64, found), generate


@njit(nogil=True, cache=True)
def _block_sums_plain(codes, at, tables, table, pairs, out):  # type: ignore[no-untyped-def]
    out[:] = 0
    for digit in range(2 * pairs):
        for i in range(32):
            even, odd = codes[at + digit * 64 + 2 * i], codes[at + digit * 64 + 2 * i + 1]
            entry = table + digit * 16
            out[i] += tables[entry + (even & 15)]
            out[32 + i] += tables[entry + (odd & 15)]
            out[64 + i] += tables[entry + (even >> 4)]
            out[96 + i] += tables[entry + (odd >> 4)]


@njit(nogil=True, cache=True)
def _block_sums_shuffled(codes, at, tables, table, pairs, out):  # type: ignore[no-untyped-def]
    _block_sums(codes, at, tables, table, pairs, out)


_sums = _block_sums_shuffled if SHUFFLE_WIDTH else _block_sums_plain


def nibble_layout(codes: np.ndarray) -> np.ndarray:
    """Codes (n, bytes) uint8 of two digits a byte, the low half first, to blocks (ceil(n / 128), 2 bytes, 64) uint8."""
    n, width = codes.shape
    blocks = np.empty((-(-n // ROWS), 2 * width, 64), np.uint8)
    for first in range(0, len(blocks), 256):
        rows = codes[first * ROWS : (first + 256) * ROWS]
        padded = np.zeros((-(-len(rows) // ROWS) * ROWS, width), np.uint8)
        padded[: len(rows)] = rows
        digits = np.stack([padded & 15, padded >> 4], axis=2).reshape(-1, 4, 32, 2 * width)
        even, odd = digits[:, 0] | digits[:, 2] << 4, digits[:, 1] | digits[:, 3] << 4
        blocks[first : first + len(digits)] = (
            np.stack([even, odd], axis=2).reshape(-1, 64, 2 * width).transpose(0, 2, 1)
        )
    return blocks


def nibble_rows(blocks: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The codes (m, bytes) uint8 of some rows (m,), as `nibble_layout` was given them."""
    place = rows % ROWS
    at = 2 * (place % 32) + place // 32 % 2
    packed = blocks[rows // ROWS, :, at]
    digits = np.where(place[:, None] < 64, packed & 15, packed >> 4)
    return digits[:, ::2] | digits[:, 1::2] << 4


def row_factors(factor: np.ndarray | None) -> np.ndarray:
    """Factors (n,) as the scan wants them: float16 bits (uint16) padded to whole blocks, one block of ones for None."""
    if factor is None:
        return np.ones(ROWS, np.float16).view(np.uint16)
    padded = np.zeros(max(-(-len(factor) // ROWS), 2) * ROWS, np.float16)
    padded[: len(factor)] = factor
    return padded.view(np.uint16)


def nibble_tables(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Table entries (q, digits, 16) float32 rounded to bytes.

    Returns tables (q, digits, 16) uint8, step (q,) and base (q,) float32: a row's score is step * sum + base, at most
    digits * step / 2 from the sum of the floats.
    """
    least = entries.min(axis=2, keepdims=True)
    rest = entries - least
    pairs = rest.max(axis=2).reshape(len(entries), -1, 2).sum(axis=2)
    # One less than a byte holds for each entry's rounding, so that the sum over a pair stays within a byte.
    most = min(254, 65535 // pairs.shape[1] - 1)
    largest = pairs.max(axis=1)
    step = (np.where(largest > 0, largest, 1) / most).astype(np.float32)
    tables = np.rint(rest / step[:, None, None]).astype(np.uint8)
    return np.ascontiguousarray(tables), step, least.sum(axis=(1, 2), dtype=np.float64).astype(np.float32)


def sign_entries(weights: np.ndarray) -> np.ndarray:
    """Weights (q, bits) of signs, bits a multiple of 8, to table entries (q, bits / 4, 16) for packed bits.

    A set bit counts +weight, a clear one -weight. The first bit of a byte is its highest (numpy.packbits); digits are in
    the order of `nibble_layout`, the low half of a byte first.
    """
    halves = weights.reshape(len(weights), -1, 2, 4)[:, :, ::-1]
    signs = (np.arange(16)[:, None] >> np.array([3, 2, 1, 0]) & 1).astype(np.float32) * 2 - 1
    return np.ascontiguousarray(halves.reshape(len(weights), -1, 4) @ signs.T, dtype=np.float32)


@njit(nogil=True, cache=True)
def nibble_top(
    blocks: np.ndarray, n: int, tables: np.ndarray, step: np.ndarray, base: np.ndarray, factor: np.ndarray,
    allowed: np.ndarray, masked: bool, rows: np.ndarray, scores: np.ndarray,
) -> None:  # fmt: skip
    """Largest (step * sum + base) * factor[row]; equal scores by lower row.

    tables, step, base: of `nibble_tables`. factor: of `row_factors`. rows, scores (q, k): the answer, in no order, rows
    -1 and scores -inf where fewer match.
    """
    count, digits = tables.shape[0], tables.shape[1]
    flat, entries = blocks.reshape(-1), tables.reshape(-1)
    stride = ROWS if len(factor) > ROWS else 0
    sums = np.empty(ROWS, np.uint16)
    found = np.empty(ROWS, np.float32)
    rows[:] = -1
    scores[:] = -np.inf
    for first in range(0, len(blocks), _GROUP):
        for q in range(count):
            floor = scores[q, 0]
            for b in range(first, min(first + _GROUP, len(blocks))):
                _sums(flat, b * digits * 64, entries, q * digits * 16, digits // 2, sums)
                if not _weigh(sums, step[q], base[q], factor, b * stride, found) > floor:
                    continue
                for lane in range(min(ROWS, n - b * ROWS)):
                    row = b * ROWS + lane
                    if found[lane] > floor and not (masked and not allowed[row]):
                        heap_replace(scores[q], rows[q], found[lane], row)
                        floor = scores[q, 0]

"""Writes a small ONNX network without the onnx package: protocol buffers by hand."""

from __future__ import annotations

import numpy as np


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def _node(kind: str, given: tuple[str, ...], made: str) -> bytes:
    return b"".join(_field(1, name) for name in given) + _field(2, made) + _field(4, kind)


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_field(1, size) for size in values.shape)
    return dims + _field(2, 1) + _field(8, name) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sizes)))


def painting_network(colour: tuple[float, float, float], *, scale: float = 1.0, image: str = "image") -> bytes:
    """A network of the LaMa type's inputs that paints every hole in one colour: scale * (image (1 - mask) + colour mask)."""
    nodes = [
        _node("Sub", ("one", "mask"), "keep"), _node("Mul", (image, "keep"), "kept"), _node("Mul", ("mask", "paint"), "new"),
        _node("Add", ("kept", "new"), "sum"), _node("Mul", ("sum", "scale"), "output"),
    ]  # fmt: skip
    constants = [
        _tensor("one", np.ones((1, 1, 1, 1))), _tensor("paint", np.array(colour).reshape(1, 3, 1, 1)),
        _tensor("scale", np.full((1, 1, 1, 1), scale)),
    ]  # fmt: skip
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "paint")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, _value(image, (1, 3, 512, 512))) + _field(11, _value("mask", (1, 1, 512, 512)))
    graph += _field(12, _value("output", (1, 3, 512, 512)))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))

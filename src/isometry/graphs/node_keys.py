"""Nodes to 64-bit keys that are the same in every run and on every machine.

Python's own `hash` of a string changes from process to process; here a node of any hashable kind is written out with
its type and hashed with BLAKE2b. An embedding seeded by these keys gives a node the same random row wherever it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def node_keys(nodes: Iterable[Hashable]) -> np.ndarray:
    """Names of n nodes to uint64 `(n,)`. Whole numbers of any width give one key; 1 and '1' differ.

    >>> bool(node_keys([1])[0] == node_keys([np.int32(1)])[0]), bool(node_keys(["1"])[0] == node_keys([1])[0])
    (True, False)
    """
    digests = b"".join(hashlib.blake2b(_written(node), digest_size=8).digest() for node in nodes)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mixed(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 values (any shape) so that close inputs give unrelated outputs: the finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def uniform(bits: np.ndarray) -> np.ndarray:
    """uint64 to float64 strictly between 0 and 1."""
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _written(node: Hashable) -> bytes:
    if isinstance(node, str):
        return b"s" + node.encode("utf-8", "surrogatepass")
    if isinstance(node, (int, np.integer)) and not isinstance(node, bool):
        return b"i" + str(int(node)).encode()
    if isinstance(node, bytes):
        return b"b" + node
    return f"{type(node).__name__}:{node!r}".encode("utf-8", "surrogatepass")

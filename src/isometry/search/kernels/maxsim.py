"""Sum over query tokens of the best inner product with a document's tokens (MaxSim, Chamfer)."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

_TOKENS = 8192


def max_similarity(query: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Query tokens (t, d) and documents (values (sum t_i, d), offsets (n + 1)) float32 to scores (n,) float32.

    Runs in blocks of documents. A document without tokens scores -inf.
    """
    return _blocks(query, values, offsets, lambda tokens: tokens @ query.T)


def screened_similarity(query: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """As `max_similarity` in bfloat16 (torch; plain where it is missing): to rank candidates, not to report scores.

    `values` may be a torch bfloat16 tensor kept for the purpose.
    """
    if find_spec("torch") is None:
        return max_similarity(query, values, offsets)
    import torch

    asked = torch.from_numpy(query).to(torch.bfloat16).T

    def products(tokens: np.ndarray) -> np.ndarray:
        held = tokens if isinstance(tokens, torch.Tensor) else torch.from_numpy(tokens).to(torch.bfloat16)
        return (held @ asked).float().numpy()

    return _blocks(query, values, offsets, products)


def carve(query: np.ndarray, threshold: float = 0.7) -> np.ndarray:
    """Fewer query tokens (s, d): each group within `threshold` of its first token is replaced by its sum (paper 32)."""
    left = np.ones(len(query), bool)
    groups = []
    near = query @ query.T >= threshold
    for token in range(len(query)):
        if left[token]:
            members = near[token] & left
            members[token] = True
            groups.append(query[members].sum(axis=0))
            left &= ~members
    return np.array(groups, np.float32).reshape(len(groups), query.shape[1])


def _blocks(query, values, offsets, products):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    out = np.full(n, -np.inf, np.float32)
    first = 0
    while first < n:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _TOKENS, side="right")) - 1)
        sizes = np.diff(offsets[first : last + 1])
        some = np.flatnonzero(sizes > 0)
        if len(some):
            found = products(values[offsets[first] : offsets[last]])
            starts = offsets[first:last][some] - offsets[first]
            out[first + some] = np.maximum.reduceat(found, starts, axis=0).sum(axis=1)
        first = last
    return out

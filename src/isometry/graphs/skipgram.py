"""Skip-gram with negative sampling over walks.

Source: Mikolov et al., "Distributed Representations of Words and Phrases", NeurIPS 2013, with word2vec's habits: a
window drawn anew for each centre, negatives by frequency to the power 3/4, a learning rate that falls linearly.
One thread, so that a seed gives the same vectors every time.
"""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError, MissingExtraError
from isometry.graphs.random_walks import next_random, unit_random
from isometry.types import Progress

try:
    import numba
except ImportError as error:
    raise MissingExtraError("skip-gram training", "graph") from error

_CHUNK = 2048


def train_skipgram(
    walks: np.ndarray,
    n: int,
    dimension: int = 128,
    window: int = 10,
    negatives: int = 5,
    epochs: int = 1,
    learning_rate: float = 0.025,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Vectors float32 `(n, dimension)` of the numbers 0..n-1 that stand in walks int32 `(w, length)`; -1 ends a walk.

    Args:
        window: largest distance between centre and context; each centre draws its own from 1..window.
        negatives: drawn per pair.
        epochs: passes over the walks.
        learning_rate: at the start, falling to a 250th of it.
        progress: called with walks done and the total; returning False stops with KeyboardInterrupt.
    Numbers that occur in no walk keep a row of zeros.
    """
    if min(dimension, window, epochs) < 1 or negatives < 0 or not learning_rate > 0:
        raise InputError("dimension, window, epochs and learning_rate must be above 0, and negatives at least 0")
    if walks.size and walks.max() >= n:
        raise InputError(f"a walk names {walks.max()}, outside 0..{n - 1}")
    generator = np.random.default_rng(seed)
    counts = np.bincount(walks[walks >= 0].ravel(), minlength=n)
    vectors = ((generator.random((n, dimension), dtype=np.float32) - 0.5) / dimension).astype(np.float32)
    vectors[counts == 0] = 0.0
    contexts = np.zeros((n, dimension), dtype=np.float32)
    accept, alias = _alias_table(counts.astype(np.float64) ** 0.75) if counts.any() else (np.ones(n), np.arange(n))
    state = np.array([generator.integers(0, 2**63)], dtype=np.uint64)
    total = len(walks) * epochs
    for done in range(0, total, _CHUNK):
        rows = np.arange(done, min(done + _CHUNK, total)) % len(walks)
        rate = learning_rate * max(1 - done / total, 0.004)
        _train(walks[rows], vectors, contexts, accept, alias, state, window, negatives, np.float32(rate))
        if progress is not None and progress(min(done + _CHUNK, total), total) is False:
            raise KeyboardInterrupt
    return vectors


def _alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vose's alias method: draw a column, keep it with `accept[column]`, else take `alias[column]`."""
    n = len(weights)
    accept, alias = weights * (n / weights.sum()), np.arange(n)
    small, large = [list(np.flatnonzero(side)) for side in (accept < 1, accept >= 1)]
    while small and large:
        less, more = small.pop(), large[-1]
        alias[less] = more
        accept[more] -= 1 - accept[less]
        if accept[more] < 1:
            small.append(large.pop())
    accept[small + large] = 1.0
    return accept, alias


@numba.njit(fastmath=True, cache=True)
def _train(walks, vectors, contexts, accept, alias, state, window, negatives, rate):  # type: ignore[no-untyped-def]
    n, d = vectors.shape
    random = state[0]
    push = np.empty(d, dtype=np.float32)
    for w in range(walks.shape[0]):
        walk = walks[w]
        length = 0
        while length < len(walk) and walk[length] >= 0:
            length += 1
        for centre in range(length):
            random, bits = next_random(random)
            reach = 1 + int(unit_random(bits) * window)
            for place in range(max(0, centre - reach), min(length, centre + reach + 1)):
                if place == centre:
                    continue
                vector = vectors[walk[place]]
                push[:] = 0
                for draw in range(negatives + 1):
                    if draw == 0:
                        target, label = walk[centre], np.float32(1)
                    else:
                        random, bits = next_random(random)
                        column = int(unit_random(bits) * n)
                        random, bits = next_random(random)
                        target = column if unit_random(bits) < accept[column] else alias[column]
                        if target == walk[centre]:
                            continue
                        label = np.float32(0)
                    context = contexts[target]
                    product = np.float32(0)
                    for i in range(d):
                        product += vector[i] * context[i]
                    step = (label - np.float32(1) / (np.float32(1) + np.exp(-product))) * rate
                    for i in range(d):
                        push[i] += step * context[i]
                        context[i] += step * vector[i]
                for i in range(d):
                    vector[i] += push[i]
    state[0] = random

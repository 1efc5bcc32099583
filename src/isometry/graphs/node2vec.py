"""Node embeddings from random walks and skip-gram: DeepWalk (p = q = 1) and node2vec.

Sources: Perozzi et al. 2014; Grover and Leskovec 2016. Departs from DeepWalk: negative sampling in place of the
hierarchical softmax, as node2vec has it. The peer that paper 30 compares FastRP with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from isometry.graphs.random_walks import sample_walks
from isometry.graphs.skipgram import train_skipgram
from isometry.types import Progress


class Node2Vec(BaseEstimator):
    """Adjacency `(n, n)` to vectors float32 `(n, dimension)`; nodes without an edge get zeros.

    Args:
        dimension: d.
        walks_per_node, walk_length, window: as in DeepWalk (paper 30 ran it with 80, 40, 10).
        p, q: return and in-out parameters of the walk; 1 and 1 are DeepWalk.
        negatives: negative samples a pair.
        epochs: passes over the walks.
        learning_rate: at the start.
        random_state: whole number for repeatable vectors.

    Attributes:
        embedding_: float32 `(n, dimension)`, of the fitted graph alone: walks say nothing of nodes that come later.
    """

    def __init__(
        self,
        dimension: int = 128,
        walks_per_node: int = 10,
        walk_length: int = 40,
        window: int = 10,
        p: float = 1.0,
        q: float = 1.0,
        negatives: int = 5,
        epochs: int = 1,
        learning_rate: float = 0.025,
        random_state: Any = 0,
    ) -> None:
        self.dimension = dimension
        self.walks_per_node = walks_per_node
        self.walk_length = walk_length
        self.window = window
        self.p = p
        self.q = q
        self.negatives = negatives
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> Node2Vec:
        """Walk and train; `progress` is called with walks done and the total."""
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = int(check_random_state(seed).randint(0, 2**31 - 1))
        walks = sample_walks(X, self.walks_per_node, self.walk_length, self.p, self.q, seed)
        n = X.shape[0]
        self.embedding_ = train_skipgram(
            walks, n, self.dimension, self.window, self.negatives, self.epochs, self.learning_rate, seed, progress
        )
        # a node without an edge stands in walks of length one, which move nothing: drop its random start
        lonely = np.ones(n, dtype=bool)
        lonely[walks[walks[:, 1] >= 0].ravel() if walks.shape[1] > 1 else []] = False
        self.embedding_[lonely] = 0.0
        self.n_features_in_ = n
        return self

    def fit_transform(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> np.ndarray:
        return self.fit(X, y, progress=progress).embedding_

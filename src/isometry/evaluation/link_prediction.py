"""Do vectors of linked nodes lie closer than those of unlinked ones? Held-out edges against sampled pairs, by AUC.

Protocol of the node-embedding papers (node2vec, section 4.4): hide a share of the edges, embed what is left, score
pairs. Departs from it: pairs are scored by the vectors themselves (cosine or inner product), with no classifier on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse, stats

from isometry.errors import InputError, ShapeError


@dataclass(frozen=True)
class LinkSplit:
    """An undirected graph with some edges hidden.

    Attributes:
        adjacency: `(n, n)` csr_array of what is left; every node that had an edge keeps one.
        positives: hidden edges `(m, 2)`.
        negatives: as many pairs that are no edge, `(m, 2)`.
    """

    adjacency: sparse.csr_array
    positives: np.ndarray
    negatives: np.ndarray


class LinkPrediction:
    """Judges vectors `(n, d)` by the AUC of hidden edges over unlinked pairs.

    Args:
        share: of the edges to hide, strictly between 0 and 1.
        score: 'cosine' or 'inner'.

    Use: `split = task.split(adjacency, seed)`, embed `split.adjacency`, then `task.score(vectors, split)`.
    """

    def __init__(self, share: float = 0.2, score: Literal["cosine", "inner"] = "cosine") -> None:
        if not 0 < share < 1:
            raise InputError(f"the share of hidden edges lies between 0 and 1, not {share}")
        if score not in ("cosine", "inner"):
            raise InputError(f"pairs are scored by 'cosine' or 'inner', not {score!r}")
        self.share, self.by = share, score

    def split(self, adjacency: Any, seed: int = 0) -> LinkSplit:
        """Hide edges of a symmetric adjacency `(n, n)`; no node loses its last edge.

        Raises:
            InputError: not symmetric, nothing can be hidden, or too few unlinked pairs.
        """
        matrix = sparse.csr_array(adjacency)
        n = matrix.shape[0]
        if matrix.shape != (n, n) or abs(matrix - matrix.T).max() > 0:
            raise InputError("link prediction needs an undirected graph: a symmetric matrix")
        upper = sparse.coo_array(sparse.triu(matrix, 1))
        edges = np.stack(upper.coords, axis=1).astype(np.int64)
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(edges))
        wanted = round(self.share * len(edges))
        hidden = _removable(edges, order, n, wanted)
        if not hidden.any():
            raise InputError("no edge can be hidden without leaving a node alone")
        row, column = edges[~hidden].T
        values = upper.data[~hidden]
        left = sparse.coo_array((np.r_[values, values], (np.r_[row, column], np.r_[column, row])), shape=(n, n)).tocsr()
        left.setdiag(matrix.diagonal())
        left.eliminate_zeros()
        negatives = _unlinked(edges, n, int(hidden.sum()), generator)
        return LinkSplit(sparse.csr_array(left), edges[hidden], negatives)

    def score(self, vectors: np.ndarray, split: LinkSplit) -> float:
        """AUC in [0, 1]: chance that a hidden edge scores above an unlinked pair, equal scores counting half."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != split.adjacency.shape[0] or not np.isfinite(vectors).all():
            raise ShapeError(f"finite vectors of shape ({split.adjacency.shape[0]}, d) are needed, not {vectors.shape}")
        if self.by == "cosine":
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(norms > 0, norms, 1)
        positive, negative = (
            np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
            for pairs in (split.positives, split.negatives)
        )
        return auc(positive, negative)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of two lists of scores, by ranks (ties count half)."""
    if not len(positive) or not len(negative):
        raise ShapeError("AUC needs at least one positive and one negative score")
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def _removable(edges: np.ndarray, order: np.ndarray, n: int, wanted: int) -> np.ndarray:
    degrees = np.bincount(edges.ravel(), minlength=n)
    hidden = np.zeros(len(edges), dtype=bool)
    count = 0
    for edge in order:
        a, b = edges[edge]
        if count == wanted:
            break
        if degrees[a] > 1 and degrees[b] > 1:
            hidden[edge] = True
            degrees[a] -= 1
            degrees[b] -= 1
            count += 1
    return hidden


def _unlinked(edges: np.ndarray, n: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` distinct pairs a < b that are no edge, uniformly."""
    pairs = n * (n - 1) // 2
    if pairs - len(edges) < count:
        raise InputError(f"the graph has only {pairs - len(edges)} unlinked pairs for {count} hidden edges")
    taken = edges[:, 0] * n + edges[:, 1]
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:
        drawn = np.sort(generator.integers(0, n, (2 * count + 16, 2)), axis=1)
        codes = drawn[drawn[:, 0] < drawn[:, 1]] @ np.array([n, 1])
        codes = codes[~np.isin(codes, taken)]
        found = np.concatenate([found, codes])
        # distinct, in the order drawn, so that cutting to `count` favours no pair
        found = found[np.sort(np.unique(found, return_index=True)[1])]
    return np.stack([found[:count] // n, found[:count] % n], axis=1)

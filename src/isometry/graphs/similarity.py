"""Weighted powers of a graph's matrix as a linear operator that is never written out.

Paper 30 (FastRP), section 3: S = sum_i w_i T^i L with T = D^-1 A and L = diag((d_j / 2m)^beta).
Departs from it: other matrices than T, and an optional term w_0 L for the node itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from isometry.errors import InputError, ShapeError

Matrix = Literal["transition", "adjacency", "symmetric", "laplacian"]
MATRICES: tuple[str, ...] = ("transition", "adjacency", "symmetric", "laplacian")


class SimilarityOperator(LinearOperator):
    """S = self_influence * L + sum_i weights[i-1] * M^i L over n nodes, applied by products only.

    Args:
        adjacency: `(n, n)` sparse, non-negative weights; rows without an edge stay zero.
        weights: w_1..w_q; q products of `adjacency` with a dense block, O(q m d).
        beta: exponent of the column scaling by degree, usually in [-1, 0]; 0 leaves columns alone.
        matrix: M. 'transition' D^-1 A (neighbours are averaged), 'adjacency' A (summed),
            'symmetric' D^-1/2 A D^-1/2, 'laplacian' I - that.
        self_influence: w_0.

    Raises:
        ShapeError: not square, or NaN or infinity among the weights.
        InputError: a negative weight, an unknown matrix, no power.
    """

    def __init__(
        self,
        adjacency: Any,
        weights: Sequence[float] = (0.0, 0.0, 1.0, 6.67),
        beta: float = -0.64,
        matrix: Matrix = "transition",
        self_influence: float = 0.0,
    ) -> None:
        if matrix not in MATRICES:
            raise InputError(f"no matrix '{matrix}': use one of {', '.join(MATRICES)}")
        self.weights = tuple(float(weight) for weight in weights)
        if not self.weights or not np.isfinite(self.weights).all() or not (any(self.weights) or self_influence):
            raise InputError(f"weights must be finite numbers, at least one of them not zero, not {list(weights)}")
        if not np.isfinite(beta):
            raise InputError(f"beta must be a finite number, not {beta}")
        adjacency = checked_adjacency(adjacency)
        self.degrees = np.asarray(adjacency.sum(axis=1, dtype=np.float64)).ravel()
        self.self_influence = float(self_influence)
        self.matrix = matrix
        connected = self.degrees > 0
        inverse = np.divide(1.0, self.degrees, out=np.zeros_like(self.degrees), where=connected)
        total = self.degrees.sum() or 1.0
        scaling = np.zeros_like(self.degrees)
        scaling[connected] = (self.degrees[connected] / total) ** beta
        dtype = adjacency.dtype
        self.column_scaling = scaling.astype(dtype)
        if matrix == "transition":
            values = adjacency.data * np.repeat(inverse, np.diff(adjacency.indptr)).astype(dtype)
        elif matrix == "adjacency":
            values = adjacency.data
        else:
            root = np.sqrt(inverse)
            values = adjacency.data * (np.repeat(root, np.diff(adjacency.indptr)) * root[adjacency.indices]).astype(
                dtype
            )
        self.stepper = sparse.csr_array((values, adjacency.indices, adjacency.indptr), shape=adjacency.shape)
        super().__init__(dtype=dtype, shape=adjacency.shape)

    def start(self, X: Any) -> np.ndarray:
        """L X for X `(n, d)`, sparse or dense, as a dense block."""
        dense = X.toarray() if sparse.issparse(X) else np.asarray(X)
        return dense.astype(self.dtype, copy=False) * self.column_scaling[:, None]

    def step(self, block: np.ndarray) -> np.ndarray:
        """M times a dense block `(n, d)`."""
        product = self.stepper @ block
        return block - product if self.matrix == "laplacian" else product

    def powers(self, X: Any) -> Iterator[np.ndarray]:
        """U_i = M^i L X for i = 1..q, each `(n, d)`; only the newest is held here."""
        block = self._first(X)
        yield block
        for _ in self.weights[1:]:
            block = self.step(block)
            yield block

    def _first(self, X: Any) -> np.ndarray:
        """M L X; a very sparse X is multiplied as such, which is four times faster than as a dense block."""
        edges_per_node = self.stepper.nnz / self.shape[0]
        if not sparse.issparse(X) or self.matrix == "laplacian" or X.nnz * edges_per_node > 0.5 * np.prod(X.shape):
            return self.step(self.start(X))
        scaled = sparse.csr_array(sparse.diags_array(self.column_scaling) @ X)
        return (self.stepper @ scaled).toarray()

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        total = self.self_influence * self.start(X)
        for weight, power in zip(self.weights, self.powers(X), strict=True):
            if weight:
                total += weight * power
        return total

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.asarray(x).reshape(-1, 1))

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        block = np.asarray(X, dtype=self.dtype)
        total = self.self_influence * block
        for weight in self.weights:
            product = self.stepper.T @ block
            block = block - product if self.matrix == "laplacian" else product
            total += weight * block
        return total * self.column_scaling[:, None]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.asarray(x).reshape(-1, 1))


def checked_adjacency(adjacency: Any) -> sparse.csr_array:
    """Anything sparse or dense and square to a canonical `csr_array` of float32 (float64 stays), or one sentence."""
    if not sparse.issparse(adjacency):
        adjacency = np.asarray(adjacency)
        if adjacency.ndim != 2 or adjacency.dtype.kind not in "fiub":
            raise ShapeError(f"an adjacency is a square matrix of numbers, not an array of shape {adjacency.shape}")
    if adjacency.shape[0] != adjacency.shape[1] or adjacency.shape[0] == 0:
        raise ShapeError(f"an adjacency has one row and one column per node, not shape {tuple(adjacency.shape)}")
    matrix = sparse.csr_array(adjacency)
    if matrix.dtype != np.float64:
        matrix = matrix.astype(np.float32)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        raise ShapeError("an edge weight is NaN or infinite: remove or replace it")
    if (matrix.data < 0).any():
        row = int(np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[np.flatnonzero(matrix.data < 0)[0]])
        raise InputError(f"node {row} has an edge of negative weight: degrees need weights of at least 0")
    return matrix

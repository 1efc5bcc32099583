"""FastRP: node embeddings by random projection of weighted powers of the transition matrix.

Paper 30: Chen, Sultan, Tian, Chen, Skiena, "Fast and Accurate Network Embeddings via Very Sparse Random Projection",
CIKM 2019, sections 3.2 to 3.5. Departs from it: dense float32 blocks after the start (sparse float64 products are the
published code's whole slowdown), isolated nodes give zero rows (there: infinity), random rows may follow the node's
name, node features may join the start, and directed graphs walk along their out-edges.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from isometry.errors import InputError, ShapeError
from isometry.graphs.merging import PowerMerger, inverse_row_norms, safe_inverse
from isometry.graphs.node_keys import node_keys
from isometry.graphs.projection import Kind, RandomProjection
from isometry.graphs.similarity import Matrix, SimilarityOperator
from isometry.types import Progress


class FastRP(TransformerMixin, BaseEstimator):
    """Adjacency `(n, n)` to vectors float32 `(n, dimension)` ('concat': times the number of non-zero weights).

    Args:
        dimension: d; the paper uses 512, and 128 costs 2 to 3 points on BlogCatalog.
        weights: w_1..w_q of the powers (paper, BlogCatalog: 0, 0, 1, 6.67). Very sparse graphs like more powers.
        beta: exponent of the degree scaling, in [-1, 0] as a rule (paper, BlogCatalog: -0.64).
        normalization: rows of every power to length one before they are merged.
        projection: kind of `RandomProjection`.
        matrix: kind of `SimilarityOperator`; 'transition' is the paper's.
        merge: 'sum' (weighted) or 'concat'.
        standardize: each column to mean 0 and variance 1 over the nodes that have an edge; the others stay zero.
        feature_weight: weight of projected node features beside the random rows, where features are given.
        block_size: columns worked on at a time. None keeps about 3 n d floats; a number keeps n d + 3 n block_size and
            walks the powers twice (once for the row lengths). The result is the same.
        random_state: whole number for repeatable vectors; vectors of different seeds are not comparable.

    Attributes:
        projection_: fitted `RandomProjection`.
        mean_, scale_: float32 `(width,)`, None without standardising.

    >>> FastRP(dimension=4, weights=(1,)).fit_transform([[0, 1], [1, 0]]).shape
    (2, 4)
    """

    def __init__(
        self,
        dimension: int = 512,
        weights: Sequence[float] = (0.0, 0.0, 1.0, 6.67),
        beta: float = -0.64,
        normalization: bool = True,
        projection: Kind = "very-sparse",
        matrix: Matrix = "transition",
        merge: Literal["sum", "concat"] = "sum",
        standardize: bool = True,
        feature_weight: float = 1.0,
        block_size: int | None = None,
        random_state: Any = 0,
    ) -> None:
        self.dimension = dimension
        self.weights = weights
        self.beta = beta
        self.normalization = normalization
        self.projection = projection
        self.matrix = matrix
        self.merge = merge
        self.standardize = standardize
        self.feature_weight = feature_weight
        self.block_size = block_size
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        nodes: Sequence[Hashable] | None = None,
        features: Any = None,
        progress: Progress | None = None,
    ) -> FastRP:
        """Fix the projection and the column means and spreads on this graph; see `fit_transform`."""
        self.fit_transform(X, y, nodes=nodes, features=features, progress=progress)
        return self

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *,
        nodes: Sequence[Hashable] | None = None,
        features: Any = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Embed the graph's n nodes.

        Args:
            X: adjacency `(n, n)`, sparse or dense, weights >= 0.
            nodes: n distinct names. Given, a node's random row follows its name and not its place, so that another
                snapshot of the graph can be embedded into the same space by `transform`.
            features: `(n, f)`, sparse or dense; rows are brought to length one and projected.
            progress: called with column blocks done and the total.
        Raises:
            ShapeError, InputError: see `SimilarityOperator`; also names or features of another count.
        """
        operator, keys = self._prepared(X, nodes)
        self.projection_ = RandomProjection(self.dimension, self.projection, self.random_state).fit_keys(keys)
        self.n_features_in_ = len(keys)
        self.named_ = nodes is not None
        self.feature_projection_ = None
        if features is not None:
            width = np.shape(features)[1] if np.ndim(features) == 2 or sparse.issparse(features) else 0
            if width == 0:
                raise ShapeError(f"features must have shape (nodes, features), not {np.shape(features)}")
            # another stream than the nodes': columns of features are numbered from the other end
            column_keys = np.arange(width, dtype=np.uint64) ^ np.uint64(2**62)
            projection = RandomProjection(self.dimension, "gaussian", self.projection_.seed_)
            self.feature_projection_ = projection.fit_keys(column_keys)
        merged = self._merged(operator, keys, features, progress)
        signal = operator.degrees > 0
        self.mean_ = self.scale_ = None
        if self.standardize and signal.any():
            self.mean_, self.scale_ = _mean_and_spread(merged, signal)
        return self._standardized(merged, signal)

    def transform(
        self,
        X: Any,
        *,
        nodes: Sequence[Hashable] | None = None,
        features: Any = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Embed a graph into the fitted space: the same one, or a later snapshot with nodes added or removed.

        With names at `fit`, names are needed here; without them a node is its row number.
        """
        check_is_fitted(self, "projection_")
        if self.named_ != (nodes is not None):
            raise InputError(
                "this FastRP was fitted " + ("with node names: give nodes=" if self.named_ else "without node names")
            )
        if (features is not None) != (self.feature_projection_ is not None):
            raise InputError("give features to both fit and transform, or to neither")
        if self.feature_projection_ is not None and np.shape(features)[1] != len(self.feature_projection_.keys_):
            raise ShapeError(f"fitted with {len(self.feature_projection_.keys_)} features, got {np.shape(features)[1]}")
        operator, keys = self._prepared(X, nodes)
        return self._standardized(self._merged(operator, keys, features, progress), operator.degrees > 0)

    def _prepared(self, X: Any, nodes: Sequence[Hashable] | None) -> tuple[SimilarityOperator, np.ndarray]:
        if self.block_size is not None and self.block_size < 1:
            raise InputError(f"block_size must be above 0, not {self.block_size}")
        operator = SimilarityOperator(X, self.weights, self.beta, self.matrix)
        n = operator.shape[0]
        if nodes is None:
            return operator, np.arange(n, dtype=np.uint64)
        if len(nodes) != n:
            raise ShapeError(f"there are {len(nodes)} node names for {n} rows")
        if len(set(nodes)) != n:
            raise InputError("node names must be distinct")
        return operator, node_keys(nodes)

    def _merged(
        self, operator: SimilarityOperator, keys: np.ndarray, features: Any, progress: Progress | None
    ) -> np.ndarray:
        """Weighted powers `(n, width)` before standardising, one block of columns after the other."""
        n, d = operator.shape[0], self.dimension
        size = min(self.block_size or d, d)
        starts = list(range(0, d, size))
        rows = None if features is None else _unit_features(features, n)
        two_passes = self.normalization and len(starts) > 1
        done, total = 0, len(starts) * (2 if two_passes else 1)

        def powers(start: int) -> Any:
            stop = min(start + size, d)
            first = self.projection_.matrix(start, stop, keys)
            if rows is not None and self.feature_projection_ is not None:
                projected = rows @ self.feature_projection_.matrix(start, stop)
                first = (first.toarray() if sparse.issparse(first) else first) + self.feature_weight * projected
            return operator.powers(first)

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None and progress(done, total) is False:
                raise KeyboardInterrupt

        if not two_passes:
            merger = PowerMerger(self.weights, self.merge, self.normalization)
            parts = []
            for start in starts:
                parts.append(merger.merge(powers(start)))
                tick()
            return parts[0] if len(parts) == 1 else self._joined(parts)
        squares = np.zeros((len(operator.weights), n))
        for start in starts:
            for i, block in enumerate(powers(start)):
                squares[i] += np.einsum("ij,ij->i", block, block)
            tick()
        factors = np.asarray(operator.weights)[:, None] * safe_inverse(np.sqrt(squares))
        merger = PowerMerger([1.0 if weight else 0.0 for weight in operator.weights], self.merge, normalization=False)
        parts = []
        for start in starts:
            scaled = (block * factors[i].astype(block.dtype)[:, None] for i, block in enumerate(powers(start)))
            parts.append(merger.merge(scaled))
            tick()
        return self._joined(parts)

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        """Column blocks side by side; for 'concat', power by power as a single block would have them."""
        if self.merge == "sum":
            return np.concatenate(parts, axis=1)
        count = sum(1 for weight in self.weights if weight)
        split = [np.split(part, count, axis=1) for part in parts]
        return np.concatenate([piece[i] for i in range(count) for piece in split], axis=1)

    def _standardized(self, merged: np.ndarray, signal: np.ndarray) -> np.ndarray:
        if self.mean_ is not None:
            merged -= self.mean_
            merged /= self.scale_
            merged[~signal] = 0.0
        return np.ascontiguousarray(merged, dtype=np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = True
        tags.input_tags.positive_only = True
        return tags


def _mean_and_spread(merged: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column over the marked rows; sums in float64 over pieces that stay in the cache."""
    known = merged if rows.all() else merged[rows]
    mean = known.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(known), 1024):
        piece = known[start : start + 1024] - mean.astype(known.dtype)
        squares += np.einsum("ij,ij->j", piece, piece)
    spread = np.sqrt(squares / len(known))
    # a column that is constant up to rounding carries nothing; dividing would blow the rounding up
    spread[spread <= 1e-6 * np.abs(mean) + 1e-30] = 1.0
    return mean.astype(np.float32), spread.astype(np.float32)


def _unit_features(features: Any, n: int) -> Any:
    if features.shape[0] != n:
        raise ShapeError(f"there are {features.shape[0]} rows of features for {n} nodes")
    if sparse.issparse(features):
        matrix = sparse.csr_array(features, dtype=np.float32)
        if not np.isfinite(matrix.data).all():
            raise ShapeError("a node feature is NaN or infinite")
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        return sparse.csr_array(sparse.diags_array(safe_inverse(lengths).astype(np.float32)) @ matrix)
    dense = np.asarray(features, dtype=np.float32)
    if not np.isfinite(dense).all():
        raise ShapeError("a node feature is NaN or infinite")
    return dense * inverse_row_norms(dense)[:, None].astype(np.float32)

"""Random projections whose every entry is a function of (seed, row key, column).

Sources: Li, Hastie, Church, "Very Sparse Random Projections", KDD 2006 (entries sqrt(s) * {+1, 0, -1}); Achlioptas 2003
(signs); Charikar, Chen, Farach-Colton 2002 (count sketch); Ailon and Chazelle 2009 (signed Hadamard columns).
Departs from them: nothing is drawn from a stream. An entry is a hash, so any block of columns can be made alone, a new
row never disturbs the others, and two processes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from isometry.errors import InputError
from isometry.graphs.node_keys import GOLDEN, mixed, uniform

Kind = Literal["very-sparse", "gaussian", "sign", "orthogonal", "count-sketch"]
KINDS: tuple[str, ...] = ("very-sparse", "gaussian", "sign", "orthogonal", "count-sketch")


class RandomProjection(TransformerMixin, BaseEstimator):
    """X `(m, n)` to X R `(m, dimension)`, with E[R R^T] = I so that inner products are kept on average.

    Args:
        dimension: columns of R (d).
        kind: 'very-sparse': +-sqrt(s/d) with probability 1/s, s = sqrt(n). 'gaussian': N(0, 1/d).
            'sign': +-1/sqrt(d). 'orthogonal': columns of a Hadamard matrix with random row signs, exactly orthogonal
            when n is a power of two and d <= n. 'count-sketch': one +-1 in each row.
        random_state: a whole number gives the same R everywhere; None draws a seed at `fit`.

    Attributes:
        seed_: of the random numbers, given or drawn.
        keys_: of the nodes, `(n,)` uint64.
        density_: 1/s.
        key_bits_: of a key.
    """

    def __init__(self, dimension: int = 512, kind: Kind = "very-sparse", random_state: Any = 0) -> None:
        self.dimension = dimension
        self.kind = kind
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> RandomProjection:
        """Takes only the number of columns of X `(m, n)`; their keys are their positions."""
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float32, np.float64])
        return self.fit_keys(np.arange(X.shape[1], dtype=np.uint64))

    def fit_keys(self, keys: np.ndarray) -> RandomProjection:
        """The same for n rows of R that go by keys `(n,)` uint64 (see `node_keys`)."""
        if self.kind not in KINDS:
            raise InputError(f"no projection '{self.kind}': use one of {', '.join(KINDS)}")
        if not isinstance(self.dimension, (int, np.integer)) or self.dimension < 1:
            raise InputError(f"dimension must be a whole number above 0, not {self.dimension!r}")
        if len(keys) < 1:
            raise InputError("a projection needs at least one row")
        self.keys_ = np.ascontiguousarray(keys, dtype=np.uint64)
        self.n_features_in_ = len(keys)
        self.density_ = 1.0 / np.sqrt(len(keys))
        self.key_bits_ = max(1, int(self.keys_.max()).bit_length())
        if isinstance(self.random_state, (int, np.integer)):
            self.seed_ = int(self.random_state)
        else:
            self.seed_ = int(check_random_state(self.random_state).randint(0, 2**31 - 1))
        return self

    def matrix(self, start: int = 0, stop: int | None = None, keys: np.ndarray | None = None) -> Any:
        """Columns start..stop of R for the fitted rows, or for others by their keys.

        Returns a float32 `csr_array` for the sparse kinds, else a float32 array `(n, stop - start)`.
        """
        check_is_fitted(self, "keys_")
        keys = self.keys_ if keys is None else np.ascontiguousarray(keys, dtype=np.uint64)
        stop = self.dimension if stop is None else stop
        rows = mixed(keys * GOLDEN + mixed(np.array([self.seed_ & (2**64 - 1)], dtype=np.uint64)))
        if self.kind == "very-sparse":
            return _very_sparse(rows, self.dimension, self.density_)[:, start:stop]
        if self.kind == "count-sketch":
            return _count_sketch(rows, self.dimension)[:, start:stop]
        if self.kind == "orthogonal":
            return _hadamard(rows, keys, self.dimension, start, stop, self.key_bits_, self.seed_)
        bits = mixed(rows[:, None] + np.arange(start, stop, dtype=np.uint64) * GOLDEN)
        if self.kind == "sign":
            signs = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float32)
            return signs * np.float32(1 / np.sqrt(self.dimension))
        return _gaussian(bits, self.dimension)

    def transform(self, X: Any) -> np.ndarray:
        """X `(m, n)`, sparse or dense, to `(m, dimension)` of X's type of float."""
        check_is_fitted(self, "keys_")
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float32, np.float64], reset=False)
        product = X @ self.matrix().astype(X.dtype)
        return np.ascontiguousarray(product.toarray() if sparse.issparse(product) else product)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> np.ndarray:
        return np.array([f"randomprojection{i}" for i in range(self.dimension)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32", "float64"]
        return tags


def _very_sparse(rows: np.ndarray, dimension: int, density: float) -> sparse.csr_array:
    """Walk each row from one non-zero to the next by geometric gaps: exact, and work only for what is not zero."""
    n = len(rows)
    value = np.float32(1 / np.sqrt(density * dimension))
    if density >= 1:
        found = [
            (np.arange(n), np.full(n, c), mixed(rows + np.array([c + 1], dtype=np.uint64) * GOLDEN))
            for c in range(dimension)
        ]
    else:
        found = []
        active, position, draw = np.arange(n), np.full(n, -1, dtype=np.int64), 0
        while len(active):
            draw += 1
            bits = mixed(rows[active] + np.array([draw], dtype=np.uint64) * GOLDEN)
            gap = 1 + np.floor(np.log(uniform(bits)) / np.log1p(-density))
            position = position + np.minimum(gap, dimension + 1).astype(np.int64)
            inside = position < dimension
            active, position, bits = active[inside], position[inside], bits[inside]
            found.append((active, position, bits))
    row = np.concatenate([part[0] for part in found])
    column = np.concatenate([part[1] for part in found])
    # a second scramble: the gap has used up the high bits of the first
    sign = mixed(np.concatenate([part[2] for part in found]) ^ GOLDEN) & np.uint64(1)
    values = np.where(sign == 0, value, -value).astype(np.float32)
    matrix = sparse.csr_array((values, (row, column)), shape=(n, dimension), dtype=np.float32)
    matrix.sort_indices()
    return matrix


def _count_sketch(rows: np.ndarray, dimension: int) -> sparse.csr_array:
    bits = mixed(rows + GOLDEN)
    column = ((bits >> np.uint64(1)) % np.uint64(dimension)).astype(np.int32)
    values = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float32)
    return sparse.csr_array((values, column, np.arange(len(rows) + 1)), shape=(len(rows), dimension), dtype=np.float32)


def _gaussian(bits: np.ndarray, dimension: int) -> np.ndarray:
    """Box-Muller on the two halves of each hash."""
    low, high = bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32)
    radius = np.sqrt(-2.0 * np.log((high.astype(np.float64) + 0.5) * 2.0**-32))
    angle = (low.astype(np.float64) + 0.5) * (2.0 * np.pi * 2.0**-32)
    return (radius * np.cos(angle) / np.sqrt(dimension)).astype(np.float32)


def _hadamard(
    rows: np.ndarray, keys: np.ndarray, dimension: int, start: int, stop: int, key_bits: int, seed: int
) -> np.ndarray:
    """Entry = (row sign) * (-1)^popcount(key & column code) / sqrt(d); every 2^key_bits columns get new row signs."""
    order = 2**key_bits
    codes = np.empty(stop - start, dtype=np.uint64)
    groups = np.empty(stop - start, dtype=np.uint64)
    for group in range(start // order, (stop - 1) // order + 1):
        generator = np.random.default_rng([seed & (2**64 - 1), group])
        size = min(order, dimension - group * order)
        # choice without replacement would build all 2^63 codes; distinct draws from so many need no check
        drawn = generator.permutation(order)[:size] if key_bits <= 24 else generator.integers(0, order, size, np.uint64)
        first, last = max(start, group * order), min(stop, group * order + size)
        codes[first - start : last - start] = drawn[first - group * order : last - group * order]
        groups[first - start : last - start] = group
    index = keys & np.uint64(order - 1)
    parity = np.bitwise_count(index[:, None] & codes) & 1
    row_sign = mixed(rows[:, None] + (groups + np.uint64(1)) * GOLDEN) & np.uint64(1)
    signs = 1.0 - 2.0 * (parity ^ row_sign.astype(np.uint8)).astype(np.float32)
    return signs * np.float32(1 / np.sqrt(dimension))

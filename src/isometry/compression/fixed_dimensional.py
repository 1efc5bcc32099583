"""Several vectors to one, so that inner products approximate the sum of best matches (MaxSim)."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import SavedEstimator
from isometry.errors import InputError, MissingExtraError, ShapeError

_TOKENS, _ROWS = 4096, 1024


def gray_rank(code: np.ndarray) -> np.ndarray:
    """Position of a bit string (n,) in the Gray sequence, in which neighbours differ in one bit."""
    rank = np.array(code, np.int64)
    shift = 1
    while shift < 64:
        rank ^= rank >> shift
        shift *= 2
    return rank


def gray_code(rank: np.ndarray) -> np.ndarray:
    """Bit string (n,) at a position of the Gray sequence; the inverse of `gray_rank`."""
    rank = np.asarray(rank, np.int64)
    return rank ^ rank >> 1


class FixedDimensionalEncoding(SavedEstimator):
    """MUVERA's encodings: for queries and documents different sums of bucketed, randomly projected token vectors.

    Paper: 32. For each of R repetitions tokens fall into 2^k_sim buckets by the signs of k_sim random directions and
    are projected to `projected` coordinates. A query's block is the sum of its tokens in the bucket; a document's block
    is their mean, and where there is none, the first token of the nearest bucket that has one (fewest differing bits,
    lower number first). <query, document> / R estimates the sum over query tokens of the best inner product.
    Data-oblivious: `fit` only draws.

    Two conventions are in use. "dense": entries ±1/sqrt(projected), as in the paper and the usual ports.
    "count_sketch": each coordinate goes to one slot with a sign, not scaled, and buckets in Gray order, as in the
    authors' released code. An item without tokens becomes a row of zeros.

    Args:
        k_sim: directions for each repetition; 0 puts all tokens in one bucket.
        projected: coordinates after the inner projection; None leaves tokens as they are.
        repetitions: R.
        fill_empty: fill the empty blocks of documents.
        final: coordinates of the final projection; None leaves R 2^k_sim projected coordinates.
        final_projection: "count_sketch" (one slot and sign for a coordinate, as in the authors' code), or the paper's
            "dense", entries ±1/sqrt(final): kept as bits, at most 1 GiB of them (the paper's 327,680 x 10,240: 0.4).
        projection: "dense" or "count_sketch".
        gray: blocks in Gray order; None follows the convention of `projection`.
        center: tokens fall into buckets by the side of the fitted tokens' mean that they lie on, not of the origin. Token
            vectors of models that were not trained for late interaction lie in a narrow cone, and would share a bucket.
        random_state: seed, shared by queries and documents; the drawn matrices are saved with the estimator.
    """

    def __init__(
        self,
        k_sim: int = 5,
        projected: int | None = 16,
        repetitions: int = 20,
        *,
        fill_empty: bool = True,
        final: int | None = None,
        final_projection: str = "count_sketch",
        projection: str = "dense",
        gray: bool | None = None,
        center: bool = False,
        random_state: int = 0,
    ) -> None:
        self.k_sim = k_sim
        self.projected = projected
        self.repetitions = repetitions
        self.fill_empty = fill_empty
        self.final = final
        self.final_projection = final_projection
        self.projection = projection
        self.gray = gray
        self.center = center
        self.random_state = random_state

    def fit(self, values: np.ndarray, offsets: np.ndarray | None = None) -> FixedDimensionalEncoding:
        """Draw the directions and projections for token vectors of the dimension of `values` (t, d)."""
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] == 0:
            raise ShapeError(f"token vectors have shape {values.shape}; give (tokens, dimension).")
        if not 0 <= self.k_sim <= 20 or self.repetitions < 1:
            raise InputError(f"k_sim is {self.k_sim} and repetitions {self.repetitions}; use 0 to 20 and at least 1.")
        for name, kind in (("projection", self.projection), ("final_projection", self.final_projection)):
            if kind not in ("dense", "count_sketch"):
                raise InputError(f"{name} is {kind!r}; choose 'dense' or 'count_sketch'.")
        for name, size in (("projected", self.projected), ("final", self.final)):
            if size is not None and size < 1:
                raise InputError(f"{name} is {size}; give at least 1, or None.")
        d = self.n_features_in_ = values.shape[1]
        draw = np.random.default_rng(self.random_state)
        self.directions_ = draw.standard_normal((self.repetitions, d, self.k_sim)).astype(np.float32)
        self.center_ = values.mean(axis=0, dtype=np.float64).astype(np.float32) if self.center and len(values) else None
        self.projections_ = None
        if self.projected is not None and self.projection == "dense":
            signs = draw.integers(0, 2, (self.repetitions, d, self.projected)) * 2 - 1
            self.projections_ = (signs / np.sqrt(self.projected)).astype(np.float32)
        elif self.projected is not None:
            slots = draw.integers(0, self.projected, (self.repetitions, d))
            signs = draw.integers(0, 2, (self.repetitions, d)) * 2 - 1
            self.projections_ = np.zeros((self.repetitions, d, self.projected), np.float32)
            np.put_along_axis(self.projections_, slots[:, :, None], signs[:, :, None].astype(np.float32), axis=2)
        self.slots_ = self.slot_signs_ = self.final_signs_ = None
        if self.final is not None and self.final_projection == "dense":
            if self._wide * self.final > 8 << 30:
                raise InputError(
                    f"a dense projection of {self._wide} to {self.final} coordinates exceeds 1 GiB; use 'count_sketch'."
                )
            blocks = [
                np.packbits(draw.integers(0, 2, (min(_ROWS, self._wide - at), self.final), dtype=np.int8), axis=1)
                for at in range(0, self._wide, _ROWS)
            ]
            self.final_signs_ = np.concatenate(blocks)
        elif self.final is not None:
            self.slots_ = draw.integers(0, self.final, self._wide).astype(np.int32)
            self.slot_signs_ = (draw.integers(0, 2, self._wide) * 2 - 1).astype(np.float32)
        return self

    @property
    def _wide(self) -> int:
        width = self.n_features_in_ if self.projected is None else self.projected
        return self.repetitions * 2**self.k_sim * width

    @property
    def dimension(self) -> int:
        """Coordinates of an encoding."""
        return self._wide if self.final is None else self.final

    @property
    def bytes_per_vector(self) -> int:
        return 4 * self.dimension

    def encode_queries(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Query tokens (t, d) with offsets (n + 1) to encodings (n, dimension) float32."""
        return self._encode(values, offsets, documents=False)

    def encode_documents(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Document tokens (t, d) with offsets (n + 1) to encodings (n, dimension) float32."""
        return self._encode(values, offsets, documents=True)

    def _encode(self, values: np.ndarray, offsets: np.ndarray, *, documents: bool) -> np.ndarray:
        check_is_fitted(self)
        try:
            from isometry.compression._buckets import count_sketch, fill_blocks
        except ImportError as error:
            raise MissingExtraError("FixedDimensionalEncoding", "search") from error
        values, offsets = check_tokens(values, offsets, self.n_features_in_)
        buckets = 2**self.k_sim
        order = np.arange(buckets)
        if self.gray if self.gray is not None else self.projection == "count_sketch":
            order = gray_rank(order)
        turn = _side_by_side(self.directions_)
        project = None if self.projections_ is None else _side_by_side(self.projections_)
        shift = None if self.center_ is None else self.center_ @ turn
        bits = np.array([i.bit_count() for i in range(buckets)], np.int64)
        n = len(offsets) - 1
        out = np.zeros((n, self.dimension), np.float32)
        first = 0
        while first < n:
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _TOKENS, side="right")) - 1)
            tokens = values[offsets[first] : offsets[last]]
            local = offsets[first : last + 1] - offsets[first]
            sides = tokens @ turn if shift is None else tokens @ turn - shift
            width = self.n_features_in_ if project is None else project.shape[1] // self.repetitions
            shared = project is None
            small = tokens if project is None else tokens @ project
            wide = out[first:last] if self.final is None else np.zeros((last - first, self._wide), np.float32)
            fill_blocks(
                sides, small, local, self.repetitions, self.k_sim, width, shared, order, bits, documents,
                documents and self.fill_empty, wide,
            )  # fmt: skip
            if self.final_signs_ is not None:
                out[first:last] = self._projected(wide)
            elif self.final is not None:
                count_sketch(wide, self.slots_, self.slot_signs_, out[first:last])
            first = last
        return out

    def _projected(self, wide: np.ndarray) -> np.ndarray:
        """Encodings (n, w) through the dense final projection, (n, final)."""
        assert self.final_signs_ is not None
        out = np.zeros((len(wide), self.dimension), np.float32)
        for at in range(0, wide.shape[1], _ROWS):
            ones = np.unpackbits(self.final_signs_[at : at + _ROWS], axis=1, count=self.dimension).astype(np.float32)
            out += wide[:, at : at + _ROWS] @ (2 * ones - 1)
        return out / np.float32(np.sqrt(out.shape[1]))

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        self.projections_ = self.slots_ = self.slot_signs_ = self.final_signs_ = self.center_ = None
        super()._restore(state)
        if self.final_signs_ is not None and self.final_signs_.dtype == np.int8:  # as earlier versions kept them
            self.final_signs_ = np.packbits(self.final_signs_ > 0, axis=1)


def _side_by_side(matrices: np.ndarray) -> np.ndarray:
    """Matrices (r, d, w) as one (d, r w)."""
    return np.ascontiguousarray(matrices.transpose(1, 0, 2).reshape(matrices.shape[1], -1))


def check_tokens(values: np.ndarray, offsets: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Token vectors (t, d) float32 and offsets (n + 1) int64 that fit together. Raises: ShapeError."""
    values, offsets = np.asarray(values), np.asarray(offsets)
    if values.ndim != 2 or values.shape[1] != dimension:
        raise ShapeError(f"token vectors have shape {values.shape}; expected (tokens, {dimension}).")
    values = np.ascontiguousarray(values, dtype=np.float32)
    offsets = np.ascontiguousarray(offsets, dtype=np.int64)
    whole = offsets.ndim == 1 and len(offsets) >= 1 and offsets[0] == 0 and offsets[-1] == len(values)
    if not whole or (np.diff(offsets) < 0).any():
        raise ShapeError(f"offsets must rise from 0 to the number of token vectors, {len(values)}.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ShapeError(f"token vector {row} holds NaN or infinity; encode it again.")
    return values, offsets

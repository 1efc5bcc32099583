"""Search in the nearest cells of a k-means partition, through faiss."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.compression import CodeEstimator, ProductQuantizer, ScalarQuantizer
from isometry.search.indexes._faiss import FaissIndex, check_enough, load_faiss, parts_of, scalar_type


class IVFIndex(FaissIndex):
    """Inverted lists of float vectors, or of their codes, by inner product.

    Args:
        cells: k-means cells; None for the square root of the number of vectors.
        probes: cells read for each query.
        over_fetch: candidates scored exactly, as a multiple of k.
        code: what the lists hold (`FaissIndex`).
    """

    def __init__(
        self,
        *,
        cells: int | None = None,
        probes: int = 16,
        over_fetch: int = 4,
        code: CodeEstimator | None = None,
    ) -> None:
        super().__init__(over_fetch=over_fetch, code=code)
        self.cells = cells
        self.probes = probes

    def _made(self, vectors: np.ndarray) -> Any:
        faiss = load_faiss()
        cells = max(1, min(len(vectors), self.cells or round(len(vectors) ** 0.5)))
        d, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        coarse = faiss.IndexFlatIP(d)
        if isinstance(self.code, ScalarQuantizer):
            index = faiss.IndexIVFScalarQuantizer(coarse, d, cells, scalar_type(self.code), metric)
        elif isinstance(self.code, ProductQuantizer):
            index = faiss.IndexIVFPQ(coarse, d, cells, parts_of(self.code, d), self.code.bits, metric)
        else:
            index = faiss.IndexIVFFlat(coarse, d, cells, metric)
        check_enough(self.code, len(vectors))
        index.cp.min_points_per_centroid = 1
        if isinstance(self.code, ProductQuantizer):
            index.pq.cp.min_points_per_centroid = 1
        if len(vectors):
            index.train(vectors)
            index.add(vectors)
        return index

    def _parameters(self, selector: Any, wanted: int) -> Any:
        return load_faiss().SearchParametersIVF(nprobe=self.probes, sel=selector)

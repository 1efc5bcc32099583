"""Search in the nearest cells of a k-means partition, through faiss."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.search.indexes._faiss import FaissIndex, load_faiss


class IVFIndex(FaissIndex):
    """Inverted lists of float vectors by inner product.

    Args:
        cells: k-means cells; None for the square root of the number of vectors.
        probes: cells read for each query. over_fetch: candidates scored exactly, as a multiple of k.
    """

    def __init__(self, *, cells: int | None = None, probes: int = 16, over_fetch: int = 4) -> None:
        super().__init__(over_fetch=over_fetch)
        self.cells = cells
        self.probes = probes

    def _made(self, vectors: np.ndarray) -> Any:
        faiss = load_faiss()
        cells = max(1, min(len(vectors), self.cells or round(len(vectors) ** 0.5)))
        coarse = faiss.IndexFlatIP(vectors.shape[1])
        index = faiss.IndexIVFFlat(coarse, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        if len(vectors):
            index.train(vectors)
            index.add(vectors)
        return index

    def _parameters(self, selector: Any, wanted: int) -> Any:
        return load_faiss().SearchParametersIVF(nprobe=self.probes, sel=selector)

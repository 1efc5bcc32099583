"""Graph search through faiss."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.compression import CodeEstimator, ProductQuantizer, ScalarQuantizer
from isometry.search.indexes._faiss import FaissIndex, check_enough, load_faiss, parts_of, scalar_type


class HNSWIndex(FaissIndex):
    """Hierarchical navigable small worlds (Malkov and Yashunin, 2016) by inner product.

    With a filter that lets few rows through, graph search loses recall; count the matches and use `FlatIndex` for
    those.

    Args:
        links: neighbours of a node (M).
        build_breadth: efConstruction.
        breadth: efSearch; at least over_fetch * k is used.
        over_fetch: candidates scored exactly, as a multiple of k.
        code: what the nodes hold (`FaissIndex`).
    """

    def __init__(
        self,
        *,
        links: int = 16,
        build_breadth: int = 100,
        breadth: int = 64,
        over_fetch: int = 4,
        code: CodeEstimator | None = None,
    ) -> None:
        super().__init__(over_fetch=over_fetch, code=code)
        self.links = links
        self.build_breadth = build_breadth
        self.breadth = breadth

    def _made(self, vectors: np.ndarray) -> Any:
        faiss = load_faiss()
        d, links, metric = vectors.shape[1], self.links, faiss.METRIC_INNER_PRODUCT
        check_enough(self.code, len(vectors))
        graph = faiss.IndexHNSWFlat(d, links, metric)
        graph.hnsw.efConstruction = self.build_breadth
        if len(vectors):
            graph.add(vectors)
        if self.code is None or not len(vectors):
            return graph
        # The graph is drawn on the floats: faiss compares two product codes by their distance even where it ranks by
        # inner product, and would link the farthest.
        if isinstance(self.code, ScalarQuantizer):
            index = faiss.IndexHNSWSQ(d, scalar_type(self.code), links, metric)
        else:
            assert isinstance(self.code, ProductQuantizer)
            index = faiss.IndexHNSWPQ(d, parts_of(self.code, d), links, self.code.bits, metric)
            faiss.downcast_index(index.storage).pq.cp.min_points_per_centroid = 1
        index.train(vectors)
        index.storage.add(vectors)
        index.hnsw, index.ntotal = graph.hnsw, graph.ntotal
        return index

    def _parameters(self, selector: Any, wanted: int) -> Any:
        return load_faiss().SearchParametersHNSW(efSearch=max(self.breadth, wanted), sel=selector)

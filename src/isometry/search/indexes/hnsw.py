"""Graph search through faiss."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.search.indexes._faiss import FaissIndex, load_faiss


class HNSWIndex(FaissIndex):
    """Hierarchical navigable small worlds (Malkov and Yashunin, 2016) by inner product.

    With a filter that lets few rows through, graph search loses recall; count the matches and use `FlatIndex` for
    those.

    Args:
        links: neighbours of a node (M). build_breadth: efConstruction. breadth: efSearch, at least over_fetch * k is
        used. over_fetch: candidates scored exactly, as a multiple of k.
    """

    def __init__(self, *, links: int = 16, build_breadth: int = 100, breadth: int = 64, over_fetch: int = 4) -> None:
        super().__init__(over_fetch=over_fetch)
        self.links = links
        self.build_breadth = build_breadth
        self.breadth = breadth

    def _made(self, vectors: np.ndarray) -> Any:
        faiss = load_faiss()
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_breadth
        index.add(vectors)
        return index

    def _parameters(self, selector: Any, wanted: int) -> Any:
        return load_faiss().SearchParametersHNSW(efSearch=max(self.breadth, wanted), sel=selector)

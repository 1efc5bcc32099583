"""Node embeddings and graph readers: rows are nodes."""

from __future__ import annotations

from isometry.graphs.fastrp import FastRP
from isometry.graphs.graph import Graph, graph_from_edges
from isometry.graphs.merging import PowerMerger
from isometry.graphs.node_keys import node_keys
from isometry.graphs.projection import RandomProjection
from isometry.graphs.readers import read_graph
from isometry.graphs.similarity import SimilarityOperator

__all__ = [
    "FastRP",
    "Graph",
    "PowerMerger",
    "RandomProjection",
    "SimilarityOperator",
    "graph_from_edges",
    "node_keys",
    "read_graph",
]

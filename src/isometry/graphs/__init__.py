"""Node embeddings and graph readers: rows are nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isometry.graphs.embedding_file import read_embeddings, write_embeddings
from isometry.graphs.fastrp import FastRP
from isometry.graphs.graph import Graph, graph_from_edges
from isometry.graphs.merging import PowerMerger
from isometry.graphs.node_keys import node_keys
from isometry.graphs.projection import RandomProjection
from isometry.graphs.readers import read_graph
from isometry.graphs.similarity import SimilarityOperator

if TYPE_CHECKING:
    from isometry.graphs.node2vec import Node2Vec
    from isometry.graphs.random_walks import sample_walks
    from isometry.graphs.skipgram import train_skipgram

__all__ = [
    "FastRP",
    "Graph",
    "Node2Vec",
    "PowerMerger",
    "RandomProjection",
    "SimilarityOperator",
    "graph_from_edges",
    "node_keys",
    "read_embeddings",
    "read_graph",
    "sample_walks",
    "train_skipgram",
    "write_embeddings",
]

# these need numba, which an install without the 'graph' extra lacks
_COMPILED = {"Node2Vec": "node2vec", "sample_walks": "random_walks", "train_skipgram": "skipgram"}


def __getattr__(name: str) -> Any:
    if name in _COMPILED:
        import importlib

        return getattr(importlib.import_module(f"isometry.graphs.{_COMPILED[name]}"), name)
    raise AttributeError(f"module 'isometry.graphs' has no attribute '{name}'")

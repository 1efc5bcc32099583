"""Indexes over arrays: exact and approximate, each rebuildable from the vectors it was given."""

from isometry.search.indexes.adaptive import AdaptiveIndex
from isometry.search.indexes.code import CodeIndex
from isometry.search.indexes.encodings import EncodingScan
from isometry.search.indexes.flat import FlatIndex
from isometry.search.indexes.hnsw import HNSWIndex
from isometry.search.indexes.ivf import IVFIndex
from isometry.search.indexes.multivector import MultiVectorIndex
from isometry.search.indexes.symmetric import SymmetricIndex

__all__ = [
    "AdaptiveIndex",
    "CodeIndex",
    "EncodingScan",
    "FlatIndex",
    "HNSWIndex",
    "IVFIndex",
    "MultiVectorIndex",
    "SymmetricIndex",
]

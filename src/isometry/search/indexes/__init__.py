"""Indexes over arrays: exact and approximate, each rebuildable from the vectors it was given."""

from isometry.search.indexes.code import CodeIndex
from isometry.search.indexes.flat import FlatIndex

__all__ = ["CodeIndex", "FlatIndex"]

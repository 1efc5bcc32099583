"""Indexes over arrays: exact and approximate, each rebuildable from the vectors it was given."""

from isometry.search.indexes.flat import FlatIndex

__all__ = ["FlatIndex"]

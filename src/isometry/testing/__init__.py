"""Conformance suites for parts of others and of our own: each raises AssertionError with what does not hold."""

from isometry.testing.compressor import check_compressor
from isometry.testing.encoder import check_encoder
from isometry.testing.index import check_index

__all__ = ["check_compressor", "check_encoder", "check_index"]

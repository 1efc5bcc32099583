"""Turns files, folders and frames into streams of Arrow record batches, and says what is wrong with them."""

from isometry.records.source import Source, SourceCheck, open_source

__all__ = ["Source", "SourceCheck", "open_source"]

"""Turns files, folders and frames into streams of Arrow record batches, and says what is wrong with them."""

from isometry.records.catalogue import dataset_path, known_datasets
from isometry.records.source import Source, SourceCheck, open_source

__all__ = ["Source", "SourceCheck", "dataset_path", "known_datasets", "open_source"]

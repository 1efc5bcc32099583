"""Where a recipe's data set lies."""

from __future__ import annotations

from pathlib import Path

from isometry.errors import NotFoundError
from isometry.records.catalogue import dataset_path


def find_data(name: str, folder: Path | None = None) -> Path:
    """Path of data set `name` (as 'graphs/blogcatalog.npz') in the folder given, else where the catalogue finds it."""
    if folder is None:
        return dataset_path(name)
    if not (folder / name).exists():
        raise NotFoundError(f"data set '{name}' is not in {folder}: name the folder of the data sets with --data")
    return folder / name

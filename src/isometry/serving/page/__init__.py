"""The search page."""

from typing import Any


def add_pages(app: Any, collections: Any) -> None:
    """Nothing yet."""


__all__ = ["add_pages"]

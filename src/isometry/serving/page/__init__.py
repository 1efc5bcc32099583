"""The search page: server-rendered shells with small scripts that ask the HTTP API."""

from isometry.serving.page.pages import add_pages

__all__ = ["add_pages"]

"""Collections over HTTP, with a search page."""

from isometry.serving.server import make_app, serve

__all__ = ["make_app", "serve"]

"""Collections over HTTP: the API and the search page."""

from isometry.errors import MissingExtraError

try:
    from isometry.serving.app import make_app
    from isometry.serving.limits import Limits
    from isometry.serving.server import serve
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] in {
        "fastapi",
        "uvicorn",
        "prometheus_client",
        "jinja2",
        "starlette",
        "pydantic",
    }:
        raise MissingExtraError("serving over HTTP", "server") from error
    raise

__all__ = ["Limits", "make_app", "serve"]

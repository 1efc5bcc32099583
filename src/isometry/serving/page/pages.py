"""HTML pages: the collections, searching one of them, and one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from isometry.errors import MissingExtraError
from isometry.serving.page.layout import Layout, plan_layout
from isometry.serving.page.thumbnails import thumbnail

try:
    import fastapi
    import jinja2
    from fastapi.responses import HTMLResponse, Response
    from fastapi.staticfiles import StaticFiles
except ImportError as error:
    raise MissingExtraError("the search page", "server") from error

if TYPE_CHECKING:
    from isometry.search import Collection

HERE = Path(__file__).parent
NEIGHBOURS = 5


def add_pages(app: fastapi.FastAPI, collections: dict[str, Collection]) -> None:
    """Add the pages `/`, `/c/{name}` and `/c/{name}/record/{id}` and their files under `/static`.

    The page loads nothing from elsewhere and holds no inline script or style, so it runs under `default-src 'self'`.
    """
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
    templates.filters["segment"] = lambda text: quote(str(text), safe="")
    templates.globals["record_address"] = record_address
    layouts: dict[str, tuple[int, Layout]] = {}

    def layout_of(name: str) -> Layout:
        version = collections[name].version
        if name not in layouts or layouts[name][0] != version:
            layouts[name] = (version, plan_layout(name, collections[name]))
        return layouts[name][1]

    def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
        html = templates.get_template(template).render(several=len(collections) > 1, **values)
        return HTMLResponse(html, status, headers={"Cache-Control": "no-cache"})

    def absent(message: str) -> HTMLResponse:
        return page("absent.html", 404, message=message)

    def search_page(name: str) -> HTMLResponse:
        layout = layout_of(name)
        return page("search.html", layout=layout, settings=json.dumps(layout.to_dict()), records=len(collections[name]))

    def home() -> HTMLResponse:
        if len(collections) == 1:
            return search_page(next(iter(collections)))
        return page("collections.html", collections={name: len(one) for name, one in collections.items()})

    def one_collection(name: str) -> HTMLResponse:
        if name not in collections:
            return absent(f"There is no collection “{name}” here.")
        return search_page(name)

    def one_record(name: str, identity: str) -> HTMLResponse:
        if name not in collections:
            return absent(f"There is no collection “{name}” here.")
        record = collections[name].get([identity])[0]
        if record is None:
            return absent(f"There is no record “{identity}” in {name}.")
        layout = layout_of(name)
        shown = {layout.title, layout.byline, layout.date, layout.image, *layout.body, *layout.chips, "id"}
        rest = {key: _plain(value) for key, value in record.items() if key not in shown and value not in (None, "", [])}
        near = collections[name].search(like=identity, k=NEIGHBOURS).hits
        return page(
            "record.html",
            layout=layout,
            id=identity,
            record=record,
            heading=heading(layout, identity, record),
            chips=[item for column in layout.chips for item in _items(record.get(column))],
            rest=rest,
            near=[(hit.id, heading(layout, hit.id, hit.record), hit.score) for hit in near],
        )

    def record_by_query(name: str, id: str) -> HTMLResponse:
        return one_record(name, id)

    def picture(name: str, identity: str) -> Response:
        small = thumbnail(collections[name], identity) if name in collections else None
        if small is None:
            return Response(status_code=404)
        return Response(small, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_api_route("/", home, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/c/{name}", one_collection, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/c/{name}/picture/{identity:path}", picture, include_in_schema=False, response_class=Response)
    app.add_api_route("/c/{name}/record", record_by_query, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/c/{name}/record/{identity:path}", one_record, include_in_schema=False,
                      response_class=HTMLResponse)  # fmt: skip


def record_address(name: str, identity: str) -> str:
    """Of a record's page. The ids '.' and '..' are no parts of a path, which browsers would resolve."""
    start = f"/c/{quote(name, safe='')}/record"
    return f"{start}?id={identity}" if identity in {".", ".."} else f"{start}/{quote(identity, safe='')}"


def heading(layout: Layout, identity: str, record: dict[str, Any]) -> str:
    """The title of a record, or its id where it has none."""
    value = record.get(layout.title) if layout.title else None
    return str(value) if value not in (None, "") else identity


def _items(value: Any) -> list[str]:
    if value in (None, ""):
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)

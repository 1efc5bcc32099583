"""The map tab in headless Chromium: what is drawn, found, coloured, moved and kept in the address."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.search import Collection
from isometry.serving import make_app, map_jobs
from tests.serving.conftest import SCHEMA, HashEncoder, listening, papers, watched

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")
expect = playwright.expect
pytestmark = pytest.mark.browser
NAME = "papers & more"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(map_jobs, "best_method", lambda count: "pca")
    path = tmp_path_factory.mktemp("map") / NAME
    with Collection.create(path, encoder=HashEncoder(), schema=SCHEMA, text_columns=["title", "abstract"]) as made:
        made.upsert([{**one, "n": one["n"] % 4} for one in papers(60)])
        with listening(make_app([made])) as at:
            yield at
    patch.undo()


@pytest.fixture
def shown(page, address):
    page.goto(f"{address}/?view=map")
    expect(page.locator("#map-rows tr")).to_have_count(50)
    return page


def colours(page) -> dict[str, int]:
    """How many pixels of the canvas have each colour."""
    return page.evaluate(
        """() => { const map = document.getElementById("map"); const found = {};
        const data = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
        for (let at = 0; at < data.length; at += 4) { const key = data.slice(at, at + 3).join(","); found[key] = (found[key] ?? 0) + 1; }
        return found; }"""
    )


def drawn(page, holds) -> None:
    """Wait until `holds` is true of the colours: the canvas follows the address by a frame."""
    for _ in range(100):
        if holds(colours(page)):
            return
        page.wait_for_timeout(50)
    assert holds(colours(page))


def still(page) -> dict[str, int]:
    """The colours once two looks, a while apart, agree."""
    last, now = None, colours(page)
    while now != last:
        page.wait_for_timeout(300)
        last, now = now, colours(page)
    return now


def settled(page, wanted: str) -> None:
    page.wait_for_function("wanted => location.search.includes(wanted)", arg=wanted)


def on_screen(page, address) -> tuple[np.ndarray, list[str]]:
    """Where each point should be drawn in the page, and its id."""
    base = f"{address}/collections/{NAME}/map"
    key = page.request.get(base).json()["key"]
    points = np.frombuffer(page.request.get(f"{base}/points?key={key}").body(), "<u2").reshape(-1, 2) / 65535
    ids = [
        one["id"]
        for one in page.request.get(f"{base}/records?key={key}&" + "&".join(f"place={n}" for n in range(60))).json()[
            "records"
        ]
    ]
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    extent = np.maximum(0.2, 2 * np.abs(points - 0.5).max(axis=0))
    scale = 0.94 * min(box["width"] / extent[0], box["height"] / extent[1])
    return (points - 0.5) * scale + (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), ids


def alone(places: np.ndarray) -> int:
    """The point that is farthest from its nearest one."""
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + np.where(np.eye(len(places)), np.inf, 0)
    return int(far.min(axis=1).argmax())


def test_the_tab_draws_every_point_and_the_table_says_what_is_seen(page, address):
    page.goto(address)
    page.get_by_role("link", name="Map", exact=True).click()
    expect(page.locator("#map-note")).to_have_text("60 records, placed by PCA")
    expect(page.locator("#map-table-title")).to_have_text("50 of the 60 in view, the nearest to its middle")
    expect(page.locator("#list-view")).to_be_hidden()
    assert page.url.endswith("?view=map")
    drawn(page, lambda found: found["255,255,255"] < sum(found.values()) and len(found) > 10)
    page.go_back()
    expect(page.locator("#results h2")).to_have_count(10)
    expect(page.locator("#map-view")).to_be_hidden()
    page.go_forward()
    expect(page.locator("#map-rows tr")).to_have_count(50)


def test_hits_are_marked_and_listed_and_filters_put_the_rest_back(shown):
    shown.locator("#query").fill("river")
    shown.get_by_text("Words", exact=True).click()
    settled(shown, "mode=text")
    expect(shown.locator("#map-table-title")).to_have_text("The 20 best on the map")
    assert shown.locator("#map-rows tr").first.locator("td").first.inner_text() == "1"
    assert all("river" in row for row in shown.locator("#map-rows a").all_inner_texts())
    shown.locator("#facet-groups fieldset", has_text="n").first.locator("label").nth(1).click()
    settled(shown, "f.n=")
    expect(shown.locator("#map-table-title")).not_to_have_text("The 20 best on the map")
    assert 0 < shown.locator("#map-rows tr").count() < 20
    link = shown.locator("#map-rows a").first
    title = link.inner_text()
    link.click()
    expect(shown.locator("h1")).to_have_text(title)
    shown.get_by_role("link", name="On the map").click()
    expect(shown.locator("#map-table-title")).to_have_text("The 50 best on the map")


def test_colours_legend_and_one_category_are_in_the_address(shown, address):
    expect(shown.locator("#colour-by")).to_have_value("n")
    expect(shown.locator("#legend")).to_contain_text("0")
    shown.select_option("#colour-by", "created")
    settled(shown, "colour=created")
    expect(shown.locator("#legend")).to_contain_text("2000-01-02")
    expect(shown.locator("#legend")).to_contain_text("2019-01-02")
    many = len(colours(shown))
    shown.select_option("#colour-by", "none")
    settled(shown, "colour=none")
    expect(shown.locator("#legend")).to_be_empty()
    drawn(shown, lambda found: len(found) < many)
    shown.reload()
    expect(shown.locator("#colour-by")).to_have_value("none")


def test_zoom_by_buttons_keys_wheel_and_drag_and_the_address_brings_the_view_back(shown):
    shown.get_by_role("button", name="Nearer").click()
    settled(shown, "at=0.5000%2C0.5000%2C1.60")
    shown.locator("#map").focus()
    shown.keyboard.press("ArrowRight")
    shown.wait_for_function(
        "() => { const at = new URLSearchParams(location.search).get('at').split(','); return at[0] > 0.5 && at[2] === '1.60'; }"
    )
    shown.keyboard.press("-")
    shown.wait_for_function("() => new URLSearchParams(location.search).get('at')?.endsWith(',1.00')")
    shown.keyboard.press("0")
    shown.wait_for_function("() => !new URLSearchParams(location.search).has('at')")
    box = shown.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.mouse.move(x, y)
    shown.mouse.wheel(0, -300)
    shown.wait_for_function("() => new URLSearchParams(location.search).get('at')?.endsWith(',2.72')")
    shown.mouse.down()
    shown.mouse.move(x - 100, y, steps=4)
    shown.mouse.up()
    shown.wait_for_function("() => new URLSearchParams(location.search).get('at').split(',')[0] > 0.51")
    assert "/record/" not in shown.url
    shown.mouse.move(2, 2)
    before, view = still(shown), shown.url
    shown.goto(view)
    expect(shown.locator("#map-note")).to_contain_text("60 records")
    expect(shown.locator("#map-rows tr").first).to_be_visible()
    drawn(shown, lambda found: found == before)
    assert shown.url == view


def test_a_pointer_shows_the_title_and_opens_the_record(shown, address):
    places, ids = on_screen(shown, address)
    one = alone(places)
    shown.mouse.move(*(places[one] + 3))
    expect(shown.locator("#map-tip a")).to_have_attribute(
        "href", f"/c/papers%20%26%20more/record/{ids[one].replace('/', '%2F')}"
    )
    shown.mouse.click(*(places[one] + 3))
    shown.wait_for_url("**/record/**")
    expect(shown.locator(".id")).to_have_text(ids[one])


def test_keys_choose_the_point_in_the_middle_and_open_it(shown):
    shown.locator("#zoom-home").focus()
    shown.keyboard.press("Shift+Tab")
    shown.keyboard.press("Shift+Tab")
    shown.keyboard.press("Shift+Tab")
    expect(shown.locator("#map")).to_be_focused()
    expect(shown.locator("#map-tip a")).to_be_visible()
    title = shown.locator("#map-tip a").inner_text()
    shown.keyboard.press("Enter")
    shown.wait_for_url("**/record/**")
    expect(shown.locator("h1")).to_have_text(title)


def test_a_finger_first_sees_what_a_point_is(browser, address):
    context = browser.new_context(has_touch=True, viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    with watched(page):
        page.goto(f"{address}/?view=map")
        expect(page.locator("#map-rows tr")).to_have_count(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        drawn(page, lambda found: found.get("28,33,38", 0) > 1000)  # the dark ground
        places, ids = on_screen(page, address)
        one = alone(places)
        page.touchscreen.tap(*places[one])
        expect(page.locator("#map-tip a")).to_be_visible()
        assert "/record/" not in page.url
        page.locator("#map-tip a").tap()
        page.wait_for_url("**/record/**")
        expect(page.locator(".id")).to_have_text(ids[one])
    context.close()


def test_the_theme_is_followed(shown):
    drawn(shown, lambda found: found["255,255,255"] > 1000)
    shown.get_by_role("button", name="Switch between light and dark").click()
    drawn(shown, lambda found: found.get("28,33,38", 0) > 1000 and "255,255,255" not in found)


def test_progress_is_shown_while_a_better_map_is_made(page, address):
    answers = []

    def standing(route):
        answer = route.fetch()
        body = answer.json()
        if len(answers) < 2:
            body.update(state="working", making="umap", percent=40)
        answers.append(body)
        route.fulfill(response=answer, json=body)

    page.route("**/map", standing)
    page.goto(f"{address}/?view=map")
    expect(page.locator("#map-note")).to_have_text("60 records, placed by PCA · UMAP is on its way")
    expect(page.locator("#map-progress")).to_have_attribute("value", "40")
    expect(page.locator("#map-note")).to_have_text("60 records, placed by PCA")
    expect(page.locator("#map-progress")).to_be_hidden()
    assert len(answers) == 3


def test_what_goes_wrong_is_said(browser, address):
    page = browser.new_page()
    page.route(
        "**/map",
        lambda route: route.fulfill(
            status=503, json={"error": {"message": "the disk is full", "type": "StorageError"}}
        ),
    )
    page.goto(f"{address}/?view=map")
    expect(page.locator("#map-note.error")).to_have_text("the disk is full")
    page.close()

"""The search page in headless Chromium, on a collection that needs no encoder; see tests/conftest.py where there is no Chromium."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from isometry.search import Collection
from isometry.serving import make_app
from isometry.serving.page.layout import plan_layout
from tests.serving.conftest import listening

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> graphs"
PAPERS = [
    ("a/1", "Walks on graphs", "We walk on graphs. Cats sleep.", "cs.IR", ["cs.IR", "cs.LG"], "2018-03-01"),
    ("a/2", "Deep graphs", "Graphs are deep. Nothing else is said.", "cs.LG", ["cs.LG"], "2019-05-02"),
    ("a/3", HOSTILE, HOSTILE, "cs.LG", ["<b>x</b>"], "2019-06-03"),
    ("a/4", "Cooking rice", "Rice needs water and time.", "cs.IR", ["cs.IR"], "2020-01-04"),
]


def make_collection(path):
    records = [
        dict(zip(("id", "title", "abstract", "primary_category", "categories", "created"), paper, strict=True))
        for paper in PAPERS
    ]
    schema = pa.Table.from_pylist(records).schema.remove(0)
    collection = Collection.create(path, dimension=4, schema=schema, text_columns=["title", "abstract"])
    collection.add(records, np.eye(4, dtype=np.float32) + 0.1)
    return collection


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    with make_collection(tmp_path_factory.mktemp("page") / "papers") as made:
        yield made


@pytest.fixture(scope="module")
def address(collection):
    with listening(make_app([collection])) as at:
        yield at


def titles(page) -> list[str]:
    return page.locator("#results h2").all_inner_texts()


def expect_titles(page, wanted: set[str]) -> None:
    playwright.expect(page.locator("#results h2")).to_have_count(len(wanted))
    assert set(titles(page)) == wanted


def test_layout_of_a_collection(collection):
    layout = plan_layout("papers", collection)
    assert (layout.title, layout.body, layout.date, layout.modes) == ("title", ("abstract",), "created", ("text",))
    assert [facet.expression for facet in layout.facets] == ["primary_category", "categories", "year(created)"]
    assert layout.chips == ("categories",)


def test_typing_answers_a_facet_narrows_and_the_address_restores(page, address):
    page.goto(address)
    playwright.expect(page.locator("#results h2")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("graphs")
    page.wait_for_url("**q=graphs*")
    expect_titles(page, {"Walks on graphs", "Deep graphs", HOSTILE})
    assert page.locator("#results li", has_text="Walks on").locator("mark").inner_text() == "We walk on graphs."
    page.locator("#facet-groups label", has_text="cs.IR").first.click()
    expect_titles(page, {"Walks on graphs"})
    command = page.locator("#command").text_content()
    assert command == """isometry search papers --mode text --where "primary_category = 'cs.IR'" graphs"""
    there = page.url
    page.go_back()
    expect_titles(page, {"Walks on graphs", "Deep graphs", HOSTILE})
    page.goto(there)
    expect_titles(page, {"Walks on graphs"})
    assert page.locator("#query").input_value() == "graphs"
    playwright.expect(page.locator("#facet-groups input:checked")).to_have_count(1)
    page.locator("#query").press("Escape")
    expect_titles(page, {"Walks on graphs", "Cooking rice"})


def test_hostile_records_stay_text(page, address):
    page.goto(f"{address}/?q=graphs")
    card = page.locator("#results li", has_text="onerror")
    playwright.expect(card).to_have_count(1)
    assert card.locator("img, script, b").count() == 0
    card.locator("h2 a").click()
    playwright.expect(page.locator("h1")).to_have_text(HOSTILE)
    assert page.locator("article img, article script, article b").count() == 0
    assert "owned" not in page.evaluate("document.title.split(' ')")


def test_keyboard_opens_a_record_and_more_like_it(page, address):
    page.goto(f"{address}/?q=rice")
    playwright.expect(page.locator("#results h2")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/c/papers/record/a%2F4")
    page.get_by_role("link", name="More like this").click()
    playwright.expect(page.locator("#results h2")).to_have_count(3)
    assert "Cooking rice" not in titles(page)


def test_nothing_found_and_narrow_screens(page, address):
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(f"{address}/?q=zzzz")
    playwright.expect(page.locator("#empty h2")).to_have_text("Nothing matches")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_order_years_and_a_written_filter(page, address):
    page.goto(address)
    years = page.locator("#facet-groups fieldset").last
    playwright.expect(years.locator("label")).to_have_count(3)
    playwright.expect(years.locator("label")).to_have_text(["2020 1", "2019 2", "2018 1"], use_inner_text=True)
    page.select_option("#sort", "new")
    playwright.expect(page.locator("#results h2").first).to_have_text("Cooking rice")
    page.locator("#expert summary").click()
    page.locator("#where").fill("title LIKE '%deep%' OR title LIKE '%rice%'")
    page.locator("#where").press("Enter")
    expect_titles(page, {"Deep graphs", "Cooking rice"})
    years.locator("label", has_text="2019").click()
    expect_titles(page, {"Deep graphs"})
    playwright.expect(years.locator("label")).to_have_text(["2020 1", "2019 1"], use_inner_text=True)
    page.go_back()
    expect_titles(page, {"Deep graphs", "Cooking rice"})
    playwright.expect(page.locator("#facet-groups input:checked")).to_have_count(0)


def test_a_refused_filter_is_said_and_the_theme_is_kept(browser, address):
    page = browser.new_page(color_scheme="light")
    page.goto(f"{address}/?where=nothing+%3D+3")
    playwright.expect(page.locator("#status.error")).to_contain_text("no attribute 'nothing'")
    assert page.locator("#results li").count() == 0
    page.get_by_role("button", name="Switch between light and dark").click()
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.close()


def test_absent_records_and_collections(browser, address):
    request = browser.new_context().request
    for path in ("c/none", "c/papers/record/none"):
        answer = request.get(f"{address}/{path}")
        assert answer.status == 404
        assert "Not here" in answer.text()
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")

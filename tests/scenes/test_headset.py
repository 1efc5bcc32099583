"""The page in an emulated headset: controllers grab, bend, stretch and throw; snap turn and scale; no errors."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isometry.scenes import Stage, example_scene
from isometry.scenes.server import SceneServer
from tests.scenes.serving import running
from tests.scenes.test_page import BODY, FLAGS, READY, drawn, until

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
EMULATOR = (
    (Path(__file__).parent / "vendor" / "iwer" / "iwer.min.js").read_text()
    + """;
window.emulated = new IWER.XRDevice(IWER.metaQuest3);
emulated.installRuntime({ forceInstall: true });
emulated.stereoEnabled = true;"""
)
LEFT, RIGHT, CUSHION = 0, 1, 2


@pytest.fixture(scope="module")
def server():
    with running(SceneServer(Stage(example_scene(splats=1500), substeps=4))) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def page(server):
    """Inside a session; the tests of this file follow each other in it."""
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 480, "height": 360})
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.add_init_script(EMULATOR)
        page.goto(server)
        until(page, READY)
        assert not page.locator("#vr").is_disabled()
        page.click("#vr")
        until(page, "isometry.renderer.xr.isPresenting && isometry.session.inputSources.length === 2")
        drawn(page, 3)
        yield page
        browser.close()


def place(page, hand: int, at) -> None:
    """Puts a controller so that its grip is at a place of the scene."""
    name = ("left", "right")[hand]
    for _ in range(2):  # the grip lies beside the pointing pose by a little: the second round takes that off
        off = page.evaluate(
            f"isometry.controllers.grips[{hand}].getWorldPosition(isometry.camera.position.clone()).toArray()"
        )
        here = page.evaluate(f"(() => {{ const p = emulated.controllers.{name}.position; return [p.x, p.y, p.z]; }})()")
        x, y, z = (h + a - o for h, a, o in zip(here, at, off, strict=True))
        page.evaluate(f"emulated.controllers.{name}.position.set({x}, {y}, {z})")
        drawn(page, 1)


def trigger(page, hand: int, value: int) -> None:
    page.evaluate(f"emulated.controllers.{('left', 'right')[hand]}.updateButtonValue('trigger', {value})")


def body(page, number: int = CUSHION) -> np.ndarray:
    return np.array(page.evaluate(BODY, number))


def left_eye(page) -> np.ndarray:
    """The left half, below which no panel lies in a session."""
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.float64)[:, :240]
    return (picture[..., 2] > 1.35 * picture[..., 0]) & (picture[..., 2] > 90)


def test_trigger_grabs_what_the_controller_touches_and_moving_bends_it(page):
    rest, before = body(page), left_eye(page)
    assert before.sum() > 30
    top = rest[rest[:, 1].argmax()]
    place(page, RIGHT, top)
    trigger(page, RIGHT, 1)
    until(page, "isometry.hands.held[1] && isometry.hands.held[1].vertices.length > 0")
    assert page.evaluate("isometry.hands.held[1].object") == CUSHION == page.evaluate("isometry.chosen")
    for step in range(1, 6):
        place(page, RIGHT, top + np.array([0, 0.05 * step, 0]))
    until(page, f"({BODY})(2).some((p) => p[1] > {rest[:, 1].max() + 0.15})")
    moved = np.linalg.norm(body(page) - rest, axis=1)
    assert moved.max() > 0.15 and np.ptp(moved) > 0.02, "it bends, not only moves"
    drawn(page, 4)
    after = left_eye(page)
    assert np.nonzero(after)[0].min() < np.nonzero(before)[0].min() - 4, "and the pixels went up"


@pytest.mark.slow  # where pictures are drawn slowly it races the physics
def test_a_second_hand_stretches_it(page):
    held = body(page)
    before = np.ptp(held, axis=0)[0]
    lowest_left = held[np.argmin(held[:, 0] + 0.3 * held[:, 1])]
    place(page, LEFT, lowest_left)
    trigger(page, LEFT, 1)
    until(page, "isometry.hands.held[0] && isometry.hands.held[0].vertices.length > 0")
    right = np.array(page.evaluate("isometry.hands.held[1].position.toArray()"))
    for step in range(1, 5):
        place(page, LEFT, lowest_left - np.array([0.04 * step, 0, 0]))
        place(page, RIGHT, right + np.array([0.04 * step, 0, 0]))
    until(page, f"(([...x]) => Math.max(...x) - Math.min(...x))(({BODY})(2).map((p) => p[0])) > {before + 0.1}")
    trigger(page, LEFT, 0)
    until(page, "isometry.hands.held[0] === null")


@pytest.mark.slow  # where pictures are drawn slowly it races the physics
def test_release_throws(page):
    # one step a picture: what the hand does between two pictures is its speed, however slowly they are drawn
    for _ in range(12):
        page.evaluate(
            "(() => { const p = emulated.controllers.right.position; p.set(p.x - 0.06, p.y + 0.01, p.z); })()"
        )
        drawn(page, 1)
    trigger(page, RIGHT, 0)
    until(page, "isometry.hands.held[1] === null")
    released = body(page).mean(axis=0)[0]
    until(page, f"({BODY})(2).reduce((sum, p, _, all) => sum + p[0] / all.length, 0) < {released - 0.03}")


def test_stick_turns_once_and_scales(page):
    trigger(page, RIGHT, 0)
    until(page, "isometry.hands.held[1] === null")
    turned = "2 * Math.acos(Math.min(1, Math.abs(isometry.rig.quaternion.w)))"
    assert page.evaluate(turned) == pytest.approx(0, abs=1e-6)
    head = "isometry.camera.getWorldPosition(isometry.camera.position.clone()).toArray()"
    before = np.array(page.evaluate(head))
    page.evaluate("emulated.controllers.right.updateAxes('thumbstick', 1, 0)")
    until(page, f"{turned} > 0.1")
    drawn(page, 3)
    assert page.evaluate(turned) == pytest.approx(np.pi / 6, abs=1e-3), "one snap, however long the stick is held"
    np.testing.assert_allclose(page.evaluate(head), before, atol=0.02)
    page.evaluate("emulated.controllers.right.updateAxes('thumbstick', 0, 0)")
    drawn(page, 2)
    page.evaluate("emulated.controllers.right.updateAxes('thumbstick', 0, 1)")
    until(page, "isometry.rig.scale.x > 1.02")
    page.evaluate("emulated.controllers.right.updateAxes('thumbstick', 0, 0)")


def test_leaving_the_session_gives_the_flat_view_back(page):
    page.evaluate("isometry.session.end()")
    until(page, "!isometry.renderer.xr.isPresenting")
    drawn(page, 2)
    assert page.evaluate("isometry.rig.scale.x") == 1 and page.evaluate("isometry.rig.position.length()") == 0
    flat = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.float64)
    assert flat[:, 300:].std() > 5, "the scene is drawn beside the panel"
    assert page.complaints == []

"""The page in an emulated headset: controllers grab, bend, stretch and throw; snap turn and scale; no errors.

Nothing here goes by the clock: the physics ticks when a test says so, and tests wait for what must become true.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isometry.scenes import Stage, example_scene
from isometry.scenes.server import SceneServer
from tests.scenes.serving import Gate, running
from tests.scenes.test_page import BODY, FLAGS, READY, drawn, eventually, highest, until

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
EMULATOR = (
    (Path(__file__).parent / "vendor" / "iwer" / "iwer.min.js").read_text()
    + """;
window.emulated = new IWER.XRDevice(IWER.metaQuest3);
emulated.installRuntime({ forceInstall: true });
emulated.stereoEnabled = true;"""
)
LEFT, RIGHT, JELLY, CUSHION = 0, 1, 0, 2


@pytest.fixture(scope="module")
def gate():
    return Gate()


@pytest.fixture(scope="module")
def server(gate):
    return SceneServer(Stage(example_scene(splats=2000), substeps=4), may_tick=gate)


@pytest.fixture(scope="module")
def page(server, gate):
    """Inside a session; the tests of this file follow each other in it."""
    with running(server) as port, playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 480, "height": 360})
        page.set_default_timeout(180_000)
        page.complaints, page.grips = [], {}
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.add_init_script(EMULATOR)
        page.goto(f"http://127.0.0.1:{port}/")
        until(page, READY)
        assert not page.locator("#vr").is_disabled()
        page.click("#vr")
        until(page, "isometry.renderer.xr.isPresenting && isometry.session.inputSources.length === 2")
        drawn(page, 3)
        gate.close()
        yield page
        browser.close()


def place(page, hand: int, at) -> None:
    """Puts a controller so that its grip is at a place of the scene."""
    name = ("left", "right")[hand]
    if hand not in page.grips:  # the grip lies beside the pointing pose by a little, always the same
        grip = page.evaluate(
            f"isometry.controllers.grips[{hand}].getWorldPosition(isometry.camera.position.clone()).toArray()"
        )
        here = page.evaluate(f"(() => {{ const p = emulated.controllers.{name}.position; return [p.x, p.y, p.z]; }})()")
        page.grips[hand] = np.array(here) - grip
    x, y, z = (np.asarray(at) + page.grips[hand]).tolist()
    page.evaluate(f"emulated.controllers.{name}.position.set({x}, {y}, {z})")
    drawn(page, 1)


def trigger(page, hand: int, value: int) -> None:
    page.evaluate(f"emulated.controllers.{('left', 'right')[hand]}.updateButtonValue('trigger', {value})")


def came(page, server, hand: int, do: str, at=None) -> None:
    """Waits until this input of a hand lies before the server, which does not tick meanwhile."""

    def there() -> bool:
        said = [
            message for _, message in list(server._inputs) if message.get("do") == do and message.get("hand") == hand
        ]
        return bool(said) and (at is None or np.allclose(said[-1]["position"], at, atol=0.01))

    eventually(page, there, f"the server never got '{do}' of hand {hand}")


def tick(page, server, gate, count: int) -> None:
    """Lets the physics run so many ticks, until the page has the last of them."""
    goal = server.stage.world.tick + count
    gate.let_through(count)
    until(page, f"isometry.tick >= {goal}")


def grab(page, server, gate, hand: int, at) -> None:
    place(page, hand, at)
    trigger(page, hand, 1)
    came(page, server, hand, "grab")
    # the hand moves on before the answer: what it holds lies in it as when it closed
    place(page, hand, np.asarray(at) + np.array([0, 0.02, 0]))
    tick(page, server, gate, 1)
    until(page, f"isometry.hands.held[{hand}] && isometry.hands.held[{hand}].vertices.length > 0")
    held = server.stage.world.held()[hand]
    assert page.evaluate(f"isometry.hands.held[{hand}].vertices") == held.tolist()
    lie = page.evaluate(f"isometry.hands.held[{hand}].offsets.map((p) => p.toArray())")
    np.testing.assert_allclose(lie, server.stage.world.grip(hand), atol=1e-4)


def carry(page, server, gate, hand: int, at, ticks: int) -> None:
    """Moves a closed hand there; the physics takes so many ticks for it."""
    place(page, hand, at)
    came(page, server, hand, "move", at)
    tick(page, server, gate, ticks)


def let_go(page, server, gate, hand: int) -> None:
    trigger(page, hand, 0)
    until(page, f"isometry.hands.held[{hand}] === null")
    came(page, server, hand, "release")
    tick(page, server, gate, 1)


def body(page, number: int = CUSHION) -> np.ndarray:
    return np.array(page.evaluate(BODY, number))


def left_eye(page) -> np.ndarray:
    """Blue in the left half, below which no panel lies in a session."""
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.float64)[:, :240]
    return (picture[..., 2] > 1.35 * picture[..., 0]) & (picture[..., 2] > 90)


def test_trigger_grabs_what_the_controller_touches_and_moving_bends_it(page, server, gate):
    rest, before = body(page), left_eye(page)
    assert before.sum() > 30
    top = rest[rest[:, 1].argmax()]
    grab(page, server, gate, RIGHT, top)
    assert page.evaluate("isometry.hands.held[1].object") == CUSHION == page.evaluate("isometry.chosen")
    for step in range(1, 6):
        carry(page, server, gate, RIGHT, top + np.array([0, 0.05 * step, 0]), 4)
    now = body(page)
    moved = np.linalg.norm(now - rest, axis=1)
    assert now[:, 1].max() > rest[:, 1].max() + 0.15
    assert moved.max() > 0.15 and np.ptp(moved) > 0.02, "it bends, not only moves"
    # the physics stands still: what the hand holds follows it all the same, at the display's rate
    vertex = page.evaluate("isometry.hands.held[1].vertices[0]")
    place(page, RIGHT, top + np.array([0, 0.35, 0]))
    until(page, f"isometry.splats.cage[{4 * vertex + 1}] > isometry.after.cage[{4 * vertex + 1}] + 0.05")
    carry(page, server, gate, RIGHT, top + np.array([0, 0.25, 0]), 2)
    upper = highest(before)
    eventually(page, lambda: 0 <= highest(left_eye(page)) < upper - 4, "the pixels never went up")


def test_a_second_hand_stretches_it(page, server, gate):
    held = body(page)
    before = np.ptp(held, axis=0)[0]
    lowest_left = held[np.argmin(held[:, 0] + 0.3 * held[:, 1])]
    grab(page, server, gate, LEFT, lowest_left)
    right = np.array(page.evaluate("isometry.hands.held[1].position.toArray()"))
    for step in range(1, 5):
        place(page, LEFT, lowest_left - np.array([0.04 * step, 0, 0]))
        carry(page, server, gate, RIGHT, right + np.array([0.04 * step, 0, 0]), 4)
    gate.open()
    eventually(page, lambda: np.ptp(body(page), axis=0)[0] > before + 0.1, "it never grew longer")
    gate.close()
    let_go(page, server, gate, LEFT)


def test_release_throws(page, server, gate):
    start = np.array(page.evaluate("isometry.hands.held[1].position.toArray()"))
    for step in range(1, 7):  # 0.04 m in 2 ticks of a sixtieth: 1.2 m/s
        carry(page, server, gate, RIGHT, start + step * np.array([-0.04, 0.01, 0]), 2)
    let_go(page, server, gate, RIGHT)
    thrown = server.stage.world.v[server.stage.world.span(CUSHION)].mean(axis=0)
    assert thrown[0] < -0.1, "it leaves the way the hand went; how fast depends on how it was stretched before"
    released = body(page).mean(axis=0)
    tick(page, server, gate, 20)
    flown = body(page).mean(axis=0)
    assert flown[0] < released[0] - 0.03, "it flies on the way the hand went"
    gate.open()


def test_squeezing_pins_what_the_trigger_holds(page, server, gate):
    gate.close()
    world, jelly = server.stage.world, body(page, JELLY)
    grab(page, server, gate, RIGHT, jelly[jelly[:, 1].argmax()])
    page.evaluate("emulated.controllers.right.updateButtonValue('squeeze', 1)")
    came(page, server, RIGHT, "pin")
    tick(page, server, gate, 1)
    pinned = world.w[world.span(JELLY)] == 0
    assert pinned.any() and not pinned.all()
    page.evaluate("emulated.controllers.right.updateButtonValue('squeeze', 0)")
    let_go(page, server, gate, RIGHT)
    before = world.x[world.span(JELLY)][pinned].copy()
    tick(page, server, gate, 5)
    np.testing.assert_array_equal(world.x[world.span(JELLY)][pinned], before)
    page.evaluate(f"isometry.link.send({{ do: 'unpin', object: {JELLY} }})")
    eventually(page, lambda: any(m["do"] == "unpin" for _, m in list(server._inputs)), "it never came")
    tick(page, server, gate, 1)
    assert not (world.w[world.span(JELLY)] == 0).any()
    gate.open()


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

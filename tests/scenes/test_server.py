"""The session server: frames, inputs, limits, several viewers, tokens; and the wire's arithmetic."""

from __future__ import annotations

import asyncio
import json
import struct
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from isometry.scenes import Stage, example_scene, simulate
from isometry.scenes import server as server_module
from isometry.scenes.inputs import Script
from isometry.scenes.server import SceneServer
from isometry.scenes.wire import Wire
from tests.scenes.serving import running


@pytest.fixture(scope="module")
def scene():
    return example_scene(splats=1200)


def texts(socket, wanted):
    """The next text message of this type; frames are passed over."""
    for _ in range(2000):
        message = socket.recv(timeout=20)
        if isinstance(message, str):
            found = json.loads(message)
            if found["type"] == wanted:
                return found
    raise AssertionError(f"no {wanted}")


def frame(socket):
    while True:
        message = socket.recv(timeout=20)
        if isinstance(message, bytes):
            return message


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_frames_are_small_and_exact_to_the_step(scene):
    stage = Stage(scene, substeps=2)
    wire = Wire(stage)
    packed = wire.frame(7, 123)
    assert len(packed) == 8 + 6 * len(stage.world.x)
    tick, milliseconds, x = wire.unpack(packed)
    assert (tick, milliseconds) == (7, 123)
    assert np.abs(x - stage.world.x).max() <= 0.51 * wire.step < 1e-4
    # 2,200 vertices at 90 ticks a second
    assert (8 + 6 * 2200) * 8 * 90 <= 20e6
    about = wire.describe()
    assert len(wire.binding()) == about["bytes"]
    names = {row["name"]: row for row in about["arrays"]}
    moving = np.frombuffer(wire.binding(), "<i4", scene.gaussians.means.shape[0], names["moving"]["offset"])
    assert (moving >= 0).sum() == (scene.labels > 0).sum()


def test_a_grab_moves_the_object_for_every_viewer(scene):
    server = SceneServer(Stage(scene, substeps=4))
    with running(server) as port, connect(f"ws://127.0.0.1:{port}/session") as one, connect(
        f"ws://127.0.0.1:{port}/session"
    ) as two:  # fmt: skip
        hello = texts(one, "hello")
        assert hello["vertices"] == len(server.stage.world.x) and hello["may_act"]
        jelly = hello["objects"][0]
        start = server.wire.unpack(frame(two))[2]
        top = start[jelly["first"] : jelly["first"] + jelly["count"]]
        top = top[top[:, 1].argmax()]
        one.send(json.dumps({"do": "grab", "hand": 0, "position": top.tolist(), "radius": 0.06}))
        answer = texts(one, "grabbed")
        assert answer["object"] == 0 and answer["hand"] == 0 and answer["vertices"]
        lie = np.array(answer["offsets"]) + top
        np.testing.assert_allclose(lie, start[answer["vertices"]], atol=0.01)
        goal = top + np.array([0.05, 0.25, 0])
        one.send(json.dumps({"do": "move", "hand": 0, "position": goal.tolist()}))
        held = answer["vertices"][0]
        for _ in range(2000):
            if np.linalg.norm(server.wire.unpack(frame(two))[2][held] - start[held]) > 0.2:
                break
        else:
            raise AssertionError("the second viewer never saw it")
        ticks = [struct.unpack_from("<I", frame(one))[0] for _ in range(5)]
        assert ticks == sorted(ticks)
        # the two viewers have hands of their own
        two.send(json.dumps({"do": "release", "hand": 0}))
        for _ in range(10):
            frame(two)
        assert 0 in server.stage.world.held()
    assert len(server.log.inputs) >= 3
    server.log.ticks, server.log.digest = server.stage.world.tick, server.stage.world.digest()
    plan = Script(server.log.ticks, server.log.inputs, server.log.digest)
    assert simulate(Stage(scene, substeps=4), plan).digest == server.log.digest, "a live session replays"


def test_what_cannot_be_read_is_answered_and_harmless(scene, monkeypatch):
    monkeypatch.setattr(server_module, "_PER_SECOND", 40)
    server = SceneServer(Stage(scene, substeps=1))
    with running(server) as port, connect(f"ws://127.0.0.1:{port}/session") as socket:
        texts(socket, "hello")
        cases = [
            ("{", "cannot be read"), ("[]", "JSON object"), (b"\x00", "JSON text"), ('{"do": "fly"}', "needs 'do'"),
            ('{"do": "grab", "hand": 5, "position": [0,0,0]}', "must be 0 or 1"),
            ('{"do": "gravity", "value": [NaN, 0, 0]}', "finite"), ("[" * 3000, "cannot be read"),
        ]  # fmt: skip
        for text, expected in cases:
            socket.send(text)
            assert expected in texts(socket, "error")["message"]
        for _ in range(450):
            socket.send('{"do": "release", "hand": 0}')
        assert "the rest is dropped" in texts(socket, "error")["message"]
    with running(SceneServer(Stage(scene, substeps=1))) as port, connect(f"ws://127.0.0.1:{port}/session") as socket:
        texts(socket, "hello")
        socket.send("x" * 20_000)
        with pytest.raises(Exception, match=r"1009|too big"):
            for _ in range(500):
                socket.recv(timeout=20)


def test_only_four_act(scene):
    with running(SceneServer(Stage(scene, substeps=1))) as port:
        sockets = [connect(f"ws://127.0.0.1:{port}/session") for _ in range(5)]
        may = []
        for socket in sockets:
            may.append(texts(socket, "hello")["may_act"])
        assert may == [True] * 4 + [False]
        sockets[4].send('{"do": "reset"}')
        assert "only watch" in texts(sockets[4], "error")["message"]
        for socket in sockets:
            socket.close()


def test_pages_tokens_and_origins(scene):
    with running(SceneServer(Stage(scene, substeps=1), token="s3cret")) as port:
        for path in ("/", "/app.js", "/splats.js", "/sort.js", "/vendor/three/three.core.min.js"):
            status, body, headers = get(port, path)
            assert status == 200 and body and "default-src 'self'" in headers["Content-Security-Policy"]
        assert get(port, "/../../../etc/passwd")[0] == 404 and get(port, "/none")[0] == 404
        assert get(port, "/binding")[0] == 403 and get(port, "/binding?token=s3cret")[0] == 200
        assert get(port, "/search?q=red&token=wrong")[0] == 403
        found = json.loads(get(port, "/search?q=red%20jely&token=s3cret")[1])
        assert found[0]["name"] == "red jelly"
        assert json.loads(get(port, "/search?q=&token=s3cret")[1]) == []
        with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}/session"):
            pass
        with (
            pytest.raises(InvalidStatus),
            connect(f"ws://127.0.0.1:{port}/session?token=s3cret", origin="http://bad.org"),
        ):
            pass
        with connect(f"ws://127.0.0.1:{port}/session?token=s3cret", origin=f"http://127.0.0.1:{port}") as socket:
            assert texts(socket, "hello")["scene"] == "table with three soft objects"


def apply(server):
    with ThreadPoolExecutor(1) as pool:
        asyncio.run(server._apply(pool))


def test_substeps_follow_the_machine(scene):
    server = SceneServer(Stage(scene, substeps=12))
    for _ in range(31):
        server._pace(40.0, 16.7)
    apply(server)
    assert server.stage.world.substeps == 9 and server.status()["wanted_substeps"] == 12
    for _ in range(400):
        server._pace(1.0, 16.7)
        apply(server)
    assert server.stage.world.substeps == 12
    assert next(m["value"] for _, m in server.log.inputs) == 9, "in the log, so that a replay does the same"

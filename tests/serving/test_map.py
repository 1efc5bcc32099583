"""The map over HTTP: made in the background, points and colours as bytes, hits and records by place."""

from __future__ import annotations

import base64
import time

import numpy as np
import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from isometry.search.maps import FILE
from isometry.serving import make_app, map_jobs


@pytest.fixture
def client(served, monkeypatch):
    monkeypatch.setattr(map_jobs, "best_method", lambda count: "pca")
    with TestClient(make_app([served], writable=True)) as opened:
        yield opened


def ready(client, wanted=lambda now: now["state"] == "ready" and now["key"]) -> dict:
    for _ in range(3000):
        now = client.get("/collections/papers/map").json()
        if wanted(now):
            return now
        time.sleep(0.02)
    raise AssertionError(now)


def points(client, key) -> np.ndarray:
    answer = client.get("/collections/papers/map/points", params={"key": key})
    assert answer.headers["content-type"] == "application/octet-stream"
    return np.frombuffer(answer.content, "<u2").reshape(-1, 2)


def test_a_map_is_made_kept_and_made_again_after_a_commit(client, served, monkeypatch):
    now = ready(client)
    assert (now["method"], now["making"], now["points"], now["current"], now["problem"]) == (
        "pca",
        "pca",
        60,
        True,
        None,
    )
    assert points(client, now["key"]).shape == (60, 2) and (served.path / FILE).is_file()
    served.delete("p/7")
    later = client.get("/collections/papers/map").json()
    assert (later["key"], later["current"], later["points"]) == (now["key"], False, 60)  # it rests before the next one
    places = [
        one["id"]
        for one in client.get("/collections/papers/map/records", params={"key": now["key"], "place": [6, 7, 8]}).json()[
            "records"
        ]
    ]
    assert places == ["p/6", "p/8"]
    monkeypatch.setattr(map_jobs, "PAUSE", 0.0)
    with TestClient(make_app([served])) as fresh:
        again = ready(fresh, lambda now: now["current"])
        assert again["points"] == 59 and again["key"] != now["key"]
        assert fresh.get("/collections/papers/map/points", params={"key": now["key"]}).status_code == 404


def test_a_kept_map_is_used_and_a_damaged_one_is_not(client, served, monkeypatch):
    key = ready(client)["key"]
    first = points(client, key)
    made = []
    monkeypatch.setattr(map_jobs, "make_map", lambda *given, **named: made.append(1))
    with TestClient(make_app([served])) as fresh:
        ready(fresh)
        np.testing.assert_array_equal(points(fresh, key), first)
    assert made == []
    monkeypatch.undo()
    monkeypatch.setattr(map_jobs, "best_method", lambda count: "pca")
    kept = served.path / FILE
    kept.write_bytes(kept.read_bytes()[:-9])
    with TestClient(make_app([served])) as fresh:
        ready(fresh)
        np.testing.assert_array_equal(points(fresh, key), first)


def test_colours_by_attribute(client):
    key = ready(client)["key"]
    numbers = client.get("/collections/papers/map/colours", params={"key": key, "by": "n"}).json()
    assert (numbers["kind"], numbers["low"], numbers["high"]) == ("number", 1.0, 58.0)
    codes = np.frombuffer(base64.b64decode(numbers["codes"]), np.uint8)
    assert codes.shape == (60,) and codes[0] == codes[1] == 0 and codes[58] == codes[59] == 253
    dates = client.get("/collections/papers/map/colours", params={"key": key, "by": "created"}).json()
    assert (dates["kind"], dates["low"], dates["high"]) == ("date", "2000-01-02", "2019-01-02")
    years = client.get("/collections/papers/map/colours", params={"key": key, "by": "year(created)"}).json()
    assert years["kind"] == "number"
    words = client.get("/collections/papers/map/colours", params={"key": key, "by": "lower(title)"}).json()
    assert len(words["categories"]) == 12 and words["other"] == 48


def test_hits_and_filters_as_places(client):
    key = ready(client)["key"]
    found = client.get(
        "/collections/papers/map/found",
        params={"key": key, "query": "graph", "mode": "text", "where": "n < 30", "k": 3},
    ).json()
    assert (
        found["total"] > 3
        and len(found["hits"]) == 3
        and all(f"p/{hit['place']}" == hit["id"] for hit in found["hits"])
    )
    bits = np.unpackbits(np.frombuffer(base64.b64decode(found["passing"]), np.uint8))[:60]
    assert bits.tolist() == [1] * 30 + [0] * 30 and found["passed"] == 30
    nothing = client.get("/collections/papers/map/found", params={"key": key}).json()
    assert nothing == {"hits": [], "total": 0, "passing": None, "passed": 60}
    like = client.get("/collections/papers/map/found", params={"key": key, "like": "p/3", "k": 200}).json()
    assert len(like["hits"]) == 59


def test_refusals(client):
    key = ready(client)["key"]
    base = "/collections/papers/map"
    for path, status, said in (
        ("/collections/other/map", 404, "no collection 'other'"),
        (f"{base}/points?key=old", 404, "no map with this key"),
        (f"{base}/colours?key={key}&by=nothing", 422, "no attribute 'nothing'"),
        (f"{base}/found?key={key}&where=n+<", 422, "filter"),
        (f"{base}/found?key={key}&query=x&k=201", 422, "k"),
        (f"{base}/records?key={key}&place=60", 422, "place 60 is not on the map"),
        (f"{base}/records?key={key}&" + "place=1&" * 101, 422, "place"),
    ):
        answer = client.get(path)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text
    schema = client.get("/openapi.json").json()["paths"]
    assert {path for path in schema if "/map" in path} == {
        f"/collections/{{name}}/map{end}" for end in ("", "/points", "/colours", "/found", "/records")
    }


def test_a_layout_that_fails_is_said_and_the_first_map_stays(served, monkeypatch):
    monkeypatch.setattr(map_jobs, "best_method", lambda count: "umap")
    monkeypatch.setattr(map_jobs, "PROCESS", "isometry.no_such_module")
    with TestClient(make_app([served])) as client:
        now = ready(client, lambda now: now["problem"])
        assert (now["state"], now["method"], now["making"]) == ("ready", "pca", "umap")
        assert "ended with code 1" in now["problem"] and points(client, now["key"]).shape == (60, 2)
        assert client.get("/collections/papers/map").json()["problem"] == now["problem"]


@pytest.mark.slow
def test_umap_follows_pca(served):
    pytest.importorskip("umap")
    with TestClient(make_app([served])) as client:
        first = ready(client, lambda now: now["key"])
        assert first["method"] == "pca" and first["making"] == "umap"
        last = ready(client, lambda now: now["method"] == "umap" and now["state"] == "ready")
        assert last["current"] and last["arranged"] == 60


def test_sentences_over_http(client):
    answer = client.get(
        "/collections/papers/sentences", params={"query": "graph", "id": ["p/6", "none"], "column": "abstract"}
    ).json()
    (text,) = answer["texts"]
    assert (text["id"], text["column"], "".join(one["text"] for one in text["sentences"])) == (
        "p/6",
        "abstract",
        "About graph. Number 6.",
    )
    for given, said in (
        ({"query": " ", "id": "p/6"}, "empty"),
        ({"query": "x", "id": "p/6", "column": "n"}, "no text column"),
        ({"query": "x", "id": ["a"] * 51}, "id"),
    ):
        refused = client.get("/collections/papers/sentences", params=given)
        assert refused.status_code == 422 and said in refused.json()["error"]["message"]

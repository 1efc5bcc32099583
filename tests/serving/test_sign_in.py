"""How a browser gets past the token: a form, a cookie without the token in it, and nowhere else to be led to."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from isometry.serving import make_app
from isometry.serving import sign_in as door

TOKEN = "a long secret / with ünicode"
BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def client(served, monkeypatch):
    monkeypatch.setattr(door, "_PAUSE", 0.0)
    with TestClient(make_app([served], token=TOKEN), follow_redirects=False) as opened:
        yield opened


def test_a_person_is_led_to_the_form_and_back_to_where_they_wanted(client):
    led = client.get("/c/papers/record/p%2F7?x=1&y=a%20b", headers=BROWSER)
    assert led.status_code == 303
    form = client.get(led.headers["location"])
    assert form.status_code == 200 and 'name="next" value="/c/papers/record/p/7?x=1&amp;y=a%20b"' in form.text
    assert "default-src 'self'" in form.headers["content-security-policy"]
    assert "form-action 'self'" in form.headers["content-security-policy"]
    entered = client.post("/sign-in", data={"token": f" {TOKEN} ", "next": "/c/papers/record/p/7?x=1&y=a%20b"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/c/papers/record/p/7?x=1&y=a%20b")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "secret" not in cookie
    assert client.get("/c/papers", headers=BROWSER).status_code == 200
    assert client.get("/collections").status_code == 200


def test_a_wrong_token_opens_nothing(client):
    for given in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        refused = client.post("/sign-in", data={"token": given, "next": "/"})
        assert refused.status_code == 403 and "set-cookie" not in refused.headers
        assert "not the token of this server" in refused.text
    assert client.get("/collections").status_code == 401
    assert client.post("/sign-in", content=b"token=" + b"\xff&" * 5000).status_code == 403
    assert client.put("/sign-in").status_code == 405
    assert client.post("/sign-in", data={"token": TOKEN}, headers={"origin": "http://elsewhere"}).status_code == 403


@pytest.mark.parametrize(
    "wanted", ["//elsewhere", "http://elsewhere", "/\\elsewhere", "javascript:1", "/sign-in", "/a\nb", ""]
)
def test_signing_in_leads_nowhere_else(client, wanted):
    assert client.post("/sign-in", data={"token": TOKEN, "next": wanted}).headers["location"] == "/"
    assert 'name="next" value="/"' in client.get("/sign-in", params={"next": wanted}).text


def test_the_form_shows_what_it_is_given_as_text(client):
    form = client.get("/sign-in", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>" not in form and "&quot;&gt;&lt;script&gt;" in form


def test_a_cookie_of_another_token_does_not_count(served, client):
    other = TestClient(make_app([served], token="another secret"), follow_redirects=False)
    cookie = other.post("/sign-in", data={"token": "another secret"}).headers["set-cookie"].split(";")[0]
    assert client.get("/collections", headers={"cookie": cookie}).status_code == 401
    assert client.get("/collections", headers={"cookie": "a=\x00; ==;"}).status_code == 401


def test_files_of_the_page_and_health_need_no_token_and_a_server_without_one_has_no_form(served, client):
    assert client.get("/static/page.css").status_code == 200
    assert client.get("/static/../app.py").status_code in {401, 404}
    assert client.get("/healthz").status_code == 200
    assert TestClient(make_app([served])).get("/sign-in").status_code == 404

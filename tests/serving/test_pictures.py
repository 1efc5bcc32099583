"""Searching by a picture: as a body, a form or base64; bounded, and decoded only by readers meant for it."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from PIL import Image

from isometry.search import Collection
from isometry.serving import Limits, make_app
from isometry.types import EncoderDescription

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class ColourEncoder:
    """A picture is its mean colour, a text the colour that it names."""

    def describe(self) -> EncoderDescription:
        return EncoderDescription("colours", "00", 3, modalities=("text", "image"))

    def encode(self, inputs, batch_size=64, show_progress_bar=None):
        return np.array([COLOURS.get(text, (1, 1, 1)) for text in inputs], np.float32)

    def encode_images(self, images, batch_size=64, show_progress_bar=None):
        opened = [one if isinstance(one, Image.Image) else Image.open(io.BytesIO(one)) for one in images]
        return np.array([np.asarray(one.convert("RGB"), np.float32).mean((0, 1)) for one in opened])


def picture(name: str, form: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, COLOURS[name]).save(held, form)
    return held.getvalue()


@pytest.fixture
def coloured(tmp_path):
    schema = pa.schema([("name", pa.string()), ("picture", pa.binary())])
    with Collection.create(
        tmp_path / "coloured", encoder=ColourEncoder(), schema=schema, image_column="picture"
    ) as made:
        made.upsert([{"id": name, "name": name, "picture": picture(name)} for name in COLOURS])
        yield made


@pytest.fixture
def client(coloured):
    with TestClient(make_app([coloured], writable=True, limits=Limits(body_bytes=200_000, pixels=1000))) as opened:
        yield opened


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_comes_in_three_ways(client, form):
    content = picture("green", form)
    kind = {"content-type": f"image/{form.lower()}"}
    asked = [
        client.post("/collections/coloured/search?k=2&where=name%20%21%3D%20%27red%27", content=content, headers=kind),
        client.post(
            "/search",
            files={"image": ("a", content, "application/octet-stream")},
            data={"k": "2", "where": "name != 'red'"},
        ),
        client.post("/search", json={"image": base64.b64encode(content).decode(), "k": 2, "where": "name != 'red'"}),
        client.post(
            "/search",
            json={
                "image": f"data:image/{form.lower()};base64,{base64.b64encode(content).decode()}",
                "k": 2,
                "where": "name != 'red'",
            },
        ),
    ]
    for answer in asked:
        assert answer.status_code == 200, answer.text
        assert [hit["id"] for hit in answer.json()["hits"]] == ["green", "blue"]
        assert answer.json()["query"] == "image" and answer.json()["total"] == 2
        assert answer.json()["hits"][0]["record"]["picture"] == {"bytes": len(picture("green"))}


def bomb() -> bytes:
    """A PNG of a hundred bytes that says it is 40,000 pixels wide and high."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (picture("red", size=(40, 40)), "image/png", 422, "40 x 40 pixels and at most 1,000"),
        (bomb(), "image/png", 422, "far more than 1,000 pixels"),
        (picture("red")[:40], "image/png", 422, "no picture that can be read"),
        (b"", "image/png", 422, "no picture"),
        (b"%PDF-1.4 not a picture", "image/png", 422, "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "image/png", 422, "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 422, "no picture"),
        (picture("red"), "image/tiff", 415, "image/png"),
        (picture("red"), "application/octet-stream", 415, "image/png"),
        (picture("red"), "", 415, "application/json"),
        (b"\0" * 200_001, "image/png", 413, "larger than 200,000 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_before_it_costs(client, content, kind, status, says):
    answer = client.post("/search", content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status and says in answer.json()["error"]["message"], answer.text


def test_forms_are_bounded_and_checked(client):
    red = picture("red")
    for given, says in (
        ({"files": {"photo": ("a", red)}}, "name it 'image'"),
        ({"files": {"image": ("a", red)}, "data": {"quary": "x"}}, "Extra inputs"),
        ({"files": {"image": ("a", red)}, "data": {"k": "many"}}, "integer"),
        ({"files": {"image": ("a", red)}, "data": {"query": "red"}}, "not query and image"),
        ({"files": [("image", ("a", red)), ("image", ("b", red))]}, "Too many files"),
    ):
        answer = client.post("/search", **given)
        assert answer.status_code in (400, 422) and says in answer.json()["error"]["message"], answer.text
    broken = client.post(
        "/search", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in (400, 422) and "error" in broken.json()
    assert client.post("/search", content=b"x", headers={"content-type": "multipart/form-data"}).status_code in (
        400,
        422,
    )


def test_an_encoder_of_texts_says_so(served):
    with TestClient(make_app([served])) as client:
        answer = client.post("/search", content=picture("red"), headers={"content-type": "image/png"})
        assert answer.status_code == 422 and "takes no pictures" in answer.json()["error"]["message"]


def test_records_bring_their_pictures_and_never_paths(client, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture("blue"))
    put = "/collections/coloured/records"
    dark = io.BytesIO()
    Image.new("RGB", (3, 3), (90, 0, 0)).save(dark, "PNG")
    new = {"id": "dark", "name": "dark", "picture": base64.b64encode(dark.getvalue()).decode()}
    assert client.post(put, json={"records": [new]}).json()["added"] == 1
    found = client.post("/search", json={"query": "red", "k": 2}).json()
    assert {hit["id"] for hit in found["hits"]} == {"red", "dark"}
    for value in (str(tmp_path / "secret.png"), "/etc/passwd", "aGVsbG8=", 5, None, {"path": "/etc/passwd"}):
        records = [{**new, "id": "other"}, {"id": "evil", "name": "x", "picture": value}]
        answer = client.post(put, json={"records": records})
        assert answer.status_code == 422, (value, answer.text)
    assert client.get("/collections/coloured").json()["records"] == 4

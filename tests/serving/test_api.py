"""The HTTP interface: shapes, refusals, limits, tokens, and clients that we did not write."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from isometry.errors import InputError
from isometry.search import Collection
from isometry.serving import Limits, make_app, serve
from isometry.serving.batching import BatchingEncoder
from tests.serving.conftest import HashEncoder, listening, papers


@pytest.fixture
def client(served):
    with TestClient(make_app([served], writable=True)) as opened:
        yield opened


def test_search_has_the_shape_of_the_command_line(client, served):
    answer = client.get("/collections/papers/search", params={"query": "river music", "k": 3, "where": "n < 30"}).json()
    assert set(answer) == {"query", "hits", "total", "plan", "milliseconds"}
    expected = served.search("river music", k=3, where="n < 30")
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [(hit.id, hit.score) for hit in expected.hits]
    assert answer["total"] == 30
    body = {"query": "river", "mode": "hybrid", "k": 2, "explain": True, "facets": ["n"]}
    posted = client.post("/collections/papers/search", json=body).json()
    assert posted["facets"]["n"] and "explanation" in posted["hits"][0]
    assert client.get("/search", params={"query": "river"}).json()["total"] == 60


def test_records_similar_facets_and_lists(client):
    assert client.get("/collections/papers/records/p/7").json()["n"] == 7
    assert client.get("/records/p/7").json()["id"] == "p/7"
    similar = client.get("/collections/papers/similar/p/7", params={"k": 5}).json()
    assert len(similar["hits"]) == 5 and "p/7" not in {hit["id"] for hit in similar["hits"]}
    assert client.get("/similar/p/7").status_code == 200
    years = client.get("/facets", params={"columns": ["year(created)"]}).json()["facets"]["year(created)"]
    assert years[0] == {"value": 2000, "count": 3}
    (held,) = client.get("/collections").json()
    assert held["name"] == "papers" and held["records"] == 60
    assert client.get("/collections/papers").json()["dimension"] == 32
    assert client.get("/healthz").json()["status"] == "ok"


def test_metrics_count_requests(client):
    client.get("/healthz")
    page = client.get("/metrics").text
    assert 'isometry_requests_total{method="GET",route="/healthz",status="200"} 1.0' in page
    assert 'isometry_records{collection="papers"} 60.0' in page


def test_writing_and_deleting(client, served):
    new = {"id": "new", "title": "a new galaxy", "abstract": "x", "created": "2020-01-01", "n": 99}
    assert client.post("/collections/papers/records", json={"records": [new]}).json()["added"] == 1
    assert client.get("/search", params={"query": "a new galaxy", "k": 1}).json()["hits"][0]["id"] == "new"
    assert client.request("DELETE", "/collections/papers/records", json={"ids": ["new", "p/1"]}).json()["deleted"] == 2
    assert client.delete("/collections/papers/records/p/2").status_code == 200
    assert client.delete("/collections/papers/records/p/2").status_code == 404
    assert len(served) == 58 and served.verify().ok


def test_a_reading_server_refuses_writes(served):
    with TestClient(make_app([served])) as client:
        assert client.post("/collections/papers/records", json={"records": [{"id": "x"}]}).status_code == 403
        assert client.delete("/collections/papers/records/p/1").status_code == 403
    assert len(served) == 60


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        ("GET", "/collections/nothing", {}, 404),
        ("GET", "/records/nobody", {}, 404),
        ("GET", "/no/such/path", {}, 404),
        ("PUT", "/healthz", {}, 405),
        ("GET", "/search?query=x&k=0", {}, 422),
        ("GET", "/search?query=x&k=5000", {}, 422),
        ("GET", "/search?query=x&k=many", {}, 422),
        ("GET", "/search?query=", {}, 422),
        ("GET", "/search?query=x&where=1%3B%20DROP", {}, 422),
        ("GET", "/search?query=x&mode=magic", {}, 422),
        ("GET", "/search?query=x&like=p/1", {}, 422),
        ("GET", "/facets?columns=nothing", {}, 422),
        ("POST", "/collections/papers/search", {"json": {"quary": "x"}}, 422),
        ("POST", "/collections/papers/search", {"json": {"vector": [1, 2], "made_by": "x"}}, 422),
        ("POST", "/collections/papers/search", {"content": b"{", "headers": {"content-type": "application/json"}}, 422),
        ("POST", "/collections/papers/records", {"json": {"records": []}}, 422),
        ("POST", "/collections/papers/records", {"json": {"records": [{"title": "no id"}]}}, 422),
        ("POST", "/v1/embeddings", {"json": {"input": []}}, 422),
        ("POST", "/v1/embeddings", {"json": {"input": [""]}}, 422),
        ("POST", "/v1/embeddings", {"json": {"input": [[1, 2]]}}, 422),
        ("POST", "/v1/embeddings", {"json": {"input": "x", "dimensions": 0}}, 422),
        ("POST", "/v1/embeddings", {"json": {"input": "x" * 200_000}}, 422),
    ],
)
def test_refusals_have_one_shape(client, method, path, given, status):
    answer = client.request(method, path, **given)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"message", "type"}
    assert "Traceback" not in answer.text and "\n" not in answer.json()["error"]["message"]


def test_bodies_beyond_the_limit_are_not_read(served):
    with TestClient(make_app([served], limits=Limits(body_bytes=1000))) as client:
        assert client.post("/v1/embeddings", json={"input": "x" * 2000}).status_code == 413
        chunks = (b"x" * 100 for _ in range(1000))
        assert client.post("/v1/embeddings", content=chunks).status_code == 413


def test_hosts_and_origins(client):
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    refused = client.post("/collections/papers/search", json={"query": "x"}, headers={"origin": "http://evil.example"})
    assert refused.status_code == 403
    assert client.get("/").headers["content-security-policy"].startswith("default-src 'self'")


def test_tokens(served):
    with TestClient(make_app([served], token="a long secret"), follow_redirects=False) as client:
        assert client.get("/healthz").status_code == 200
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic a long secret"},
            {"cookie": "isometry_token=no"},
        ):
            assert client.get("/collections", headers=headers).status_code == 401
        assert client.get("/collections", headers={"authorization": "Bearer a long secret"}).status_code == 200
        assert client.get("/?token=wrong").status_code == 401
        entered = client.get("/?token=a long secret")
        assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
        assert client.get("/collections").status_code == 200


def test_beyond_loopback_only_with_a_token(served):
    with pytest.raises(InputError, match="give a token"):
        serve([served], host="0.0.0.0", port=0)
    with pytest.raises(InputError, match="shorter than 8"):
        serve([served], token="abc", port=0)


def test_too_many_at_once_are_told_to_wait(served):
    gate, entered = threading.Event(), threading.Event()

    class Slow(HashEncoder):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            entered.set()
            gate.wait(20)
            return super().encode(inputs)

    served.use(Slow())
    app = make_app([served], limits=Limits(concurrent=1))
    with listening(app) as address, ThreadPoolExecutor(4) as pool:
        import httpx

        first = pool.submit(httpx.get, f"{address}/search?query=x", timeout=30)
        assert entered.wait(20)
        second = httpx.get(f"{address}/search?query=y", timeout=30)
        assert second.status_code == 429 and second.headers["retry-after"] == "1"
        gate.set()
        assert first.result().status_code == 200


def test_requests_that_come_together_are_encoded_together():
    runs: list[int] = []
    gate = threading.Event()

    class Counting(HashEncoder):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            gate.wait(20)
            if "bad" in inputs:
                raise InputError("a bad text")
            runs.append(len(inputs))
            return super().encode(inputs)

    encoder = BatchingEncoder(Counting().describe(), Counting)
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(encoder.encode_queries, [f"text {n}"]) for n in range(30)]
        bad = pool.submit(encoder.encode_queries, ["bad"])
        gate.set()
        for number, one in enumerate(asked):
            np.testing.assert_array_equal(one.result(20), HashEncoder().encode([f"text {number}"]))
        with pytest.raises(InputError, match="a bad text"):
            bad.result(20)
    encoder.close()
    assert sum(runs) == 30


def test_the_openai_client_works(served):
    openai = pytest.importorskip("openai")
    with listening(make_app([served], token="a long secret")) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="a long secret", max_retries=0)
        wanted = HashEncoder().encode(["river stone", "music"])
        plain = client.embeddings.create(model="hashed", input=["river stone", "music"], encoding_format="float")
        np.testing.assert_allclose([one.embedding for one in plain.data], wanted, atol=1e-7)
        packed = client.embeddings.create(model="hashed", input=["river stone", "music"])  # base64 on the wire
        np.testing.assert_allclose([one.embedding for one in packed.data], wanted, atol=1e-7)
        short = client.embeddings.create(model="hashed", input="music", dimensions=8)
        assert len(short.data[0].embedding) == 8 and short.usage.total_tokens >= 1
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong key", max_retries=0).embeddings.create(
                model="m", input="x"
            )
        with pytest.raises(openai.UnprocessableEntityError):
            client.embeddings.create(model="hashed", input="")


def test_base64_is_little_endian_float32(client):
    body = {"input": "music", "encoding_format": "base64"}
    text = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), "<f4"), HashEncoder().encode(["music"])[0])


def test_a_writer_process_is_seen_by_the_server(tmp_path):
    with Collection.create(tmp_path / "c", encoder=HashEncoder(), schema=None) as made:
        made.upsert([{"id": "a", "n": 1}], HashEncoder().encode(["a"]), made_by=made.fingerprint)
    with Collection.open(tmp_path / "c") as reader, TestClient(make_app([reader])) as client:
        assert client.get("/collections/c").json()["records"] == 1
        with Collection.open(tmp_path / "c", writable=True) as writer:
            writer.upsert([{"id": "b", "n": 2}], HashEncoder().encode(["b"]), made_by=writer.fingerprint)
        assert client.get("/collections/c").json()["records"] == 2
        assert client.get("/records/b").json()["n"] == 2


def test_ctrl_c_ends_with_0(tmp_path):
    with Collection.create(tmp_path / "c", dimension=4) as made:
        made.upsert([{"id": "a"}], np.ones((1, 4)))
    process = subprocess.Popen(
        [sys.executable, "-m", "isometry", "serve", tmp_path / "c", "--port", "0"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "Serving c at http://127.0.0.1:" in line
    import httpx

    assert httpx.get(line.split(" at ")[1].split()[0] + "healthz").json()["status"] == "ok"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()


def test_papers_are_found_with_many_clients(served):
    with listening(make_app([served])) as address, ThreadPoolExecutor(32) as pool:
        import httpx

        with httpx.Client(base_url=address, timeout=60) as http:
            wanted = {paper["title"]: served.search(paper["title"], k=3).hits[0].id for paper in papers(60)}
            found = list(pool.map(lambda title: http.get("/search", params={"query": title, "k": 3}).json(), wanted))
    assert [one["hits"][0]["id"] for one in found] == list(wanted.values())


def test_usage_counts_the_tokens_of_the_bundled_model(tmp_path):
    """As the model's own tokenizer counts, special tokens included, not as words."""
    pytest.importorskip("sentence_transformers")
    from isometry.encoders import load_encoder

    with (
        Collection.create(tmp_path / "c", encoder=load_encoder(), schema=None) as made,
        TestClient(make_app([made])) as client,
    ):
        text = "antidisestablishmentarianism indeed"
        usage = client.post("/v1/embeddings", json={"input": text}).json()["usage"]
        twice = client.post("/v1/embeddings", json={"input": [text, text]}).json()["usage"]
    from transformers import AutoTokenizer

    from isometry.encoders.load import default_folder

    expected = len(AutoTokenizer.from_pretrained(default_folder())(text)["input_ids"])
    assert usage == {"prompt_tokens": expected, "total_tokens": expected} and expected > 4
    assert twice["total_tokens"] == 2 * expected

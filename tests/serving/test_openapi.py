"""The own description of the interface: complete, and true of what is answered, whatever is sent."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from isometry.serving import make_app


@pytest.fixture
def client(served):
    with TestClient(make_app([served], writable=True)) as opened:
        yield opened


def test_every_route_says_what_it_answers_and_how_it_refuses(client):
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert len(described["paths"]) >= 15 and "HTTPValidationError" not in schemas
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"] and (operation.get("description") or operation["summary"]), where
            answered = operation["responses"].pop("200")["content"]
            for content in answered.values():
                schema = content["schema"]
                named = schema.get("items", schema)
                assert "$ref" in named or schema["type"] == "string", where
            assert {"401", "408", "413", "421", "422", "429", "503"} <= set(operation["responses"]), where
            assert "404" in operation["responses"] or "{" not in path, where
            for refusal in operation["responses"].values():
                assert refusal["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody"), where
    exact = {
        "HitAnswer": {"id", "score", "record", "explanation"},
        "SearchAnswer": {"query", "hits", "total", "plan", "milliseconds", "facets"},
        "EmbeddingsAnswer": {"object", "data", "model", "usage"},
        "WrittenAnswer": {"added", "updated", "unchanged", "records"},
        "ErrorDetail": {"message", "type"},
    }
    for name, keys in exact.items():
        assert set(schemas[name]["properties"]) == keys


def test_the_token_is_part_of_the_description(served):
    with TestClient(make_app([served], token="a long secret")) as client:
        assert client.get("/openapi.json").status_code == 401
        described = client.get("/openapi.json", headers={"authorization": "Bearer a long secret"}).json()
    assert described["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    asked = {
        path: "security" in operations["get"] for path, operations in described["paths"].items() if "get" in operations
    }
    assert asked.pop("/healthz") is False and all(asked.values())


def test_what_is_answered_is_what_is_described(served):
    """Schemathesis sends what the description allows and what it forbids: no 500, and every answer of a described shape."""
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    app = make_app([served], writable=True)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    statuses: dict[str, set[int]] = {}
    modest = settings(
        max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None,
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip

    def call(case):
        if "{name}" in case.path and case.path_parameters:
            case.path_parameters["name"] = "papers"
        answer = case.call_and_validate(checks=checks)
        statuses.setdefault(f"{case.method.upper()} {case.path}", set()).add(answer.status_code)

    for operation in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                strategy = operation.ok().as_strategy(generation_mode=mode)
                modest(hypothesis.given(case=strategy)(call))()
            except hypothesis.errors.Unsatisfiable:  # an operation that nothing can violate
                assert mode is GenerationMode.NEGATIVE
    assert {"POST /v1/embeddings", "POST /collections/{name}/search", "DELETE /collections/{name}/records"} <= set(
        statuses
    )
    assert 200 in statuses["POST /v1/embeddings"] and 422 in statuses["POST /v1/embeddings"]
    assert 200 in statuses["GET /collections/{name}/search"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 6000, b'{"k": ' + b"9" * 6000 + b"}",
        b'{"query": "\\ud800"}', b'{"\\ud800": 1}', b'{"query": "x", "k": 1e400}', b'{"vector": [NaN]}', b'{"query": NaN}',
        b'{"query": "x", "where": "\\u0000"}', b'{"query": "x", "sort": "\\ud800"}', b'{"like": "\\ud800"}',
        b'{"query": "\\u0000"}', b'{"query": "x", "k": true}', b'{"query": "x", "offset": -1}', b'{"facets": ["\\ud800"]}',
        b'{"query": "x", "facets": ["n", "n; DROP TABLE records"]}', b'{"vector": [], "made_by": ""}', b'{"image": "@@@"}',
        b'{"image": "aGVsbG8="}', b'{"query": "x", "like": "p/1", "image": ""}', b'{"query": "x"}garbage',
    ],
)  # fmt: skip
def test_odd_bodies_are_refused_in_one_shape(client, content):
    json_type = {"content-type": "application/json"}
    for method, path in (
        ("POST", "/collections/papers/search"), ("POST", "/search"), ("POST", "/v1/embeddings"),
        ("POST", "/collections/papers/records"), ("DELETE", "/collections/papers/records"),
    ):  # fmt: skip
        answer = client.request(method, path, content=content, headers=json_type)
        assert answer.status_code in (200, 400, 404, 422), (path, answer.text)
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"message", "type"}
            assert "\n" not in answer.json()["error"]["message"] and "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/collections/%2e%2e/search?query=x", "/collections/..%2f..%2fetc/search?query=x", "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd", "/collections/papers/records/..%2f..%2f..%2fetc%2fpasswd",
        "/records/%00", "/records/%ff", "/c/%2e%2e/record/x", "/collections/papers%00/search?query=x",
        "/similar/%F0%9F%99%82", "/collections/papers/records/" + "x" * 5000,
    ],
)  # fmt: skip
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 422) and "root:" not in answer.text and "import" not in answer.text

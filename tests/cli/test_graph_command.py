from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isometry.cli.main import main
from isometry.graphs import FastRP, read_embeddings, read_graph


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["graph", "embed", *map(str, arguments)])
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


@pytest.fixture
def edges(tmp_path):
    path = tmp_path / "edges.csv"
    rows = [f"n{a},n{b}" for a in range(12) for b in range(a + 1, 12) if (a * b + a + b) % 3]
    path.write_text("source,target\n" + "\n".join([*rows, "n1,n1"]))
    return path


@pytest.mark.parametrize("method", ["fastrp", "node2vec"])
def test_embed_writes_names_and_vectors(edges, tmp_path, capsys, method):
    out = tmp_path / "nodes.parquet"
    code, text, errors = run(capsys, edges, "--out", out, "--method", method, "--dimension", 16, "--seed", 3, "--json")
    assert code == 0, errors
    report = json.loads(text)
    assert (report["nodes"], report["dimension"], report["method"]) == (12, 16, method)
    assert report["notes"] == ["1 self loops were left out"]
    schema = pq.read_schema(out)
    assert schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert json.loads(schema.metadata[b"isometry.made_by"])["method"] == method
    names, vectors = read_embeddings(out)
    graph = read_graph(edges)
    assert names == list(graph.nodes)
    if method == "fastrp":
        expected = FastRP(dimension=16, random_state=3).fit_transform(graph.adjacency, nodes=graph.nodes)
        np.testing.assert_array_equal(vectors, expected)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_options_reach_the_estimator(edges, tmp_path, capsys):
    out = tmp_path / "nodes.parquet"
    options = ("--weights", "1,2", "--beta", "0", "--block-size", "5", "--dimension", "8")
    assert run(capsys, edges, "--out", out, *options)[0] == 0
    graph = read_graph(edges)
    expected = FastRP(dimension=8, weights=(1, 2), beta=0.0).fit_transform(graph.adjacency, nodes=graph.nodes)
    np.testing.assert_allclose(read_embeddings(out)[1], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.csv", "--out", "x.parquet"), "there is no file missing.csv"),
        (("EDGES", "--out", "no/such/folder/x.parquet"), "in a folder that exists"),
        (("EDGES", "--out", "x.parquet", "--method", "walk"), "no method 'walk'"),
        (("EDGES", "--out", "x.parquet", "--weights", "1,a"), "--weights takes numbers"),
        (("EDGES", "--out", "x.parquet", "--weights", "0,0"), "at least one of them not zero"),
        (("EDGES", "--out", "x.parquet", "--dimension", "0"), "dimension must be a whole number above 0"),
        (("EDGES", "--out", "x.parquet", "--method", "node2vec", "--beta", "0"), "belong to fastrp"),
        (("EDGES", "--out", "x.parquet", "--source", "a"), "no column 'a'"),
    ],
)
def test_bad_input_is_one_sentence(edges, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, text, errors = run(capsys, *(edges if one == "EDGES" else one for one in arguments))
    assert (code, text) == (2, "")
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "x.parquet").exists()

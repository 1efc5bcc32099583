from __future__ import annotations

import gzip
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from isometry.errors import InputError, IsometryError, NotFoundError, RecordError, ShapeError
from isometry.graphs import graph_from_edges, read_graph

TRIANGLE = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]]  # a-b, b-c, a-c, c-d
LINES = ["a b", "b c", "a c", "c d"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.txt", "# comment\n" + "\n".join(LINES) + "\n\n"),
        ("g.edges", "% comment\n" + "\r\n".join(LINES)),
        ("g.csv", "source,target\n" + "\n".join(line.replace(" ", ",") for line in LINES)),
        ("g.tsv", "\n".join(line.replace(" ", "\t") for line in LINES)),
        ("g.csv", 'Target,kind,Source\n"b",x,"a"\nc,x,b\nc,x,a\nd,x,c\n'),
        ("g.txt", "\n".join([*LINES, "b a", "c a", "a b"])),
    ],
)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_text_edge_lists(tmp_path, name, content, packing):
    path = tmp_path / (name + packing)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packing]
    path.write_bytes(pack(content.encode()))
    graph = read_graph(path)
    order = [list(graph.nodes).index(node) for node in "abcd"]
    assert graph.adjacency.toarray()[np.ix_(order, order)].tolist() == TRIANGLE
    assert graph.edge_count == 4
    assert graph.adjacency.dtype == np.float32


def test_parquet_keeps_whole_numbers_and_columns(tmp_path):
    table = pa.table({"when": [1, 2], "from": [10, 2**60], "to": [2**60, 7], "weight": [0.5, 2]})
    pq.write_table(table, tmp_path / "g.parquet")
    graph = read_graph(tmp_path / "g.parquet")
    assert graph.nodes == [10, 2**60, 7]
    assert graph.adjacency.toarray().tolist() == [[0, 0.5, 0], [0.5, 0, 2], [0, 2, 0]]
    other = read_graph(table, source_column="when", target_column="to", directed=True)
    assert other.nodes == [1, 2**60, 2, 7]
    assert other.edge_count == 2


def test_repeats_loops_and_zero_weights_are_told():
    graph = graph_from_edges("aabca", "bbaca", nodes="abc")
    assert graph.adjacency.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert graph.notes == ("2 self loops were left out", "2 repeated edges were counted once")
    kept = graph_from_edges("aab", "abb", self_loops="keep")
    assert kept.adjacency.toarray().tolist() == [[1, 1], [1, 1]]
    assert kept.edge_count == 3
    # the same edge twice adds up; the same edge in both directions does not double
    weighted = graph_from_edges("aabcc", "bbaba", [1.0, 2.0, 3.0, 5.0, 0.0])
    assert weighted.adjacency.toarray().tolist() == [[0, 3, 0], [3, 0, 5], [0, 5, 0]]
    assert weighted.notes[0] == "1 edges of weight 0 were left out"
    assert weighted.notes[1].startswith("2 repeated edges were merged")
    directed = graph_from_edges("ab", "ba", [1.0, 2.0], directed=True)
    assert directed.adjacency.toarray().tolist() == [[0, 1], [2, 0]]
    assert (directed.edge_count, directed.notes) == (2, ())


def test_names_of_any_hashable_kind():
    names = [("x", 1), frozenset({2}), "text", 3, 2.5, None]
    graph = graph_from_edges(names[:-1], names[1:])
    assert list(graph.nodes) == names


def test_networkx_scipy_and_edge_index():
    G = nx.Graph()
    G.add_node("alone")
    G.add_edge("a", "b", weight=2.0)
    G.add_edge("b", "c")
    graph = read_graph(G)
    assert graph.nodes == ["alone", "a", "b", "c"]
    assert graph.adjacency.toarray()[1:, 1:].tolist() == [[0, 2, 0], [2, 0, 1], [0, 1, 0]]
    assert read_graph(nx.DiGraph([(0, 1)]), directed=True).adjacency.toarray().tolist() == [[0, 1], [0, 0]]
    assert read_graph(nx.DiGraph([(0, 1)])).adjacency.toarray().tolist() == [[0, 1], [1, 0]]
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        assert read_graph(kind(np.array(TRIANGLE))).adjacency.toarray().tolist() == TRIANGLE
    data = SimpleNamespace(edge_index=np.array([[0, 1, 1], [1, 0, 2]]), num_nodes=4, x=np.eye(4), y=np.arange(4))
    graph = read_graph(data)
    assert (len(graph.nodes), graph.edge_count) == (4, 2)
    assert graph.labels.tolist() == [0, 1, 2, 3]
    assert graph.features.shape == (4, 4)


def test_npz_of_scipy_and_of_arrays(tmp_path):
    sparse.save_npz(tmp_path / "scipy.npz", sparse.csr_array(np.array(TRIANGLE)))
    assert read_graph(tmp_path / "scipy.npz").adjacency.toarray().tolist() == TRIANGLE
    np.savez(tmp_path / "plain.npz", edges=np.array([[0, 1], [1, 2]]), num_nodes=4, labels=np.array([0, 1, -1, 0]))
    graph = read_graph(tmp_path / "plain.npz")
    assert (len(graph.nodes), graph.edge_count) == (4, 2)
    assert graph.labels.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize(
    ("name", "nodes", "edges"),
    [
        ("planetoid-cora", 2_708, 5_278),
        ("ppi", 3_890, 37_845),
        ("facebook-pages", 22_470, 170_823),
        ("arxiv-coauthor", 261_724, 799_127),
    ],
)
def test_shared_graphs(shared_data, name, nodes, edges):
    graph = read_graph(shared_data / "graphs" / f"{name}.npz")
    assert (len(graph.nodes), graph.edge_count, graph.notes) == (nodes, edges, ())
    assert graph.labels.shape[0] == nodes


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("g.txt", b"a b\na b c d\n", RecordError, r"g\.txt, row 2: 4 fields where 2"),
        ("g.txt", b"a b c d\n", RecordError, "2 or 3 fields, not 4"),
        ("g.txt", b"a b 1\nb c x\n", RecordError, r"row 2, column 'weight': 'x' is not a number"),
        ("g.txt", b"a b 1\nb c -2\n", RecordError, "not a finite number of at least 0"),
        ("g.txt", b"a b 1\nb c nan\n", RecordError, "not a finite number of at least 0"),
        ("g.csv", b"a,b\n,c\n", RecordError, "row 2: an edge lacks a node's name"),
        ("g.txt", b"# nothing\n\n", InputError, "holds no edge"),
        ("g.txt", b"a \xff\xfe\n", InputError, "not UTF-8"),
        ("g.gml", b"graph []", InputError, "is read from .csv"),
        ("g.txt.gz", b"not packed", InputError, "cannot be read"),
        ("g.parquet", b"PAR1", InputError, "cannot be read"),
        ("g.npz", b"PK\x03\x04", InputError, "cannot be read"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, content, error, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        read_graph(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": [1]}, "has 'edges'"),
        ({"edges": [1, 2]}, "do not fit together"),
        ({"edges": [[0, 5]], "num_nodes": 3}, "outside 0..2"),
        ({"edges": [[0, 1]], "num_nodes": 2, "weight": [-1.0]}, "edge 1: weight -1"),
        ({"edges": [[0, 1]], "num_nodes": 2, "weight": [1.0, 2.0]}, "2 weights for 1 edges"),
    ],
)
def test_bad_npz(tmp_path, arrays, words):
    np.savez(tmp_path / "g.npz", **{key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(InputError, match=words):
        read_graph(tmp_path / "g.npz")


def test_bad_objects():
    with pytest.raises(NotFoundError, match="no file"):
        read_graph("nowhere.csv")
    with pytest.raises(InputError, match="cannot be read from int"):
        read_graph(3)
    with pytest.raises(ShapeError, match="one row and one column"):
        read_graph(sparse.csr_array((2, 3)))
    with pytest.raises(InputError, match="node 9"):
        graph_from_edges([1, 9], [2, 1], nodes=[1, 2])
    with pytest.raises(InputError, match="as many sources as targets"):
        graph_from_edges([1, 2], [3])
    with pytest.raises(InputError, match="no node"):
        graph_from_edges([], [])
    with pytest.raises(RecordError, match="table, row 2, column 'to': the value is missing"):
        read_graph(pa.table({"from": [1, 2], "to": [2, None]}))
    with pytest.raises(InputError, match="no column 'z'"):
        read_graph(pa.table({"from": [1], "to": [2]}), weight_column="z")
    with pytest.raises(InputError, match="weights must be numbers"):
        read_graph(pa.table({"from": [1], "to": [2], "weight": ["heavy"]}))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["g.txt", "g.csv", "g.tsv.gz", "g.npz", "g.parquet", "g.txt.zst"]))
def test_any_bytes_give_a_graph_or_a_sentence(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        graph = read_graph(path)
    except IsometryError as error:
        assert "\n" not in str(error).strip()
    else:
        assert graph.adjacency.shape == (len(graph.nodes),) * 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40))
def test_edge_lists_agree_with_networkx(edges):
    graph = graph_from_edges(*zip(*edges, strict=True))
    G = nx.Graph([edge for edge in edges if edge[0] != edge[1]])
    G.add_nodes_from(graph.nodes)
    np.testing.assert_array_equal(graph.adjacency.toarray(), nx.to_numpy_array(G, nodelist=list(graph.nodes)))
    assert graph.edge_count == G.number_of_edges()


def test_a_table_that_is_no_edge_list_is_not_taken_for_one():
    papers = pa.table({"id": ["a", "b"], "title": ["x", "y"], "abstract": ["u", "v"], "year": [1, 2]})
    with pytest.raises(
        InputError, match=r"which columns are source and target\? Name them .* it has id, title, abstract, year"
    ):
        read_graph(papers)
    assert read_graph(papers, source_column="id", target_column="title").nodes == ["a", "x", "b", "y"]

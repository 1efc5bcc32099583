"""The map of a collection: near vectors come to lie near, and the kept file is right, whole, and made for its version."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import KNeighborsClassifier

from isometry.errors import InputError, ShapeError
from isometry.search import Collection
from isometry.search.maps import FILE, make_map, map_key, read_map, write_map
from isometry.search.projection import best_method, project


def clusters(count: int, kinds: int = 6, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(kinds, 32))
    labels = np.arange(count) % kinds
    return (centres[labels] + spread * draw.normal(size=(count, 32))).astype(np.float32), labels


def test_pca_is_the_plane_of_largest_spread():
    draw = np.random.default_rng(1)
    flat = draw.normal(size=(40, 2)) * (5, 1)
    turn, _ = np.linalg.qr(draw.normal(size=(7, 7)))
    made = project((flat @ turn[:2]).astype(np.float32) + 3, method="pca")
    assert (made.method, made.arranged) == ("pca", 40)
    wanted = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    found = np.linalg.norm(made.points[:, None] - made.points[None], axis=2)
    np.testing.assert_allclose(found / found.max(), wanted / wanted.max(), atol=1e-4)
    assert made.points.max() == 1.0 and made.points.min() == 0.0


@given(arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)))
@settings(deadline=None, max_examples=60)
def test_every_shape_has_points_in_the_unit_square(vectors):
    made = project(vectors, method="pca")
    assert made.points.shape == (len(vectors), 2) and made.points.dtype == np.float32
    assert ((made.points >= 0) & (made.points <= 1)).all()


def test_wrong_input_is_said():
    with pytest.raises(ShapeError, match="shape"):
        project(np.zeros(3, np.float32))
    with pytest.raises(InputError, match="NaN"):
        project(np.array([[np.nan, 1]], np.float32))
    with pytest.raises(InputError, match="UMAP needs 50"):
        project(np.zeros((3, 2), np.float32), method="umap")


@pytest.mark.slow
def test_umap_keeps_clusters_apart_and_places_what_it_did_not_arrange(monkeypatch):
    pytest.importorskip("umap")
    monkeypatch.setattr("isometry.search.projection.LANDMARKS", 300)
    vectors, labels = clusters(900)
    said: list[int] = []
    made = project(vectors, method="umap", progress=lambda done, total: said.append(done))
    again = project(vectors, method="umap")
    assert (made.method, made.arranged) == ("umap", 300) and best_method(900) == "umap"
    np.testing.assert_array_equal(made.points, again.points)
    assert said == sorted(said) and {10, 99, 100} <= set(said)
    judge = KNeighborsClassifier(5).fit(made.points[:450], labels[:450])
    assert judge.score(made.points[450:], labels[450:]) > 0.97


@pytest.fixture
def collection(tmp_path):
    vectors, labels = clusters(30)
    with Collection.create(tmp_path / "c", dimension=32, schema=pa.schema([("kind", pa.int64())])) as made:
        made.add([{"id": f"r{n}", "kind": int(label)} for n, label in enumerate(labels)], vectors)
        yield made


def test_a_kept_map_comes_back_and_a_commit_outdates_it(collection):
    collection.delete("r3")
    made = make_map(collection)
    assert made.method == "pca" and len(made.rows) == 29
    write_map(collection.path, made)
    back = read_map(collection.path)
    assert (back.key, back.version, back.method, back.arranged) == (made.key, made.version, "pca", 29)
    np.testing.assert_array_equal(back.points, made.points)
    np.testing.assert_array_equal(back.rows, made.rows)
    assert back.places(np.array([made.rows[5], 10**9, made.rows[0]])).tolist() == [5, 0]
    with collection.read() as snapshot:
        assert map_key(snapshot, "pca") == back.key != map_key(snapshot, "umap")
    collection.delete("r4")
    with collection.read() as snapshot:
        assert map_key(snapshot, "pca") != back.key
    assert collection.verify().ok


def test_any_damage_is_noticed(collection):
    write_map(collection.path, make_map(collection))
    path = collection.path / FILE
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for place in [0, 15, 16, len(whole) - 1, *draw.integers(0, len(whole), 100)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        assert read_map(collection.path) is None
    for length in (0, 5, 16, len(whole) // 2):
        path.write_bytes(whole[:length])
        assert read_map(collection.path) is None
    assert list(path.parent.iterdir()) == [path]


def test_a_map_is_made_in_a_process_of_its_own(collection, tmp_path):
    command = [sys.executable, "-m", "isometry.search.maps", str(collection.path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert read_map(tmp_path).method == "pca" and read_map(collection.path) is None

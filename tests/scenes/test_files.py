"""Splat files, cameras, meshes: round trips within the format's precision, and refusals in one sentence."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, NotFoundError
from isometry.scenes.files import read_cameras, read_splats, splat_ply_bytes, spz_bytes, write_splats
from isometry.scenes.files.limits import check_room
from isometry.scenes.files.pictures import png_bytes
from isometry.scenes.files.points import read_mesh
from isometry.scenes.files.spz import read_spz
from isometry.scenes.gaussians import SH_C0, Gaussians, concatenate, from_points, quaternions_of


def some(n: int, degree: int, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        rng.uniform(-2, 2, (n, 3)),
        rng.uniform(-6, -1, (n, 3)),
        rng.normal(size=(n, 4)) + 1e-3,
        rng.uniform(-4, 4, n),
        rng.uniform(-0.9, 0.9, (n, (degree + 1) ** 2, 3)),
    )


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 9), degree=st.integers(0, 4), seed=st.integers(0, 99))
def test_ply_is_exact(tmp_path_factory, n, degree, seed):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    before = some(n, degree, seed)
    write_splats(path, before)
    after = read_splats(path)
    for name in ("means", "log_scales", "quaternions", "logits", "harmonics"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), degree=st.integers(0, 3), seed=st.integers(0, 99))
def test_spz_is_within_its_steps(tmp_path_factory, n, degree, seed):
    path = tmp_path_factory.mktemp("spz") / "a.spz"
    before = some(n, degree, seed)
    write_splats(path, before)
    after = read_splats(path)
    assert np.abs(before.means - after.means).max() <= 2**-20
    assert np.abs(before.log_scales - after.log_scales).max() <= 1 / 32 + 1e-6
    assert np.abs(before.opacities - after.opacities).max() <= 0.5 / 255 + 1e-6
    assert np.abs(before.harmonics[:, 0] - after.harmonics[:, 0]).max() <= 0.5 / 255 / 0.15 + 1e-6
    if degree:
        assert np.abs(before.harmonics[:, 1:] - after.harmonics[:, 1:]).max() <= 0.5 / 128 + 1e-6
    np.testing.assert_allclose(before.rotations(), after.rotations(), atol=4e-3)


def test_ply_columns_are_found_by_name_in_any_order(tmp_path):
    names = ["opacity", "rot_3", "rot_2", "rot_1", "rot_0", "z", "y", "x", "scale_2", "scale_1", "scale_0"]
    names += ["f_dc_2", "f_dc_1", "f_dc_0", "unknown"] + [f"f_rest_{i}" for i in range(9)]
    values = (np.arange(len(names)) + 1).astype(">f8")
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 1\n" + "".join(f"property double {n}\n" for n in names)
    (tmp_path / "a.ply").write_bytes((header + "end_header\n").encode() + values.tobytes())
    g = read_splats(tmp_path / "a.ply")
    assert g.logits[0] == 1 and g.means[0].tolist() == [8, 7, 6] and g.quaternions[0].tolist() == [5, 4, 3, 2]
    assert g.degree == 1
    assert g.harmonics[0, 1].tolist() == [16, 19, 22], "f_rest goes channel by channel"


def test_packed_ply(tmp_path):
    chunk = ["min_x", "min_y", "min_z", "max_x", "max_y", "max_z"]
    chunk += [f"{m}_scale_{a}" for m in ("min", "max") for a in "xyz"]
    header = ["ply", "format binary_little_endian 1.0", "element chunk 1", *[f"property float {c}" for c in chunk]]
    header += ["element vertex 2", *[f"property uint packed_{w}" for w in ("position", "rotation", "scale", "color")]]
    limits = struct.pack("<12f", -1, -2, -3, 1, 2, 3, -5, -5, -5, -1, -1, -1)
    full = 0xFFFFFFFF
    # second splat: all fields at their upper end; rotation with w largest and the others about zero
    middle = (512 << 20) | (512 << 10) | 512
    body = struct.pack("<4I", 0, middle, 0, 0x80) + struct.pack("<4I", full, (3 << 30) | middle, full, full)
    (tmp_path / "a.compressed.ply").write_bytes("\n".join([*header, "end_header\n"]).encode() + limits + body)
    g = read_splats(tmp_path / "a.compressed.ply")
    np.testing.assert_allclose(g.means, [[-1, -2, -3], [1, 2, 3]], atol=1e-6)
    np.testing.assert_allclose(g.log_scales, [[-5] * 3, [-1] * 3], atol=1e-6)
    np.testing.assert_allclose(np.abs(g.quaternions), [[1, 0, 0, 0], [0, 0, 0, 1]], atol=2e-3)
    np.testing.assert_allclose(g.base_colours, [[0, 0, 0], [1, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(g.opacities, [128 / 255, 1], atol=1e-5)


def test_spz_version_2_and_4_bytes(tmp_path):
    import zstandard

    position = bytes([0, 0, 0xFF, 0, 8, 0, 0, 0, 0])  # -65536, 2048 and 0 of 4096ths
    rest = [bytes([255]), bytes([255, 0, 128]), bytes([160, 160, 160])]
    v2 = struct.pack("<IIIBBBB", 0x5053474E, 2, 1, 0, 12, 0, 0) + position + b"".join(rest) + bytes([255, 128, 128])
    (tmp_path / "a.spz").write_bytes(gzip.compress(v2))
    g = read_spz(tmp_path / "a.spz")
    assert g.means.tolist() == [[-16.0, 0.5, 0.0]]
    np.testing.assert_allclose(g.scales, 1.0)
    np.testing.assert_allclose(g.harmonics[0, 0, 0], 0.5 / 0.15, rtol=1e-6)
    np.testing.assert_allclose(g.quaternions[0], [0, 1, 0, 0], atol=5e-3)

    streams = [position, *rest, struct.pack("<I", (3 << 30))]
    packed = [zstandard.ZstdCompressor().compress(s) for s in streams]
    head = struct.pack("<IIIBBBBI12x", 0x5053474E, 4, 1, 0, 12, 0, 5, 32)
    table = b"".join(struct.pack("<QQ", len(p), len(s)) for p, s in zip(packed, streams, strict=True))
    (tmp_path / "b.spz").write_bytes(head + table + b"".join(packed))
    h = read_spz(tmp_path / "b.spz")
    assert h.means.tolist() == g.means.tolist() and h.quaternions[0].tolist() == [1, 0, 0, 0]
    (tmp_path / "c.spz").write_bytes((head + table + b"".join(packed))[:-3])
    with pytest.raises(InputError, match="cut off"):
        read_spz(tmp_path / "c.spz")


def test_splat_layout(tmp_path):
    row = struct.pack("<6f8B", 1, 2, 3, 0.1, 0.2, 0.3, 255, 0, 128, 255, 255, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(row)
    g = read_splats(tmp_path / "a.splat")
    assert g.means.tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(g.scales, [[0.1, 0.2, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(g.harmonics[0, 0] * SH_C0 + 0.5, [1, 0, 128 / 255], atol=1e-6)
    (tmp_path / "b.splat").write_bytes(row[:-1])
    with pytest.raises(InputError, match="31 bytes are no whole number"):
        read_splats(tmp_path / "b.splat")


def test_cut_off_nan_and_hostile_files_are_refused(tmp_path):
    good = splat_ply_bytes(some(3, 1))
    path = tmp_path / "a.ply"
    path.write_bytes(good[:-1])
    with pytest.raises(InputError, match="cut off"):
        read_splats(path)
    path.write_bytes(good.replace(b"vertex 3", b"vertex 4000000000"))
    with pytest.raises(InputError, match="4000000000"):
        read_splats(path)
    broken = some(3, 1)
    broken.means[1, 2] = np.nan
    path.write_bytes(splat_ply_bytes(broken))
    with pytest.raises(InputError, match="splat 2: means"):
        read_splats(path)
    path.write_bytes(b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(InputError, match="lacks y, z"):
        read_splats(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="not a splat file"):
        read_splats(path)
    with pytest.raises(NotFoundError, match="no splat file"):
        read_splats(tmp_path / "absent.ply")
    with pytest.raises(InputError, match=r"5,000,000 splats .* cut it to"):
        check_room(5_000_000, "big.ply", harmonics=16, budget=10**9)
    spz = tmp_path / "a.spz"
    spz.write_bytes(gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, 10**6, 0, 12, 0, 0) + bytes(100)))
    with pytest.raises(InputError, match="promises 1000000 splats"):
        read_splats(spz)
    spz.write_bytes(spz_bytes(some(50, 0))[:-40])
    with pytest.raises(InputError, match=r"cut off|promises|damaged"):
        read_splats(spz)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_no_cut_gives_a_traceback(tmp_path, cut):
    for name, data in (("a.ply", splat_ply_bytes(some(2, 0))), ("a.spz", spz_bytes(some(2, 0)))):
        (tmp_path / name).write_bytes(data[: min(cut, len(data) - 1)])
        with pytest.raises(InputError):
            read_splats(tmp_path / name)


def _pictures(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(png_bytes(np.zeros((4, 6, 3))))


def test_colmap_text_and_binary_agree(tmp_path):
    q, t = [0.8, 0.0, 0.6, 0.0], [1.0, 2.0, 3.0]
    for kind in ("text", "binary"):
        _pictures(tmp_path / kind / "images", ["b.png", "a.png"])
        (tmp_path / kind / "sparse" / "0").mkdir(parents=True)
    model = tmp_path / "text" / "sparse" / "0"
    model.joinpath("cameras.txt").write_text("# head\n1 OPENCV 6 4 5 6 3 2 .1 .2 .3 .4\n")
    pose = " ".join(map(str, q + t))
    model.joinpath("images.txt").write_text(f"1 {pose} 1 b.png\n\n2 {pose} 1 a.png\n1 2 3\n")
    model.joinpath("points3D.txt").write_text("1 1 2 3 255 0 51 0.5 1 0\n")
    model = tmp_path / "binary" / "sparse" / "0"
    model.joinpath("cameras.bin").write_bytes(struct.pack("<QiiQQ8d", 1, 1, 4, 6, 4, 5, 6, 3, 2, 0.1, 0.2, 0.3, 0.4))
    images = struct.pack("<Q", 2)
    for number, name in ((1, b"b.png"), (2, b"a.png")):
        images += struct.pack("<i7di", number, *q, *t, 1) + name + b"\0" + struct.pack("<Q", 0)
    model.joinpath("images.bin").write_bytes(images)
    point = struct.pack("<QQ3d3BdQii", 1, 1, 1, 2, 3, 255, 0, 51, 0.5, 1, 1, 0)
    model.joinpath("points3D.bin").write_bytes(point)
    a, b = read_cameras(tmp_path / "text"), read_cameras(tmp_path / "binary")
    assert [c.name for c in a.cameras] == ["a.png", "b.png"] == [c.name for c in b.cameras]
    for x, y in zip(a.cameras, b.cameras, strict=True):
        np.testing.assert_allclose(x.rotation, y.rotation)
        assert x.distortion == y.distortion == (0.1, 0.2, 0.3, 0.4) and (x.fx, x.fy) == (5, 6)
        np.testing.assert_allclose(x.rotation @ x.position + t, 0, atol=1e-12)
    np.testing.assert_allclose(a.points, b.points)
    np.testing.assert_allclose(a.colours, [[1, 0, 0.2]])
    model.joinpath("images.bin").write_bytes(images[:-9])
    with pytest.raises(InputError, match="cut off"):
        read_cameras(tmp_path / "binary")
    (tmp_path / "text" / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"picture 'a.png': there is no such file"):
        read_cameras(tmp_path / "text")
    (tmp_path / "text" / "sparse" / "0" / "cameras.txt").write_text("1 OPENCV_FISHEYE 6 4 5 6 3 2 0 0 0 0\n")
    with pytest.raises(InputError, match="undistort"):
        read_cameras(tmp_path / "text")


def test_transforms_turn_the_axes(tmp_path):
    _pictures(tmp_path / "images", ["a.png"])
    frame = {"file_path": "images/a.png", "transform_matrix": np.eye(4).tolist()}
    document = {"camera_angle_x": np.pi / 2, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    (camera,) = read_cameras(tmp_path).cameras
    assert (camera.width, camera.height) == (6, 4)
    np.testing.assert_allclose([camera.fx, camera.cx, camera.cy], [3, 3, 2])
    np.testing.assert_allclose(camera.rotation, np.diag([1, -1, -1]), atol=1e-12)  # y up and looking along -z
    for change, message in (
        ({"transform_matrix": [[1, 2]]}, "4 rows of 4"),
        ({"file_path": "images/none.png"}, "there is no picture"),
        ({"transform_matrix": np.zeros((4, 4)).tolist()}, "not a rotation"),
        ({"fl_x": "wide"}, "must be a number"),
    ):
        (tmp_path / "transforms.json").write_text(json.dumps({**document, "frames": [{**frame, **change}]}))
        with pytest.raises(InputError, match=message):
            read_cameras(tmp_path)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_cameras(tmp_path)


def test_real_capture(shared_data):
    folder = shared_data / "scene" / "fox"
    if not folder.is_dir():
        pytest.skip("the fox capture is absent")
    cameras = read_cameras(folder).cameras
    assert len(cameras) == 50
    centre = np.mean([camera.position for camera in cameras], axis=0)
    looks = np.mean([camera.rotation[2] @ (centre - camera.position) > -4 for camera in cameras])
    assert looks == 1.0


def test_meshes(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1 2/2 3/3 4/4\n")
    vertices, colours, triangles = read_mesh(tmp_path / "a.obj")
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]] and colours[1].tolist() == [1, 0, 0]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 4\n"
    header += "".join(f"property float {a}\n" for a in "xyz") + "".join(
        f"property uchar {a}\n" for a in ("red", "green", "blue")
    )
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"".join(struct.pack("<3f3B", *v, 255, 0, 0) for v in vertices) + struct.pack("<B4i", 4, 0, 1, 2, 3)
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    _, colours, again = read_mesh(tmp_path / "a.ply")
    assert again.tolist() == triangles.tolist() and colours[0].tolist() == [1, 0, 0]
    (tmp_path / "a.obj").write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="names vertex 2 of 1"):
        read_mesh(tmp_path / "a.obj")


def test_gaussians_from_points_and_covariances():
    g = from_points(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2.0]]), np.full((4, 3), 0.25))
    np.testing.assert_allclose(g.scales[0], np.sqrt((1 + 1 + 4) / 3), rtol=1e-6)
    np.testing.assert_allclose(g.opacities, 0.1, rtol=1e-6)
    np.testing.assert_allclose(g.base_colours, 0.25, rtol=1e-6)
    many = concatenate([g, some(5, 2)])
    assert len(many) == 9 and many.degree == 2
    np.testing.assert_allclose(
        many.rotations() @ many.rotations().transpose(0, 2, 1), np.tile(np.eye(3), (9, 1, 1)), atol=1e-6
    )
    q = quaternions_of(many.rotations())
    np.testing.assert_allclose(
        Gaussians(many.means, many.log_scales, q, many.logits, many.harmonics).rotations(), many.rotations(), atol=1e-6
    )
    c = many.covariances()[6]
    R, S = many.rotations()[6].astype(float), np.diag(many.scales[6].astype(float) ** 2)
    np.testing.assert_allclose((R @ S @ R.T)[np.triu_indices(3)], c, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(g.scaled(2).scales, g.scales * 2, rtol=1e-6)
    with pytest.raises(InputError, match="at least two"):
        from_points(np.zeros((1, 3)), np.zeros((1, 3)))

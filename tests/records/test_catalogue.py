"""Named data sets are found where the documentation says, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from isometry.errors import NotFoundError
from isometry.records import catalogue, dataset_path, known_datasets, open_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("ISOMETRY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_bundled_sample_is_found_by_each_of_its_names():
    for name in ("arxiv-small", "arxiv-small.parquet", "arxiv/arxiv-small", "arxiv/arxiv-small.parquet"):
        assert dataset_path(name) == ROOT / "examples" / "arxiv-small.parquet"
    assert known_datasets()["arxiv/arxiv-small.parquet"] == ROOT / "examples" / "arxiv-small.parquet"
    assert known_datasets()["text/stsb.parquet"] is None


def test_the_named_folder_comes_before_the_cache_and_the_bundle(monkeypatch, tmp_path):
    cached = tmp_path / "cache" / "isometry" / "arxiv" / "arxiv-small.parquet"
    named = tmp_path / "data" / "arxiv-small.parquet"
    for path in (cached, named):
        path.parent.mkdir(parents=True)
        path.touch()
    assert dataset_path("arxiv-small") == cached
    monkeypatch.setenv("ISOMETRY_DATA", str(tmp_path / "data"))
    assert dataset_path("arxiv-small") == named


def test_an_installed_package_carries_its_examples_inside(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "isometry"
    (package / "examples").mkdir(parents=True)
    (package / "examples" / "arxiv-small.parquet").touch()
    monkeypatch.setattr(catalogue, "_PACKAGE", package)
    assert dataset_path("arxiv-small") == package / "examples" / "arxiv-small.parquet"


def test_unknown_and_absent_names_are_told_apart():
    with pytest.raises(NotFoundError, match=r"did you mean 'arxiv-small'.*text/stsb.parquet"):
        dataset_path("arxiv-smal")
    with pytest.raises(NotFoundError, match=r"not on this machine.*ISOMETRY_DATA.*here are arxiv/arxiv-small.parquet"):
        dataset_path("stsb")
    for hostile in ("../../etc/passwd", "", "/etc/passwd", "arxiv/../arxiv/arxiv.parquet"):
        with pytest.raises(NotFoundError, match="no data set"):
            dataset_path(hostile)


def test_short_names_are_unique():
    for name in catalogue.KNOWN:
        short = name.split("/", 1)[1].split(".", 1)[0]
        same = [known for known in catalogue.KNOWN if known.split("/", 1)[1].split(".", 1)[0] == short]
        if len(same) > 1:
            with pytest.raises(NotFoundError, match="several data sets"):
                dataset_path(short)


def test_known_names_are_the_files_of_the_shared_data(shared_data, monkeypatch):
    monkeypatch.setenv("ISOMETRY_DATA", str(shared_data))
    for name, path in known_datasets().items():
        assert path == shared_data / name
    files = {str(path.relative_to(shared_data)) for path in shared_data.glob("*/*.*") if "licences" not in path.parts}
    assert files == {name for name in catalogue.KNOWN if name != "scene/fox"}


def test_the_bundled_sample_is_what_its_readme_says():
    table = pq.read_table(dataset_path("arxiv-small"))
    readme = (ROOT / "examples" / "README.md").read_text()
    rows = re.search(r"([\d,]+) arXiv papers, first posted between (\d+) and (\d+)", readme)
    years = pc.min_max(pc.cast(pc.utf8_slice_codeunits(table["created"], 0, 4), "int64")).as_py()
    assert rows and (int(rows[1].replace(",", "")), int(rows[2]), int(rows[3])) == (
        table.num_rows,
        years["min"],
        years["max"],
    )
    documented = re.findall(r"`(\w+)`(?=[^\n]*\|[^\n]*\|)", readme)
    assert documented == table.column_names
    source = open_source(dataset_path("arxiv-small"), types={"created": "date"}, lists=["categories"])
    assert source.check().rows == 5000
    assert str(source.schema.field("created").type) == "date32[day]"
    assert str(source.schema.field("categories").type) == "list<item: string>"

"""Named data sets: where each one lies on this machine.

A name is looked for in the folder `$ISOMETRY_DATA`, then in the user's cache (`$XDG_CACHE_HOME/isometry`, by default
`~/.cache/isometry`), then among the small files that come with Isometry.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from isometry.errors import NotFoundError

KNOWN = (
    "arxiv/arxiv-small.parquet", "arxiv/arxiv.parquet", "arxiv/seed-papers.parquet",
    "graphs/acm-hin.npz", "graphs/arxiv-coauthor-names.txt.zst", "graphs/arxiv-coauthor.npz", "graphs/arxiv-hin.npz",
    "graphs/blogcatalog.npz", "graphs/dblp.npz", "graphs/facebook-pages.npz", "graphs/planetoid-citeseer.npz",
    "graphs/planetoid-cora.npz", "graphs/planetoid-pubmed.npz", "graphs/ppi.npz",
    "images/camvid.parquet", "images/cifar10.parquet", "images/clothing.parquet", "images/composed-queries.parquet",
    "images/cub-attributes.npz", "images/emoji-images.parquet", "images/emoji.parquet",
    "images/flickr8k-captions.parquet", "images/omniglot.npz",
    "scene/fox",
    "tables/adult.parquet", "tables/arxiv-fields.parquet", "tables/esco-occupations.parquet", "tables/frappe.parquet",
    "tables/lastfm-trust.parquet", "tables/lastfm.parquet",
    "text/classification.parquet", "text/csfcube-papers.parquet", "text/csfcube-qrels.parquet",
    "text/multi30k.parquet", "text/paraphrase.parquet", "text/retrieval-docs.parquet", "text/retrieval-qrels.parquet",
    "text/retrieval-queries.parquet", "text/sick.parquet", "text/snli-devtest.parquet", "text/sts12-15.parquet",
    "text/stsb-multi.parquet", "text/stsb.parquet", "text/tatoeba.parquet", "text/trecqa.parquet",
    "text/wikiqa.parquet", "text/xquad.parquet",
    "words/analogies.parquet", "words/categories.parquet", "words/classic-books.tsv", "words/classic-books.txt.zst",
    "words/query-typos.parquet", "words/similarity.parquet", "words/typos.parquet",
    "words/wikitext2-valid-test.txt.zst", "words/wsi.parquet",
)  # fmt: skip

_PACKAGE = Path(__file__).resolve().parents[1]


def known_datasets() -> dict[str, Path | None]:
    """Every known name with its place on this machine, None where it is not there."""
    return {name: _found(name) for name in KNOWN}


def dataset_path(name: str) -> Path:
    """The file (or folder) of a named data set.

    Args:
        name: as in `known_datasets()` ('arxiv/arxiv-small.parquet'), without the folder, or without the suffix too
            ('arxiv-small') where only one file is called so.

    Raises:
        NotFoundError: no data set of that name, or none on this machine; the message lists the names.
    """
    asked = name.strip("/")
    matches = [known for known in KNOWN if asked in _spellings(known)]
    if not matches:
        near = difflib.get_close_matches(asked, {spelling for known in KNOWN for spelling in _spellings(known)}, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise NotFoundError(f"no data set '{name}'; {hint}the known ones are {', '.join(KNOWN)}")
    if len(matches) > 1:
        raise NotFoundError(f"'{name}' is the name of several data sets: say which of {', '.join(matches)}")
    path = _found(matches[0])
    if path is None:
        here = [known for known, place in known_datasets().items() if place is not None]
        raise NotFoundError(
            f"the data set '{matches[0]}' is not on this machine: put it under the folder that ISOMETRY_DATA names, "
            f"or under {_cache()} (here are {', '.join(here) or 'none'})"
        )
    return path


def _spellings(known: str) -> set[str]:
    file = known.split("/", 1)[1]
    return {known, file, known.split(".", 1)[0], file.split(".", 1)[0]}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isometry"


def _found(known: str) -> Path | None:
    given = os.environ.get("ISOMETRY_DATA")
    # An ordinary install carries the examples inside the package; a checkout has them at its root.
    folders = [*([Path(given)] if given else []), _cache(), _PACKAGE / "examples", _PACKAGE.parents[1] / "examples"]
    places = (folder / spelling for folder in folders for spelling in (known, known.split("/", 1)[1]))
    return next((place for place in places if place.exists()), None)

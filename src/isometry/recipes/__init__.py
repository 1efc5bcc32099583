"""One recipe per paper: a file named by its slug, holding `RECIPE`. The catalogue is this `__all__`."""

from __future__ import annotations

import difflib
import importlib

from isometry.errors import NotFoundError
from isometry.recipes._base import Recipe

__all__ = [
    "2dmse",
    "bebr",
    "bidr",
    "fanns",
    "fastrp",
    "gistembed",
    "kalm",
    "lg_anna",
    "mmteb",
    "muvera",
    "nv_embed",
    "pooling",
    "self_positioning",
    "sitemb",
    "starbucks",
    "vr_gs",
]

NAMES: tuple[str, ...] = tuple(__all__)


def load_recipe(name: str) -> Recipe:
    """The recipe of that name; a wrong one is answered with the nearest."""
    slug = name.replace("-", "_")
    if slug not in NAMES:
        near = difflib.get_close_matches(slug, NAMES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "'isometry recipes' lists them"
        raise NotFoundError(f"no recipe '{name}'; {hint}")
    return importlib.import_module(f"isometry.recipes.{slug}").RECIPE


def catalogue() -> list[Recipe]:
    """Every recipe, in the order of the papers' numbers."""
    return sorted((load_recipe(name) for name in NAMES), key=lambda recipe: recipe.paper)

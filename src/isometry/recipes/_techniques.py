"""The page "Which technique helped?": every recipe's evidence side by side, written from the files alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isometry.evaluation import ClaimLine, Evidence
from isometry.evaluation.report import markdown_table
from isometry.recipes import catalogue
from isometry.recipes._base import Recipe

_ORDER = {"supports": 0, "inconclusive": 1, "contradicts": 2}
_HEAD = """# Which technique helped?

Written by `isometry recipes --page` from the files of `evidence/`, which `isometry prove` writes; a test compares the two.
No figure here is typed. The tables show the first claim of every paper that was measured at laptop scale or above; further
down are all of them.

- **Effect** is the mean paired difference over seeds, positive when the technique is better, with its 95 % interval;
  **relative** to the baseline's own figure. The baseline ran on the same data in the same run, or is a published figure.
- Rows under one heading were measured on the same data set and can be set beside each other, as far as metric and baseline
  are the same. Rows under different headings cannot.
- **helped**: the effect is above what the claim asks for (p < 0.05 after Holm's correction over the recipe's claims). **did
  not help**: it is below. **open**: the seeds do not decide it.
  [How a verdict comes about](recipes.md#how-a-verdict-comes-about).
- **Cost** is the whole proof, all arms and seeds, on the machine named with it; absolute times say little.
- A laptop proof tests a mechanism on small models and data. It neither confirms nor refutes figures that a paper reports at
  its own scale.
"""
_WORDS = {"supports": "helped", "inconclusive": "open", "contradicts": "did not help"}


PAGE = Path("docs") / "which-technique-helped.md"


def techniques_page(folder: Path) -> str:
    """Markdown from a folder of evidence; of a recipe's scales the largest that was run, tiny ones left out."""
    measured: list[tuple[Recipe, Evidence]] = []
    absent: list[Recipe] = []
    for recipe in catalogue():
        files = [folder / f"{recipe.name}.{scale}.json" for scale in ("full", "laptop")]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            absent.append(recipe)
        else:
            measured.append((recipe, Evidence.load(found)))
    parts = [_HEAD, _counts([one for _, one in measured]), ""]
    for data in sorted({_data_set(one) for _, one in measured}):
        rows = [(recipe, one) for recipe, one in measured if _data_set(one) == data]
        parts += [f"## On {data}", "", _main_table(rows), ""]
    parts += ["## Every claim", ""]
    for recipe, one in measured:
        parts += _section(recipe, one)
    if absent:
        parts += ["## Not measured yet at laptop scale", ""]
        parts += [f"- `{recipe.name}` (paper {recipe.paper}): {recipe.claim}" for recipe in absent]
        parts += [""]
    return "\n".join(parts)


def _counts(found: Sequence[Evidence]) -> str:
    claims: list[str] = [line.verdict for one in found for line in one.claims]
    told = ", ".join(f"{claims.count(name)} {_WORDS[name]}" for name in _ORDER)
    return f"{len(found)} recipes, {len(claims)} claims: {told}."


def _main_table(rows: Sequence[tuple[Recipe, Evidence]]) -> str:
    header = ["technique", "verdict", "against", "metric", "effect", "95 % interval", "relative", "cost"]
    ordered = sorted(rows, key=lambda row: (_ORDER[row[1].verdict], row[0].paper))
    cells = []
    for recipe, one in ordered:
        line = one.claims[0]
        name = f"{line.claim.treatment} ([{recipe.name}](#{recipe.name}), paper {recipe.paper})"
        cost = f"{one.seconds / 60:.0f} min, {one.peak_mb:,.0f} MB"
        words = [name, _WORDS[line.verdict], line.claim.baseline, line.claim.metric]
        cells.append([*words, *_figures(line), cost])
    return markdown_table(header, cells, words=4)


def _section(recipe: Recipe, one: Evidence) -> list[str]:
    header = [
        "claim",
        "verdict",
        "metric",
        "technique",
        "against",
        "effect",
        "95 % interval",
        "relative",
        "to beat",
        "p",
    ]
    rows = []
    for line in one.claims:
        claim = line.claim
        words = [claim.text, _WORDS[line.verdict], claim.metric, claim.treatment, claim.baseline]
        rows.append([*words, *_figures(line), f"{claim.minimal_effect:+g}", f"{line.p_holm:.2g}"])
    facts = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in one.measured.items())
    machine = f"{one.machine.get('cores', '?')} cores of {one.machine.get('cpu', 'an unknown processor')}"
    return [
        f'<a id="{recipe.name}"></a>',
        "",
        f"### {recipe.name}: {recipe.title} (paper {recipe.paper})",
        "",
        recipe.claim,
        "",
        f"{one.scale}: {one.data}; {len(one.seeds)} seeds; {one.seconds:,.0f} s and at most {one.peak_mb:,.0f} MB on "
        f"{machine}. "
        f"`isometry prove {recipe.name} --scale {one.scale}`",
        "",
        markdown_table(header, rows, words=5),
        "",
        *([f"Also measured: {facts}.", ""] if facts else []),
    ]


def _figures(line: ClaimLine) -> list[str]:
    """Effect, interval, and effect relative to the baseline where that is a share above zero."""
    baseline = float(np.mean(line.values[line.claim.baseline]))
    low, high = line.interval
    relative = f"{100 * line.effect / baseline:+.1f} %" if baseline > 0.01 and "log" not in line.claim.metric else "–"
    return [f"{line.effect:+.4f}", f"[{low:+.4f}, {high:+.4f}]", relative]


def _data_set(one: Evidence) -> str:
    """The data set's name out of the words that a recipe describes its data with: no counts, no details."""
    name = re.split(r"[:;,]| and ", one.data)[0]
    return re.sub(r"^[\d,. ]+(?:\w+ of )?", "", name).strip() or one.data

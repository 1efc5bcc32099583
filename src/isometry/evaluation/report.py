"""A report of retrieval runs as one self-contained HTML file or as Markdown with the plots inlined.

The same results give the same bytes: no date, no random id, and no library's name and version in the pictures.
Text and lines of the plots are a middle grey on a transparent ground, so that they can be read in light and in dark.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.plots import COLOURS, GREY, figure, legend, png
from isometry.evaluation.retrieval import MetricComparison, RetrievalResult, compare_runs

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; white-space: nowrap }
td, th { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8886 }
td:first-child, th:first-child { text-align: left } img { max-width: 100% } .wide { overflow-x: auto }
"""


def write_report(path: str | Path, results: Sequence[RetrievalResult], facts: Mapping[str, Any] | None = None) -> Path:
    """Write a report of one or more runs; the first is compared with the second where there are two.

    Args:
        path: ends in .html or .md.
        results: runs on the same data.
        facts: what else to say, name to value.
    Raises:
        InputError: another suffix, or no run.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".md"):
        raise InputError(f"a report is written as .html or .md, not as {path.name}")
    if not results:
        raise InputError("a report needs at least one run")
    comparisons = (
        compare_runs(results[0], results[1]) if len(results) == 2 and len(results[0].scores.queries) > 1 else []
    )
    render = _html if path.suffix.lower() == ".html" else _markdown
    write_atomically(path, render(results, comparisons, dict(facts or {})).encode())
    return path


def metric_table(results: Sequence[RetrievalResult]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a run, `value [low, high]` a metric."""
    metrics = list(results[0].intervals)
    rows = [
        [one.name, *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in (one.intervals[m] for m in metrics))]
        for one in results
    ]
    return ["system", *metrics], rows


def comparison_table(comparisons: Sequence[MetricComparison]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a metric."""
    rows = []
    for one in comparisons:
        effect, low, high, _ = one.comparison
        rows.append([one.metric, f"{effect:+.4f}", f"[{low:+.4f}, {high:+.4f}]", f"{one.p_holm:.2g}"])
    return ["metric", "difference", "95 % interval", "p (Holm)"], rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns stand at the left, the others, figures, at the right."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _markdown(
    results: Sequence[RetrievalResult], comparisons: Sequence[MetricComparison], facts: dict[str, Any]
) -> str:
    parts = [f"# Retrieval on {results[0].data}", _said(results)]
    parts += [f"- {name}: {value}" for name, value in facts.items()]
    parts += ["", markdown_table(*metric_table(results)), "", f"![metrics]({_bars(results)})", ""]
    if comparisons:
        parts += [f"## {results[0].name} against {results[1].name}", ""]
        parts += [markdown_table(*comparison_table(comparisons)), "", f"![differences]({_differences(results)})", ""]
    return "\n".join(parts)


def _html(results: Sequence[RetrievalResult], comparisons: Sequence[MetricComparison], facts: dict[str, Any]) -> str:
    title = html.escape(f"Retrieval on {results[0].data}")
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8">']
    parts += ['<meta name="viewport" content="width=device-width, initial-scale=1">']
    parts += [f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"]
    parts += [f"<p>{html.escape(_said(results))}</p>", html_facts(facts), html_table(*metric_table(results))]
    parts += [f'<p><img alt="value of each metric with its 95 % interval" src="{_bars(results)}"></p>']
    if comparisons:
        against = html.escape(f"{results[0].name} against {results[1].name}")
        parts += [f"<h2>{against}</h2>", html_table(*comparison_table(comparisons))]
        parts += [f'<p><img alt="difference of each query, sorted" src="{_differences(results)}"></p>']
    return "\n".join([*parts, "</body></html>\n"])


def _said(results: Sequence[RetrievalResult]) -> str:
    scores = results[0].scores
    left_out = f"; {scores.left_out} without a relevant document left out" if scores.left_out else ""
    return f"{len(scores.queries)} queries{left_out}. Intervals are 95 % bootstrap (BCa) over queries."


def html_facts(facts: Mapping[str, Any]) -> str:
    rows = [f"<li>{html.escape(str(name))}: {html.escape(str(value))}</li>" for name, value in facts.items()]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _bars(results: Sequence[RetrievalResult]) -> str:
    """Bars of every metric, one colour a run, with intervals: a data address of a PNG."""
    metrics = list(results[0].intervals)
    drawing, axes = figure(1.2 + 1.1 * len(metrics), 3.2)
    width = 0.8 / len(results)
    for i, one in enumerate(results):
        mean, low, high = np.array([one.intervals[metric] for metric in metrics]).T
        places = np.arange(len(metrics)) + (i - (len(results) - 1) / 2) * width
        axes.bar(places, mean, width * 0.9, color=COLOURS[i % len(COLOURS)], label=one.name)
        # an interval of a skewed metric need not hold the mean by symmetry, but it always lies around it
        spread = np.maximum([mean - low, high - mean], 0)
        axes.errorbar(places, mean, yerr=spread, fmt="none", ecolor=GREY, capsize=3)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylim(0, 1)
    legend(axes)
    return png(drawing)


def _differences(results: Sequence[RetrievalResult]) -> str:
    """Per-query differences of the first metric, largest first: a data address of a PNG."""
    metric = next(name for name in results[0].scores.values if name in results[1].scores.values)
    difference = np.sort(results[0].scores.values[metric] - results[1].scores.values[metric])[::-1]
    drawing, axes = figure(7, 3)
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in difference]
    axes.bar(range(len(difference)), difference, width=1.0, color=colours)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("queries, by difference")
    axes.set_ylabel(f"difference in {metric}")
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    axes.set_title(f"{better} better, {worse} worse, {len(difference) - better - worse} equal", color=GREY, fontsize=10)
    return png(drawing)

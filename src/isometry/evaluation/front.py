"""Measured trade-offs as a picture and as a page to look around in: recall against latency, memory and disk."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.plots import COLOURS, GREY, figure, legend, png

_SIDES = (
    ("p95_ms", "95 % of queries answered within, ms"),
    ("bytes_per_vector", "bytes in memory for each vector"),
    ("disk_mb", "MB on disk"),
)


def write_front(report: Mapping[str, Any], folder: str | Path) -> tuple[Path, Path]:
    """Write `front.png` and `front.html` (one file, no network) of what `isometry tune --json` prints; returns both."""
    folder = Path(folder)
    picture, page = folder / "front.png", folder / "front.html"
    write_atomically(picture, base64.b64decode(draw_front(report).partition(",")[2]))
    write_atomically(page, front_page(report).encode())
    return picture, page


def draw_front(report: Mapping[str, Any]) -> str:
    """Recall against p95 and against memory, the front joined by a line: a data address of a PNG."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    final = [one for one in report["measured"] if one["final"]]
    front = {one["label"] for one in report["front"]}
    chosen = (report.get("recommended") or {}).get("label")
    drawing, first = figure(11, 4.2)
    drawing.delaxes(first)
    for place, (side, name) in enumerate(_SIDES[:2]):
        axes = drawing.add_subplot(1, 2, place + 1)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=GREY, which="both")
        for edge, spine in axes.spines.items():
            spine.set_color(GREY)
            spine.set_visible(edge in ("left", "bottom"))
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        for i, kind in enumerate(sorted({_kind(one) for one in final})):
            some = [one for one in final if _kind(one) == kind]
            axes.scatter([one[side] for one in some], [one["recall"] for one in some], s=24, label=kind,
                         color=COLOURS[i % len(COLOURS)], alpha=0.9)  # fmt: skip
        steps = _staircase([(one[side], one["recall"]) for one in final if one["label"] in front])
        axes.plot([x for x, _ in steps], [y for _, y in steps], color=GREY, linewidth=0.9, drawstyle="steps-post")
        for one in final:
            if one["label"] == chosen:
                axes.scatter([one[side]], [one["recall"]], s=130, facecolors="none", edgecolors=GREY, linewidths=1.8,
                             label="recommended")  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=name, ylabel=f"recall of the exact {report['k']} best")
        if place == 1:
            legend(axes)
    return png(drawing)


def front_page(report: Mapping[str, Any]) -> str:
    """The page: a chart with a choice of axes and limits to move, and a table of everything measured."""
    title = html.escape(f"What a search of {report['collection']} can cost")
    data = json.dumps(
        {
            "points": [_point(one, report) for one in report["measured"]],
            "sides": [list(side) for side in _SIDES],
            "k": report["k"],
            "budget": report["budget"],
        },
        ensure_ascii=True,
    ).replace("<", "\\u003c")
    said = html.escape(
        f"{report['records']:,} records; {report['queries']}. Truth: {report['truth']}. Points on a dark rim are on the front:"
        " nothing measured beats them in recall, latency, memory and disk together. Sizes are scaled to all records; where a"
        " candidate was measured on fewer, the table says so."
    )
    page = Path(__file__).with_name("front.html").read_text(encoding="utf-8")
    return page.replace("@TITLE", title).replace("@SAID", said).replace("@DATA", data)


def _point(one: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "label",
        "recall",
        "p50_ms",
        "p95_ms",
        "search_p95_ms",
        "bytes_per_vector",
        "ram_mb",
        "disk_mb",
        "rows",
        "final",
    )
    front = any(other["label"] == one["label"] for other in report["front"])
    chosen = (report.get("recommended") or {}).get("label") == one["label"]
    low, high = one["interval"]
    return {name: one[name] for name in kept} | {
        "kind": _kind(one), "front": front, "chosen": chosen, "low": low, "high": high,
    }  # fmt: skip


def _kind(one: Mapping[str, Any]) -> str:
    candidate = one["candidate"]
    cut = candidate["layers"] is not None or candidate["dimensions"] is not None
    return "smaller encoder" if cut else str(candidate["plan"]["index"])


def _staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The best y up to each x."""
    best, found = float("-inf"), []
    for x, y in sorted(points):
        if y > best:
            best = y
            found.append((x, y))
    return found

"""Drawings for reports, as data addresses of PNGs: middle grey on a transparent ground, for light and for dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isometry.errors import MissingExtraError
from isometry.evaluation.ranking import CriticalDifference, groups_alike

GREY, COLOURS = "#808080", ("#3b7dd8", "#e08214", "#4dac6a", "#b35ac4", "#c9555a")


def figure(width: float, height: float) -> tuple[Any, Any]:
    """A drawing and its axes, inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a report with plots", "eval") from error
    drawing = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = drawing.add_subplot()
    axes.patch.set_alpha(0)
    drawing.patch.set_alpha(0)
    axes.tick_params(colors=GREY)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    return drawing, axes


def legend(axes: Any) -> None:
    """A legend in grey without a frame."""
    box = axes.legend(frameon=False, fontsize=9)
    for text in box.get_texts():
        text.set_color(GREY)


def png(drawing: Any) -> str:
    """The data address; no library's name or version in it, so that equal drawings are equal bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, by_column: bool = True) -> str:
    """Scores `(r, c)` with the figure in every cell; the colour shows a cell's place in its own column, or among all."""
    axis = 0 if by_column else None
    low, high = np.nanmin(values, axis=axis), np.nanmax(values, axis=axis)
    shade = (values - low) / np.where(high > low, high - low, 1)
    drawing, axes = figure(2.4 + 0.52 * len(columns), 1.5 + 0.3 * len(rows))
    axes.imshow(shade, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            colour = "black" if shade[row, column] > 0.55 else "white"
            text = f"{100 * values[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return png(drawing)


def critical_difference_diagram(names: Sequence[str], found: CriticalDifference) -> str:
    """Average ranks on a line, the best at the left; a bar joins models that the critical difference does not part."""
    order = np.argsort(found.average_ranks, kind="stable")
    groups = groups_alike(found.average_ranks, found.difference)
    half = (len(names) + 1) // 2
    drawing, axes = figure(8, 1.3 + 0.24 * half + 0.16 * len(groups))
    bottom = -(0.6 + 0.35 * len(groups)) - half
    for place, row in enumerate(order):
        rank, left = found.average_ranks[row], place < half
        level = -(0.8 + 0.35 * len(groups)) - (place if left else len(names) - 1 - place)
        edge = 0.6 if left else len(names) + 0.4
        axes.plot([rank, rank, edge], [0, level, level], color=GREY, linewidth=0.8)
        side = {"ha": "right", "x": edge - 0.1} if left else {"ha": "left", "x": edge + 0.1}
        axes.text(y=level, s=f"{names[row]}  {rank:.2f}", va="center", color=GREY, fontsize=9, **side)
    for i, group in enumerate(groups):
        ends = found.average_ranks[[group[0], group[-1]]]
        axes.plot(
            [ends[0] - 0.04, ends[1] + 0.04],
            [-0.4 - 0.35 * i] * 2,
            color=COLOURS[0],
            linewidth=4,
            solid_capstyle="butt",
        )
    axes.plot([1, 1 + found.difference], [1.1, 1.1], color=COLOURS[1], linewidth=2)
    axes.text(1 + found.difference + 0.1, 1.1, f"critical difference {found.difference:.2f}", va="center", color=GREY)
    axes.plot([1, len(names)], [0, 0], color=GREY, linewidth=1.2)
    for rank in range(1, len(names) + 1):
        axes.plot([rank, rank], [0, 0.15], color=GREY, linewidth=0.8)
        axes.text(rank, 0.25, str(rank), ha="center", va="bottom", color=GREY, fontsize=8)
    axes.set_xlim(-0.45 * len(names), 1.45 * len(names) + 1)
    axes.set_ylim(bottom, 1.6)
    axes.set_axis_off()
    return png(drawing)


def curves(x: Sequence[float], lines: Mapping[str, Sequence[float]], across: str, up: str) -> str:
    """One line a name over the same x."""
    drawing, axes = figure(7, 3.2)
    for i, (name, values) in enumerate(lines.items()):
        axes.plot(x, values, color=COLOURS[i % len(COLOURS)], marker=".", label=name)
    axes.set(xlabel=across, ylabel=up)
    axes.invert_xaxis()
    legend(axes)
    return png(drawing)

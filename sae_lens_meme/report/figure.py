"""The figure of an evaluation: a panel per drawn section, every value with its interval beside all of its controls."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from sae_lens_meme.report.blocks import Row, visible, wrapped

INK = "#1f5fa8"
MARKS = ("|", "x", "d", "s", "^", "v", "<", ">", "*", "P")
SHADES = ("#000000", "#d1693c", "#3a8f5c", "#7a4fa3", "#b8860b", "#8c564b", "#555555", "#c2185b", "#00838f", "#9e9d24")
LABEL_WIDTH = 42
ACROSS = 3
"""Panels side by side."""


def draw_figure(evaluation: dict[str, Any], path: Path) -> bool:
    """Draw the content of `evaluation.json` as a PNG; False if no section of it is to be drawn."""
    if (figure := figure_of(evaluation)) is None:
        return False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a label in a script that the font lacks
        figure.savefig(path, dpi=130, format="png", metadata={"Software": None})
    return True


def figure_of(evaluation: dict[str, Any]) -> Any:
    """The same as a matplotlib `Figure`; None if no section of it is to be drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = [section for section in evaluation["sections"] if section["axis"]]
    panels = [(s, [row for row in evaluation["table"] if row["section"] == s["title"]]) for s in sections]
    panels = [(s, rows) for s, rows in panels if any(row["value"] is not None for row in rows)]
    if not panels:
        return None
    across = min(ACROSS, len(panels))
    lines = [panels[i : i + across] for i in range(0, len(panels), across)]
    heights = [1.9 + 0.29 * max(len(rows) for _, rows in line) for line in lines]
    figure = Figure(figsize=(6.2 * across, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(len(lines), across, squeeze=False, height_ratios=heights).ravel()
    for axes in every[len(panels) :]:
        axes.remove()
    for axes, (section, rows) in zip(every, panels, strict=False):
        draw_rows(axes, rows)
        axes.set_title(wrapped(section["title"], 52), loc="left", fontsize=10)
        axes.set_xlabel(visible(section["axis"]), fontsize=9)
    return figure


def draw_rows(axes: Any, rows: list[Row]) -> None:
    """One row per line, from the top: the value with its 95 % interval, and a mark for each control."""
    names, named = list(dict.fromkeys(name for row in rows for name in row["controls"])), False
    for place, row in enumerate(reversed(rows)):
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=INK, lw=1.6)
        if row["value"] is not None:
            axes.plot(row["value"], place, "o", color=INK, ms=6, zorder=3, label=None if named else "SAE, 95 %")
            named = True
    for i, name in enumerate(names):
        at = [(row["controls"].get(name), place) for place, row in enumerate(reversed(rows))]
        drawn = [(value, place) for value, place in at if value is not None]
        if drawn:
            mark, shade = MARKS[i % len(MARKS)], SHADES[i % len(SHADES)]
            axes.plot(*zip(*drawn, strict=True), mark, color=shade, ms=7, mew=1.4, ls="", label=visible(name))
    axes.set_yticks(range(len(rows)), [wrapped(row["measure"], LABEL_WIDTH) for row in reversed(rows)], fontsize=8)
    axes.grid(axis="y", color="#ececec", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        axes.legend(
            frameon=False, fontsize=7.5, loc="upper center", bbox_to_anchor=(0.4, 0), borderaxespad=4.6, ncols=3
        )

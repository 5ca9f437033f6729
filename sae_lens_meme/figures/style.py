"""One look for all figures: colours that colour-blind readers tell apart (Okabe and Ito), and no decoration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens_meme.report.blocks import wrapped

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
)  # fmt: skip
INK, GREY, PALE = "#222222", "#7f7f7f", "#d9d9d9"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, INK, YELLOW)
DIVERGING = "RdBu_r"
SETTINGS: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "svg.hashsalt": "sae-lens-meme", "figure.dpi": 100, "savefig.dpi": 200,
}  # fmt: skip
"""Matplotlib settings; a fixed salt makes an SVG the same bytes each time."""
FORMATS = ("png", "svg")


def save(figure: Any, path: str | Path, kind: str) -> None:
    """One of `FORMATS`: without a date or a version, so that it is the same bytes each time."""
    options: Any = {"format": kind, "metadata": {"Date": None} if kind == "svg" else {"Software": None}}
    figure.savefig(path, **options)
    drawn = figure.get_tightbbox()
    if drawn.x1 > figure.bbox_inches.x1:  # long names leave a title or a legend less room than it takes
        figure.savefig(path, **options, bbox_inches=figure.bbox_inches.union([figure.bbox_inches, drawn.padded(0.1)]))


def titled(axes: Any, title: str, x: str = "", y: str = "") -> None:
    axes.set_title(wrapped(title, 52), loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def listed(axes: Any, labels: list[str]) -> None:
    """Rows from the top, with a faint line each."""
    axes.set_yticks(range(len(labels)), [wrapped(label) for label in labels])
    axes.invert_yaxis()
    axes.grid(axis="y", color="#ececec", lw=0.8)
    axes.set_axisbelow(True)

"""The figure of an evaluation: three panels, every dot beside what the same measure gives by chance."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from sae_lens_meme.report.concepts import ANSWERS, BEST, CONCEPTS
from sae_lens_meme.report.influence import PROBES
from sae_lens_meme.report.section import Row

INK, CHANCE = "#1f5fa8", "#b8b8b8"
KINDS = {"visual": "#d1693c", "textual": "#3a8f5c", "cross-modal": "#7a4fa3"}


def draw_figure(evaluation: dict[str, Any], path: Path) -> bool:
    """Draw the content of `evaluation.json` as a PNG; False if it holds nothing that this figure shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = {
        name: [r for r in evaluation["table"] if r["section"] == name.title]
        for name in (CONCEPTS, BEST, ANSWERS, PROBES)
    }
    panels = [(CONCEPTS, _counts), (BEST, _scores), (ANSWERS if sections[ANSWERS] else PROBES, _aurocs)]
    panels = [(name, draw) for name, draw in panels if sections[name]]
    if not panels:
        return False
    figure = Figure(figsize=(5 * len(panels), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, draw) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, sections[name])
        axes.spines[["top", "right"]].set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a label in a script that the font lacks
        figure.savefig(path, dpi=130, format="png", metadata={"Software": None})
    return True


def _counts(axes: Any, rows: list[Row]) -> None:
    """Pairs found on the true labels and on labels permuted within source."""
    rows = [row for row in rows if row["measure"] in ("corrected protocol", "published protocol")]
    for place, row in enumerate(rows):
        true, permuted = row["value"], row["controls"].get("permuted")
        spread = None if row["low"] is None else [[max(true - row["low"], 0)], [max(row["high"] - true, 0)]]
        axes.bar(
            place - 0.2,
            true,
            0.38,
            color=INK,
            xerr=None,
            yerr=spread,
            capsize=3,
            label="true labels" if not place else None,
        )
        _count_above(axes, place - 0.2, true, row["high"])
        if permuted is not None:
            axes.bar(
                place + 0.2, permuted, 0.38, color=CHANCE, label="labels permuted within source" if not place else None
            )
            _count_above(axes, place + 0.2, permuted, None)
    axes.set_xticks(range(len(rows)), [row["measure"].replace(" ", "\n") for row in rows])
    axes.set_title("latent x concept pairs with q < .05\n(whiskers: 95 %)", loc="left", fontsize=10)
    axes.margins(y=0.15)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _count_above(axes: Any, x: float, count: float, high: float | None) -> None:
    axes.annotate(
        f"{count:,.0f}" if count == round(count) else f"{count:,.1f}",
        (x, high or count),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=9,
    )


def _scores(axes: Any, rows: list[Row]) -> None:
    """Held-out F1 of the chosen latent with its interval, and F1 of a latent that always fires."""
    for place, row in enumerate(reversed(rows)):
        if row["value"] is None:
            continue
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=INK, lw=1.5)
        axes.plot(row["value"], place, "o", color=INK)
        if (always := row["controls"].get("always on")) is not None:
            axes.plot(always, place, "|", color="black", ms=12, mew=1.5)
    axes.set_yticks(range(len(rows)), [row["measure"] for row in reversed(rows)], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_title(
        "best latent of each concept: F1 on test memes\n(| = a latent that is always on)", loc="left", fontsize=10
    )


def _aurocs(axes: Any, rows: list[Row]) -> None:
    """AUROC of the best latent for each planted factor, or of the probe for each label."""
    for place, row in enumerate(reversed(rows)):
        kind = next((kind for kind in KINDS if f"({kind})" in row["measure"]), None)
        if row["value"] is not None:
            axes.plot(row["value"], place, "o", color=KINDS.get(kind or "", INK))
        if (permuted := row["controls"].get("permuted")) is not None:
            axes.plot(permuted, place, "|", color="black", ms=12, mew=1.5)
    axes.axvline(0.5, color=CHANCE, lw=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [row["measure"] for row in reversed(rows)], fontsize=8)
    axes.set_xlim(0.35, 1.02)
    what = "best latent for each planted factor" if rows[0]["section"] == ANSWERS.title else "probe on latents"
    axes.set_title(f"{what}:\nAUROC on test memes (| = permuted within source)", loc="left", fontsize=10)

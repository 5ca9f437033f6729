"""What is in the corpus, before any model has seen it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.describe.description import CONTEXT
from sae_lens_meme.figures.inputs import Inputs
from sae_lens_meme.figures.style import BLUE, INK, ORANGE, titled, wrapped

TITLE = "The corpus"
PANELS = ("known", "cooccurrence", "tokens", "aspect")


def panels(_: Inputs) -> list[dict[str, Any]]:
    return [{"panel": panel} for panel in PANELS]


def draw(axes: Any, inputs: Inputs, *, panel: str = "known") -> None:
    """One of `PANELS`: shares of known labels, labels that go together, lengths of captions, shapes of pictures."""
    {"known": _known, "cooccurrence": _cooccurrence, "tokens": _tokens, "aspect": _aspect}[panel](axes, inputs)


def _known(axes: Any, inputs: Inputs) -> None:
    table = inputs.description.tables["known"]
    names, shares = table.columns[2:], [[cell / row[1] for cell in row[2:]] for row in table.rows]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(table.rows)), [wrapped(row[0]) for row in table.rows])
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            axes.text(j, i, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.6 else INK, fontsize=7)
    titled(axes, "Memes with a caption, and with each label")


def _cooccurrence(axes: Any, inputs: Inputs) -> None:
    rows = [row for row in inputs.description.tables["cooccurrence"].records() if row["V"] is not None]
    rows = sorted(rows, key=lambda row: row["V"] - row["V permuted"])[-15:]
    places = np.arange(len(rows))
    axes.hlines(places, [row["V permuted"] for row in rows], [row["V"] for row in rows], color=INK, lw=1)
    axes.plot([row["V"] for row in rows], places, "o", color=BLUE, label="as labelled")
    axes.plot([row["V permuted"] for row in rows], places, "o", color=ORANGE, label="permuted within sources")
    axes.set_yticks(places, [wrapped(row["labels"]) for row in rows])
    axes.set_xlim(left=0)
    if rows:
        axes.legend(loc="lower right")
    titled(axes, "Labels that go together", "Cramér's V, one meme per group")


def _tokens(axes: Any, inputs: Inputs) -> None:
    counted = inputs.description.histograms["tokens"]
    axes.stairs(counted["counts"], counted["edges"], color=BLUE, fill=True)
    axes.axvline(CONTEXT, color=INK, lw=1)
    titled(axes, f"Captions; right of the line CLIP reads only the first {CONTEXT} tokens", "tokens", "memes")


def _aspect(axes: Any, inputs: Inputs) -> None:
    counted = inputs.description.histograms["aspect"]
    axes.stairs(counted["counts"], counted["edges"], color=BLUE, fill=True)
    axes.axvline(0, color=INK, lw=1)
    axes.set_xticks([-2, -1, 0, 1, 2], ["1:4", "1:2", "square", "2:1", "4:1"])
    titled(axes, "Pictures; a centre crop loses what is far from the line", "height : width", "memes")

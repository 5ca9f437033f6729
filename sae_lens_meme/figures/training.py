"""How training went."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.figures.inputs import Inputs
from sae_lens_meme.figures.style import BLUE, ORANGE, titled

TITLE = "Training"


def draw(axes: Any, inputs: Inputs) -> None:
    """Explained variance of train and validation memes after each epoch."""
    log = inputs.training_log
    for split, colour in (("train", ORANGE), ("validation", BLUE)):
        for column, style in ((f"{split}_explained_variance", "-"), (f"{split}_explained_variance_zscored", "--")):
            if column in log and log[column].notna().any():
                zscored = " (z-scored)" if style == "--" else ""
                axes.plot(log["epoch"], log[column], style, color=colour, label=f"{split}{zscored}")
    titled(axes, "Explained variance", "epoch", "explained variance")
    axes.legend(loc="lower right")

"""What the caption alone, the picture alone and both together drive."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import BLUE, GREEN, ORANGE, titled

TITLE = "Caption-local, image-local and meme-global activation"
COLUMNS = {"caption_local": ("caption alone", ORANGE), "image_local": ("picture alone", GREEN), "meme_global": ("the meme", BLUE)}  # fmt: skip


def draw(axes: Any, inputs: Inputs, *, latent: int | None = None) -> None:
    """Distributions over the top memes of every attributed latent, or of one.

    `caption_local` is the activation where the picture is replaced by the mean picture, `image_local` the one where
    the caption is replaced by the mean caption, `meme_global` the real one.
    """
    rows = inputs.attributions
    rows = rows[(rows["kind"] == "top") & (True if latent is None else rows["latent"] == latent)]
    columns = [name for name in COLUMNS if name in rows and rows[name].notna().any()]
    if not columns:
        raise NotDrawn("no latent was attributed on both sides")
    values = [np.sort(rows[name].dropna().to_numpy(float)) for name in columns]
    for name, x in zip(columns, values, strict=True):
        label, colour = COLUMNS[name]
        axes.plot(x, np.linspace(0, 1, len(x)), color=colour, label=label)
    who = f"{rows['latent'].nunique():,} latents" if latent is None else inputs.called(latent)
    titled(axes, f"{len(rows):,} top memes of {who}", "activation", "cumulative share")
    axes.legend(loc="lower right")

"""How often latents fire."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.figures.inputs import Inputs
from sae_lens_meme.figures.style import BLUE, ORANGE, titled

TITLE = "Firing rates"


def draw(axes: Any, inputs: Inputs) -> None:
    """Histogram of log10 firing rates, train memes and held-out ones; latents that never fire are counted in the title."""
    table = inputs.table("reconstruction")
    for (split, rows), colour in zip(table.groupby("split", sort=False), (ORANGE, BLUE), strict=False):
        edges = [*rows["log10_density_from"], rows["log10_density_to"].iloc[-1]]
        axes.stairs(rows["n_latents"], edges, color=colour, fill=split == "train", alpha=0.9, label=f"{split} memes")
    n_dead = int(inputs.latents.d_sae - (inputs.latents.csc().getnnz(axis=0) > 0).sum())
    titled(axes, f"{n_dead:,} of {inputs.latents.d_sae:,} latents never fire", "log10 of the firing rate", "latents")
    axes.legend(loc="upper left")

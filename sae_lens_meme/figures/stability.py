"""Which latents reappear with another training seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import CYCLE, titled, wrapped

TITLE = "Latents that reappear with another seed"


def draw(axes: Any, inputs: Inputs) -> None:
    """Cosine of each living latent with its match in each other SAE, and in an SAE of shuffled data; a line ends where no
    more latents have a match."""
    table = inputs.table("stability")
    columns = [name for name in table if str(name).endswith("/cosine")]
    if not columns:
        raise NotDrawn("there is no other SAE to compare with; evaluate with stability_seeds or other_saes")
    alive = table[table["alive"].astype(bool)]
    for column, colour in zip(columns, CYCLE * (1 + len(columns) // len(CYCLE)), strict=False):
        name = str(column).removesuffix("/cosine").replace("_", " ")
        cosines = np.sort(alive[column].dropna().to_numpy(float))[::-1]
        axes.plot(np.arange(1, len(cosines) + 1) / len(alive), cosines, color=colour, label=wrapped(name))
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
    titled(
        axes,
        f"{len(alive):,} living latents, matched one to one",
        "share of living latents, most stable first",
        "cosine of decoder rows",
    )
    axes.legend()

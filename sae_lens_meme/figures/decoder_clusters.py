"""Whether decoder rows form clusters, more than random directions do."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import BLUE, GREY, titled

TITLE = "Clusters of the decoder"


def draw(axes: Any, inputs: Inputs) -> None:
    """Heights at which average-linkage clustering (cosine) joins decoder rows, beside as many random directions."""
    from scipy.cluster.hierarchy import linkage

    alive = np.flatnonzero(inputs.latents.csc().getnnz(axis=0))
    if len(alive) < 3:
        raise NotDrawn(f"{len(alive)} latents fire")
    rows = inputs.decoder[alive]
    random = np.random.default_rng(inputs.seed).standard_normal(rows.shape)
    for x, colour, name in ((rows, BLUE, "decoder rows"), (random, GREY, "random directions")):
        heights = linkage(x, "average", metric="cosine")[:, 2]
        axes.plot(np.arange(len(heights), 0, -1), heights, color=colour, label=name)
    axes.set_xscale("log")
    titled(axes, f"Average linkage of {len(alive):,} decoder rows", "number of clusters", "cosine distance of the join")
    axes.legend()

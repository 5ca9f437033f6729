"""Pairs that pass under both protocols, for the SAE and where nothing was learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs
from sae_lens_meme.figures.style import BLUE, RED, listed, titled

TITLE = "Pairs that pass, under both protocols"


def draw(axes: Any, inputs: Inputs) -> None:
    """Share of tested latent x concept pairs with q < alpha, by set of units and protocol.

    A count of pairs does not measure quality: the control without any structure may have the larger one.
    """
    table = inputs.table("baselines")
    wide = table.pivot_table(index="baseline", columns="protocol", values="share_of_tests_global", sort=False)
    for (protocol, colour), shift in zip((("corrected", BLUE), ("published", RED)), (-0.16, 0.16), strict=True):
        if protocol in wide:
            axes.barh(
                np.arange(len(wide)) + shift, wide[protocol], height=0.3, color=colour, label=f"{protocol} protocol"
            )
    listed(axes, [str(name).replace("_", " ") for name in wide.index])
    titled(axes, "Pairs with q < 0.05: no measure of quality", "share of the tested latent × concept pairs")
    axes.legend()

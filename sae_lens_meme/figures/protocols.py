"""Pairs that pass under both protocols, for the SAE and where nothing was learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.figures.inputs import Inputs
from sae_lens_meme.figures.style import BLUE, RED, listed, titled

TITLE = "Pairs that pass, under both protocols"
SHOWN = {"corrected": ("share_of_tests_global", BLUE), "published": ("share_of_tests_concept", RED)}
"""Of each protocol the share over its own family of tests: all pairs, or those of a concept."""


def draw(axes: Any, inputs: Inputs) -> None:
    """Share of tested latent x concept pairs with q < alpha, by set of units and protocol, q within the protocol's family.

    A count of pairs does not measure quality: the control without any structure may have the larger one.
    """
    table = inputs.table("baselines")
    given = inputs.content["options"].get("options", {}).get(Baselines.name, {})
    alpha = float(given.get("alpha", Baselines.Options().alpha))
    names = list(table["baseline"].unique())
    for (protocol, (share, colour)), shift in zip(SHOWN.items(), (-0.16, 0.16), strict=True):
        shares = table[table["protocol"] == protocol].set_index("baseline")[share].reindex(names)
        if shares.notna().any():
            axes.barh(np.arange(len(names)) + shift, shares, height=0.3, color=colour, label=f"{protocol} protocol")
    listed(axes, [str(name).replace("_", " ") for name in names])
    titled(axes, f"Pairs with q < {alpha:g}: no measure of quality", "share of the tested latent × concept pairs")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2)

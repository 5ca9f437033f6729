"""F1 of the best latent of each concept, between firing always and the best that any latent could have."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.figures.inputs import Inputs, NotDrawn, alignment
from sae_lens_meme.figures.style import BLUE, GREY, RED, listed, titled

TITLE = "F1 on test memes of the best latent of each concept"


def draw(axes: Any, inputs: Inputs) -> None:
    """Latent and threshold were chosen on validation memes, where a concept is true of none on train memes."""
    best = best_latents(inputs)
    rows = range(len(best))
    axes.hlines(rows, best["f1_always_on"], best["f1_test"], color=GREY, lw=1)
    axes.plot(best["f1_always_on"], rows, "|", color=RED, ms=10, mew=2, ls="", label="always on")
    if best["f1_ceiling"].notna().any():
        axes.plot(best["f1_ceiling"], rows, "|", color=GREY, ms=10, mew=2, ls="", label="ceiling at this firing rate")
    axes.plot(best["f1_test"], rows, "o", color=BLUE, ls="", label="best latent")
    listed(axes, [f"{row.concept} ({row.latent})" for row in best.itertuples()])
    titled(axes, "Best latent of each concept (its number in brackets)", "F1, test memes")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def best_latents(inputs: Inputs) -> Any:
    """A `pandas.DataFrame`, a row per concept: the latent with the best F1 on the memes that choose."""
    table = alignment(inputs)
    table = table[table["f1_validation"].notna() & table["f1_test"].notna()]
    if table.empty:
        raise NotDrawn("no concept has scores on test memes")
    return table.loc[table.groupby("concept", sort=False)["f1_validation"].idxmax()].reset_index(drop=True)

"""Decoder rows in the plane, coloured by what their latents stand for."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn, alignment
from sae_lens_meme.figures.style import CYCLE, PALE, titled, wrapped
from sae_lens_meme.projection import project

TITLE = "UMAP of the decoder"
ALPHA = 0.05


def draw(axes: Any, inputs: Inputs) -> None:
    """A point per living latent; colour: the concept of its strongest evidence, where q over all pairs is below .05."""
    alive = np.flatnonzero(inputs.latents.csc().getnnz(axis=0))
    if len(alive) < 3:
        raise NotDrawn(f"{len(alive)} latents fire")
    points = project(inputs.decoder[alive], seed=inputs.seed)
    concept = _concepts(inputs)
    values = np.array([(concept or {}).get(int(latent), "none") for latent in alive], dtype=object)
    n_named = f"{np.sum(values != 'none'):,} have a concept with q < {ALPHA}"
    for i, value in enumerate(sorted(set(values) - {"none"})):
        axes.plot(
            *points[values == value].T,
            "os^Dv"[i // len(CYCLE) % 5],
            color=CYCLE[i % len(CYCLE)],
            ms=4,
            ls="",
            label=wrapped(value),
        )
    axes.plot(*points[values == "none"].T, ".", color=PALE, ms=4, ls="", label="no concept", zorder=0)
    axes.set(xticks=[], yticks=[])
    titled(axes, f"UMAP of {len(alive):,} decoder rows; {'no concept was tested' if concept is None else n_named}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _concepts(inputs: Inputs) -> dict[int, str] | None:
    try:
        table = alignment(inputs)
    except NotDrawn:
        return None
    table = table[table["q_global"] < ALPHA]
    best = table.sort_values("log10_p", kind="stable").drop_duplicates("latent")
    return dict(zip(best["latent"].astype(int), best["concept"], strict=True))

"""Memes in the plane, by embedding and by latents."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import CYCLE, PALE, titled, wrapped
from sae_lens_meme.projection import project

TITLE = "UMAP of the embedding h and of the latents z"
MOST = 3_000


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    return [{"space": "h"}, {"space": "z"}]


def draw(axes: Any, inputs: Inputs, *, space: str = "z", colour_by: str | None = None) -> None:
    """Held-out memes (3,000 at most).

    Args:
        space: `h`, the embedding that the SAE reads, or `z`, its latents.
        colour_by: a label or `source`; default the first label with two classes.
    """
    memes = inputs.memes
    _, rows = memes.held_out()
    if len(rows) < 3:
        raise NotDrawn(f"there are {len(rows)} held-out memes")
    rows = np.sort(np.random.default_rng(inputs.seed).permutation(rows)[:MOST])
    x = memes.take(inputs.content["sae"]["hook"], rows) if space == "h" else inputs.latents.csr()[rows].toarray()
    kept = np.any(x != 0, axis=1)
    points = project(x[kept], seed=inputs.seed)
    name, values = _colours(inputs, colour_by, rows[kept])
    for value, colour in zip(dict.fromkeys(values), cycle(CYCLE), strict=False):
        mine = values == value
        shade = PALE if value == "unknown" else colour
        axes.plot(
            *points[mine].T,
            ".",
            color=shade,
            ms=3,
            ls="",
            label=wrapped(value),
            rasterized=True,
            zorder=1 + (value != "unknown"),
        )
    axes.set(xticks=[], yticks=[])
    titled(
        axes,
        f"UMAP of {'the embedding h' if space == 'h' else 'the latents z'}, {len(points):,} held-out memes; colour: {name}",
    )
    axes.legend(markerscale=3, loc="best")


def _colours(inputs: Inputs, colour_by: str | None, rows: np.ndarray) -> tuple[str, np.ndarray]:
    memes = inputs.memes
    labels = [name for name in memes.label_names if len(memes.label(name).classes) > 1]
    name = colour_by or (labels[0] if labels else "source")
    if name == "source":
        return name, memes.sources[rows].astype(object)
    label = memes.label(name)
    known, values = label.known[rows], label.values[rows]
    return name, np.array([v if k else "unknown" for k, v in zip(known, values, strict=True)], dtype=object)

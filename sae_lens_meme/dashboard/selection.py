"""Which memes stand for a latent: those that fire it most, and some from every part of its range.

The top alone misleads: a latent whose ten strongest memes share a thing may fire on others for another reason.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sae_lens_meme.evaluators.latents import Latents

TOP, QUANTILE = "top", "quantile"


class Picks(NamedTuple):
    """The chosen memes of one latent, the strongest first, then interval by interval from the highest."""

    rows: np.ndarray
    kinds: list[str]
    intervals: np.ndarray
    """0 is the lowest; -1 among the strongest."""
    activations: np.ndarray


def pick_memes(latents: Latents, latent: int, by_id: np.ndarray, top: int, intervals: int, per_interval: int) -> Picks:
    """The `top` strongest memes, then `per_interval` memes of each of `intervals` parts of equal count.

    Of a part they are taken at equal distances of rank, so that nothing is drawn. Memes of equal activation come in
    the order of their ids.

    Args:
        by_id: rows in the order of the ids (`Embeddings.by_id`).
    """
    matrix = latents.csc()
    part = slice(*matrix.indptr[latent : latent + 2])
    rows, values = matrix.indices[part], matrix.data[part]
    place = np.empty(latents.n_samples, dtype=np.int64)
    place[by_id] = np.arange(latents.n_samples)
    order = np.lexsort((place[rows], -values))
    rows, values = rows[order].astype(np.int64), values[order]
    chosen, kinds, where = list(range(min(top, len(rows)))), [TOP] * min(top, len(rows)), [-1] * min(top, len(rows))
    edges = np.linspace(0, len(rows), intervals + 1).round().astype(int)
    for i in range(intervals):
        ranks = np.arange(edges[i], edges[i + 1])
        ranks = ranks[ranks >= len(chosen[:top])]
        if len(ranks):
            some = ranks[np.unique(np.linspace(0, len(ranks) - 1, min(per_interval, len(ranks))).round().astype(int))]
            chosen += some.tolist()
            kinds += [QUANTILE] * len(some)
            where += [intervals - 1 - i] * len(some)
    return Picks(rows[chosen], kinds, np.array(where, dtype=np.int64), values[chosen])

"""Which memes are measured."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.metrics.resampling import bootstrap_weights


def measured_rows(
    embeddings: Embeddings, which: Literal["held_out", "all"] = "held_out"
) -> tuple[Int[np.ndarray, " rows"], str]:
    """Rows, ascending, and what to call them: test rows, else validation rows, else all; with "all" all of them."""
    split, rows = embeddings.held_out()
    if which == "all" or split is None:
        return np.arange(len(embeddings)), "all rows" if which == "all" else "all rows (none are held out)"
    return rows, f"{split} rows"


def resampled(
    embeddings: Embeddings, rows: Int[np.ndarray, " rows"], replicates: int, seed: int
) -> UInt8[np.ndarray, "rows draws"]:
    """How often each of these memes is drawn: once in column 0, then in each of `replicates` bootstrap samples.

    Groups are drawn together, within the source of their first meme; the order of the rows does not matter.
    """
    ordered = embeddings.by_id[np.isin(embeddings.by_id, rows)]
    weights, place = np.ones((len(rows), replicates + 1), np.uint8), np.empty(len(embeddings), np.int64)
    place[ordered] = np.arange(len(ordered))
    drawn = bootstrap_weights(embeddings.strata[ordered], replicates, seed, embeddings.groups[ordered])
    for i, weight in enumerate(drawn, start=1):
        weights[:, i] = weight[place[rows]]
    return weights


def name_of_held_out(split: str | None) -> str:
    """What printed text calls the rows of `Embeddings.held_out` and of tasks."""
    if split == "test":
        return "held-out memes"
    return "validation memes (none are test memes)" if split else "no memes are held out"

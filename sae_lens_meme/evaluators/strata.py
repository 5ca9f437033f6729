"""Strata within which memes are compared: their source, or their source and the length of their caption."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError

Strata = Literal["source", "source_and_length"]
"""The option `strata` of an evaluator."""
DECILES, MEMES_A_CLASS = 10, 100
"""Most classes of length in a source, and how many memes a class needs for more than three."""
N_WORDS = "n_words"
"""The column that gives caption lengths in a table without captions."""
NO_LENGTH = f"no meme has a caption, and there is no column {N_WORDS!r}: the length of the captions is not known"


def strata_of(embeddings: Embeddings, which: Strata) -> Int[np.ndarray, " n_samples"]:
    """The stratum of each meme, 0, 1, ...

    Raises:
        DataError: lengths are needed and not known.
    """
    return embeddings.strata if which == "source" else within_source_and_length(embeddings)


def within_source_and_length(embeddings: Embeddings) -> Int[np.ndarray, " n_samples"]:
    """The source and the length class, in that source, of the caption; memes without a caption are a class of their own.

    Raises:
        DataError: the length of no caption is known.
    """
    words = n_words(embeddings)
    if words is None:
        raise DataError(f"strata 'source_and_length': {NO_LENGTH}; give captions, or use strata 'source'")
    return quantiles_within(embeddings.strata, words)


def quantiles_within(strata: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each stratum cut at quantiles of the values in it; memes without one (NaN) are one of their own.

    Terciles leave a fifth of what a linear confounder does (Cochran 1968), which 5,000 memes are enough to find: in simulation
    at log-odds of .3 a standard deviation .10 of all discoveries were false, with deciles .03. So there are deciles, and
    fewer (at least terciles) where memes are, and find, fewer.
    """
    place = np.full(len(values), DECILES)
    for stratum in np.unique(strata):
        mine = (strata == stratum) & ~np.isnan(values)
        n = int(np.clip(mine.sum() // MEMES_A_CLASS, 3, DECILES))
        if mine.any():
            place[mine] = np.searchsorted(np.quantile(values[mine], np.arange(1, n) / n), values[mine])
    return np.unique((DECILES + 1) * strata + place, return_inverse=True)[1].astype(np.int64)


def n_words(embeddings: Embeddings) -> Float[np.ndarray, " n_samples"] | None:
    """Words of each caption, NaN where a meme has none; None where no length is known."""
    if embeddings.texts is not None:
        words = np.array([np.nan if text is None else len(text.split()) for text in embeddings.texts], dtype=np.float64)
    elif N_WORDS in embeddings.label_names and embeddings.label(N_WORDS).values.dtype != object:
        column = embeddings.label(N_WORDS)
        words = np.where(column.known, column.values, np.nan).astype(np.float64)
    else:
        return None
    return None if np.isnan(words).all() else words

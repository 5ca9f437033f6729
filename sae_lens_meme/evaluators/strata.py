"""Strata within which memes are compared: their source, or their source and the length of their caption."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError

Strata = Literal["source", "source_and_length"]
"""The option `strata` of an evaluator."""
N_WORDS = "n_words"
"""A column of a table without captions that says how long they are."""
NO_LENGTH = f"no meme has a caption, and there is no column {N_WORDS!r}: the length of the captions is not known"


def strata_of(embeddings: Embeddings, which: Strata) -> Int[np.ndarray, " n_samples"]:
    """The stratum of each meme, 0, 1, ...

    Raises:
        DataError: lengths are asked for and not known.
    """
    return embeddings.strata if which == "source" else within_source_and_length(embeddings)


def within_source_and_length(embeddings: Embeddings) -> Int[np.ndarray, " n_samples"]:
    """The source and the tercile, of that source, of the caption's length; memes without a caption are a stratum of their own.

    Raises:
        DataError: the length of no caption is known.
    """
    words = n_words(embeddings)
    if words is None:
        raise DataError(f"strata 'source_and_length': {NO_LENGTH}; give captions, or use strata 'source'")
    return terciles_within(embeddings.strata, words)


def terciles_within(strata: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each stratum in up to four: terciles of the values in it, and the memes without one (NaN).

    Terciles take out about four fifths of what a variable with a linear effect confounds (Cochran 1968), not all of it.
    """
    tercile = np.full(len(values), 3)
    for stratum in np.unique(strata):
        mine = (strata == stratum) & ~np.isnan(values)
        if mine.any():
            tercile[mine] = np.searchsorted(np.quantile(values[mine], [1 / 3, 2 / 3]), values[mine])
    return np.unique(4 * strata + tercile, return_inverse=True)[1].astype(np.int64)


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

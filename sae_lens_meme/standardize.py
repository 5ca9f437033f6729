"""Mean and standard deviation of the training rows: one pass and one rule for dimensions that do not vary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError

_LOST_IN_FLOAT32 = float(np.finfo(np.float32).eps)


class Moments(NamedTuple):
    """Mean and standard deviation (n - 1 in the denominator) of each dimension, never zero."""

    mean: Float64[np.ndarray, " d_in"]
    std: Float64[np.ndarray, " d_in"]
    dead: Bool[np.ndarray, " d_in"]
    """Dimensions with less than 1.2e-7 (float32's resolution) of the mean variance. Their `std` is that of this
    bound, so that nothing is divided by almost nothing; all are 1 where no dimension varies."""

    @property
    def zscore_weights(self) -> Float64[np.ndarray, " d_in"]:
        """What a squared error counts in each dimension where it is z-scored: 1 / variance, in dead dimensions 0."""
        return ~self.dead / self.std**2


def train_moments(embeddings: Embeddings, hook: str) -> Moments:
    """Of the train rows at a hook.

    Raises:
        DataError: there are no train rows.
    """
    rows = embeddings.rows("train")
    if not len(rows):
        raise DataError(f"{embeddings.path or 'embeddings'}: no rows of split 'train' to take a mean and a std from")
    return moments(batch for _, batch in embeddings.batches(hook, rows))


def moments(batches: Iterable[Float[np.ndarray, "batch d_in"]]) -> Moments:
    """Of the rows of all batches, of which there is at least one, in float64."""
    count, origin, mean, squares = 0, np.empty(0), np.float64(0), np.float64(0)
    for batch in batches:
        values = batch.astype(np.float64)
        origin = origin if count else values[0].copy()  # around a row: a constant dimension has exactly no variance
        values -= origin
        total = count + len(values)
        delta = values.mean(0) - mean  # Chan, Golub and LeVeque's update: no cancellation
        squares = squares + values.var(0) * len(values) + delta**2 * (count * len(values) / total)
        mean = mean + delta * (len(values) / total)
        count = total
    variance = np.asarray(squares) / max(count - 1, 1)
    bound = _LOST_IN_FLOAT32 * variance.mean()
    dead = variance <= bound
    return Moments(origin + mean, np.sqrt(np.where(dead, bound or 1.0, variance)), dead)

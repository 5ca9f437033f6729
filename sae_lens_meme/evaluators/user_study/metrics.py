"""Metrics computed from the activations of one neuron."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

from sae_lens_meme.errors import DataError
from sae_lens_meme.metrics.directions import unit_rows

SPARSITY = "fires on fewer pictures"
"""A trivial metric: of neurons and SAE latents, users may simply call the sparser one more focused."""


def monosemanticity_of(vectors: Float[np.ndarray, "pictures d"]) -> Callable[[Float64[np.ndarray, " pictures"]], float]:
    """MS of Pach et al. 2025 under the embeddings of all pictures, in linear time; NaN where it has no weight.

    The sum over pairs of a_n a_m cos(n, m) is half of |sum a e|^2 minus the sum of a^2, e unit vectors.
    """
    x = np.asarray(vectors, np.float64)
    units = unit_rows(x)

    def score(activations: Float64[np.ndarray, " pictures"]) -> float:
        if len(activations) != len(units):
            raise DataError(f"user study: {len(units)} embeddings for activations on {len(activations)} pictures")
        span = activations.max() - activations.min()
        if span <= 0:
            return float("nan")
        a = (activations - activations.min()) / span
        squares = (a**2 * x.any(axis=1)).sum()
        weight = a.sum() ** 2 - (a**2).sum()
        return float((np.square(a @ units).sum() - squares) / weight) if weight > 0 else float("nan")

    return score


def sparsity(activations: Float64[np.ndarray, " pictures"]) -> float:
    """Share of the pictures on which a neuron does not fire."""
    return float((activations <= 0).mean())

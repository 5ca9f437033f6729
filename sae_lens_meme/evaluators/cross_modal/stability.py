"""Whether the same memes would be kept had other train memes set the weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from scipy.signal import fftconvolve

from sae_lens_meme.evaluators.cross_modal.scores import ItemScores, active, sums_of
from sae_lens_meme.evaluators.cross_modal.selection import best, n_kept
from sae_lens_meme.evaluators.cross_modal.weights import Weights
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.hypergeometric import log_pmf

BLOCK = 16
"""Resamples whose scores are held in memory at once."""


def kept_again(
    latents: Latents, scores: ItemScores, weights: Weights, share: float, within_source: bool = False
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    """For `sum` and `mean`: the share of the kept memes that is kept again with the weights of each resample.

    The memes that are scored stay the same; their weights are those of resampled train memes.
    """
    groups = scores.sources[scores.train] if within_source else None
    first = {by: np.zeros(len(scores.train), bool) for by in ("sum", "mean")}
    for by, kept in first.items():
        kept[best(scores.by(by)[scores.train], share, groups)] = True
    again: dict[str, list[float]] = {by: [] for by in first}
    for rescored in _rescored(latents, scores, weights):
        for by, values in rescored.items():
            again[by] += [float(first[by][best(column, share, groups)].mean()) for column in values.T]
    return {by: np.array(found) for by, found in again.items()}


def jaccard(share_kept: np.ndarray) -> np.ndarray:
    """Of two selections of one size, from the share of either that is in both."""
    return share_kept / (2 - share_kept)


def random_overlap(scores: ItemScores, share: float, within_source: bool = False) -> tuple[float, float]:
    """Expected share kept again and Jaccard index of two random selections of this size, exactly."""
    sources = scores.sources[scores.train] if within_source else np.zeros(len(scores.train), np.int64)
    sizes = np.unique(sources, return_counts=True)[1].tolist()
    kept = [n_kept(n, share) for n in sizes]
    both = np.ones(1)  # distribution of the number of memes in both selections
    for n, k in zip(sizes, kept, strict=True):
        both = fftconvolve(both, [np.exp(log_pmf(x, k, k, n)) if x >= 2 * k - n else 0.0 for x in range(k + 1)])
    shared = np.arange(len(both)) / sum(kept)
    return float(both @ shared), float(both @ jaccard(shared))


def _rescored(latents: Latents, scores: ItemScores, weights: Weights) -> Iterator[dict[str, np.ndarray]]:
    fires = active(latents, weights.delta)[scores.train]
    for start in range(0, len(weights.replicates), BLOCK):
        total, mean = sums_of(fires, weights.replicates[start : start + BLOCK].T.copy())
        yield {"sum": total, "mean": mean}

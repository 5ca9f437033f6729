"""The latents that carry a gap, and what is left of it without them, against as many latents of similar firing rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Real

from sae_lens_meme.metrics.by_column import sum_by_column
from sae_lens_meme.metrics.ranking import auroc_of_scores

NEAREST = 20
"""A matched latent is one of that many with the nearest firing rates."""


def carried(
    latents: Any, gain: Float64[np.ndarray, " d_sae"], first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " d_sae"]:
    """Of each latent the mean contribution to the logit over the first memes, minus that over the second; exact.

    Args:
        latents: CSR [n, d_sae].
        gain: direction of each latent . weights of the probe: what one unit of it adds to the logit.
    """
    weights = first / max(first.sum(), 1) - second / max(second.sum(), 1)
    return gain * sum_by_column(latents, weights)


class Ablated(NamedTuple):
    """One set of latents set to zero in the embedding, the SAE's error kept."""

    gap: Float64[np.ndarray, " draws"]
    auroc: float
    """Of the classifier, on all memes that measure it."""


def ablated(
    logits: Float64[np.ndarray, " n"],
    removed: Float64[np.ndarray, " n"],
    threshold: float,
    threshold_rows: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " h"],
    true: Bool[np.ndarray, " n"],
    subgroup: Int[np.ndarray, " a"],
    background: Int[np.ndarray, " b"],
    weights: tuple[Real[np.ndarray, "a draws"], Real[np.ndarray, "b draws"]] | None = None,
) -> Ablated:
    """The gap in false positives and the AUROC after `removed` is taken from the logits.

    The threshold moves so that as many of the memes that chose it are flagged as before: without that, whatever lowers all
    logits would close every gap.

    Args:
        threshold: from which a meme was flagged before.
        subgroup, background: the negatives of each that measure the gap.
    """
    after = logits - removed
    kept = int((logits[threshold_rows] >= threshold).sum())
    moved = np.partition(after[threshold_rows], -kept)[-kept] if kept else np.inf
    draws = weights or (np.ones((len(subgroup), 1)), np.ones((len(background), 1)))
    rates = [_rate(after[rows] >= moved, w) for rows, w in zip((subgroup, background), draws, strict=True)]
    auroc = auroc_of_scores(after[test], true[test], np.zeros(len(test), np.int64))
    return Ablated(rates[0] - rates[1], float(auroc[0]))


def _rate(flagged: Bool[np.ndarray, " n"], weights: Real[np.ndarray, "n draws"]) -> Float64[np.ndarray, " draws"]:
    size = weights.sum(axis=0, dtype=np.float64)
    drawn = weights[flagged].sum(axis=0, dtype=np.float64)
    return np.divide(drawn, size, out=np.full(len(size), np.nan), where=size > 0)


def matched_draws(
    chosen: Sequence[int] | np.ndarray,
    n_active: Int[np.ndarray, " d_sae"],
    draws: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "draws chosen"] | None:
    """For each chosen latent another one of similar firing rate, in each draw a different one for each; None where too few fire.

    Args:
        n_active: how often each latent fires.
    """
    order = np.argsort(n_active, kind="stable")
    order = order[n_active[order] > 0]
    others = order[~np.isin(order, chosen)]
    if len(others) < len(chosen):
        return None
    distance = np.abs(n_active[others][None, :] - n_active[np.asarray(chosen)][:, None])
    nearest = others[np.argsort(distance, axis=1, kind="stable")[:, : max(NEAREST, len(chosen))]]
    found = np.empty((draws, len(chosen)), np.int64)
    for draw in range(draws):
        taken: set[int] = set()
        for i in rng.permutation(len(chosen)):
            free = [int(latent) for latent in nearest[i] if int(latent) not in taken]
            found[draw, i] = free[rng.integers(len(free))]
            taken.add(int(found[draw, i]))
    return found

"""Compiled loops over resamples: cross-modal weights of resampled memes, and the AUROC of resampled memes."""

from __future__ import annotations

import numpy as np

from sae_lens_meme.jit import njit


@njit(nogil=True)
def resampled_weights(cosines, memes, n_memes, weights, top):
    """omega of each latent and resample, float64 [replicates, latents]; NaN where fewer than `top` memes are drawn.

    `memes` [latents, most] are in descending order of activation, `n_memes` of them real; `cosines`
    [latents, most, most] are those of their texts and images; `weights` [n, replicates] say how often a meme is drawn.
    """
    latents, replicates = len(memes), weights.shape[1]
    out = np.full((replicates, latents), np.nan)
    drawn = np.empty(memes.shape[1])
    for i in range(latents):
        for r in range(replicates):
            left, used = top, 0
            while left > 0 and used < n_memes[i]:
                times = min(np.int64(weights[memes[i, used], r]), left)
                drawn[used] = times
                left -= times
                used += 1
            if left == 0:
                out[r, i] = _omega(cosines[i], drawn[:used], top)
    return out


@njit(nogil=True)
def _omega(cosines, drawn, top):
    """A meme that is drawn twice is never paired with itself: its own cosine counts among the paired ones alone."""
    paired, unpaired, pairs = 0.0, 0.0, float(top * top)
    for i in range(len(drawn)):
        if drawn[i] > 0:
            paired += drawn[i] * cosines[i, i]
            pairs -= drawn[i] * drawn[i]
            for j in range(len(drawn)):
                if i != j:
                    unpaired += drawn[i] * drawn[j] * cosines[i, j]
    if pairs == 0:
        return np.nan
    return paired / (top * top) + (top - 1) / top * unpaired / pairs


@njit(nogil=True)
def resampled_auroc(scores, true, strata, n_strata, weights):
    """AUROC within strata of each resample, float64 [replicates]; NaN where no stratum has both classes.

    Probability that a true meme scores above a false one of its stratum, ties half. Memes are in ascending order of
    score; `weights` [n, replicates] say how often each is drawn.
    """
    replicates = weights.shape[1]
    n_false, n_true = np.zeros((n_strata, replicates)), np.zeros((n_strata, replicates))
    won, start = np.zeros(replicates), 0
    while start < len(scores):
        stop = start + 1
        while stop < len(scores) and scores[stop] == scores[start]:
            stop += 1
        # A true meme beats the false ones below it and half of those it ties with: the mean of the counts before
        # and after the tied ones are added.
        _add_half_of(n_false, start, stop, true, strata, weights, won)
        for k in range(start, stop):
            counts = n_true[strata[k]] if true[k] else n_false[strata[k]]
            for r in range(replicates):
                counts[r] += weights[k, r]
        _add_half_of(n_false, start, stop, true, strata, weights, won)
        start = stop
    pairs = (n_false * n_true).sum(axis=0)
    return np.where(pairs > 0, won / np.maximum(pairs, 1.0), np.nan)


@njit(nogil=True)
def _add_half_of(n_false, start, stop, true, strata, weights, won):
    for k in range(start, stop):
        if true[k]:
            below = n_false[strata[k]]
            for r in range(len(won)):
                won[r] += 0.5 * weights[k, r] * below[r]

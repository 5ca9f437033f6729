"""Compiled loops over resamples: cross-modal weights of resampled memes, and the AUROC of resampled memes."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def resampled_auroc(scores, true, strata, n_strata, weights):
    """AUROC within strata of each resample, float64 [replicates]; NaN where no stratum has both classes.

    Probability that a true meme scores above a false one of its stratum, ties half. Memes are in ascending order of
    score; `weights` [replicates, n] say how often each is drawn.
    """
    out = np.empty(len(weights))
    n_false, n_true = np.empty(n_strata), np.empty(n_strata)
    for r in range(len(weights)):
        n_false[:], n_true[:] = 0.0, 0.0
        wins, start = 0.0, 0
        while start < len(scores):
            stop = start + 1
            while stop < len(scores) and scores[stop] == scores[start]:
                stop += 1
            wins += _won(start, stop, true, strata, weights[r], n_false, n_true)
            start = stop
        pairs = np.sum(n_false * n_true)
        out[r] = wins / pairs if pairs > 0 else np.nan
    return out


@njit(cache=True, nogil=True, inline="always")
def _won(start, stop, true, strata, weights, n_false, n_true):
    """Pairs that the true memes with one score win; `n_false` and `n_true` count false and true memes by stratum.

    A true meme beats the false ones below it, and half of those it ties with: the mean of the two counts before and
    after the tied ones are added.
    """
    won = 0.0
    for k in range(start, stop):
        if true[k]:
            won += 0.5 * weights[k] * n_false[strata[k]]
            n_true[strata[k]] += weights[k]
    for k in range(start, stop):
        if not true[k]:
            n_false[strata[k]] += weights[k]
    for k in range(start, stop):
        if true[k]:
            won += 0.5 * weights[k] * n_false[strata[k]]
    return won

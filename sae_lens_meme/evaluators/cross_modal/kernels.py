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

    Probability that a true meme scores above a false one of its stratum, ties half; `weights` [replicates, n].
    """
    order = np.argsort(scores)
    out = np.empty(len(weights))
    below, total_true = np.empty(n_strata), np.empty(n_strata)
    for r in range(len(weights)):
        below[:], total_true[:] = 0.0, 0.0
        wins, start = 0.0, 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and scores[order[stop]] == scores[order[start]]:
                stop += 1
            for k in range(start, stop):  # a true meme beats the false ones below, and half of those it ties with
                i = order[k]
                if true[i]:
                    wins += weights[r, i] * below[strata[i]]
                    total_true[strata[i]] += weights[r, i]
            if stop > start + 1:
                wins += 0.5 * _tied(order[start:stop], true, strata, weights[r])
            for k in range(start, stop):
                i = order[k]
                if not true[i]:
                    below[strata[i]] += weights[r, i]
            start = stop
        pairs = np.sum(below * total_true)
        out[r] = wins / pairs if pairs > 0 else np.nan
    return out


@njit(cache=True, nogil=True)
def _tied(tied, true, strata, weights):
    """Weight of the (true, false) pairs of one stratum among memes with one score."""
    pairs = 0.0
    for stratum in np.unique(strata[tied]):
        n_true, n_false = 0.0, 0.0
        for i in tied:
            if strata[i] == stratum and true[i]:
                n_true += weights[i]
            elif strata[i] == stratum:
                n_false += weights[i]
        pairs += n_true * n_false
    return pairs

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

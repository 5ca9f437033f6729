"""Words that are more frequent in the captions of memes that fire a latent, and counts of memes that two columns share.

Log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words", section 3.4), taken
within each source, so that a latent that follows a source is not named after its vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sae_lens_meme.jit import njit


class WordOdds(NamedTuple):
    """The words with the largest z of each latent, descending; -1 and NaN where fewer words have z > 0."""

    word: Int[np.ndarray, "latents top"]
    log_odds: Float[np.ndarray, "latents top"]
    z: Float[np.ndarray, "latents top"]


def word_log_odds(
    active: Any, occurs: Any, strata: Int[np.ndarray, " n"], *, alpha_0: float = 500.0, top: int = 5
) -> WordOdds:
    """The `top` words of all latents.

    In each stratum, with y counts of a word and n of all words in the captions that fire the latent (i) and in the
    others (j), and the prior alpha_w = alpha_0 * (share of the word among all words of the stratum):

        delta = log((y_i + alpha_w) / (n_i + alpha_0 - y_i - alpha_w)) - the same of j
        variance = 1 / (y_i + alpha_w) + 1 / (y_j + alpha_w)

    Strata are combined by weights 1 / variance: delta is the weighted mean, z = delta times the root of the sum of
    the weights (one stratum: the paper's zeta). A stratum in which the latent fires on no word, or on all, or
    which lacks the word, says nothing and is left out.

    Args:
        active: CSC [n, latents]; a latent fires where there is an entry.
        occurs: CSR [n, words] of 0 and 1.
        alpha_0: the size of the prior, in words: the larger, the more a rare word has to show.
    """
    n_strata = int(strata.max(initial=0)) + 1
    totals = np.zeros((occurs.shape[1], n_strata), np.int64)
    for s in range(n_strata):
        totals[:, s] = np.bincount(occurs[strata == s].indices, minlength=occurs.shape[1])
    pairs = (active.indptr, active.indices, occurs.indptr, occurs.indices)
    return WordOdds(*_top_words(*pairs, strata, totals, float(alpha_0), top))


@njit(nogil=True)
def _top_words(starts, rows, word_starts, words, strata, totals, alpha_0, top):
    latents, (n_words, n_strata) = len(starts) - 1, totals.shape
    best, odds, best_z = np.full((latents, top), -1), np.full((latents, top), np.nan), np.full((latents, top), np.nan)
    sizes, fired = totals.sum(axis=0), np.zeros(n_strata, np.int64)
    counts, seen, touched = (
        np.zeros((n_words, n_strata), np.int64),
        np.zeros(n_words, np.bool_),
        np.empty(n_words, np.int64),
    )
    for i in range(latents):
        n_touched = 0
        fired[:] = 0
        for row in rows[starts[i] : starts[i + 1]]:
            s = strata[row]
            fired[s] += word_starts[row + 1] - word_starts[row]
            for w in words[word_starts[row] : word_starts[row + 1]]:
                counts[w, s] += 1
                if not seen[w]:
                    seen[w] = True
                    touched[n_touched] = w
                    n_touched += 1
        for w in touched[:n_touched]:  # a word of none of these captions has no z above 0
            delta, z = _combined(counts[w], fired, totals[w], sizes, alpha_0)
            if z > 0:
                _insert(best[i], odds[i], best_z[i], w, delta, z)
            seen[w] = False
            counts[w] = 0
    return best, odds, best_z


@njit(nogil=True)
def _combined(count, fired, total, sizes, alpha_0):
    """delta and z of one word over the strata; 0 and 0 where no stratum says anything."""
    weighted, weights = 0.0, 0.0
    for s in range(len(count)):
        n_i, n_j = fired[s], sizes[s] - fired[s]
        if total[s] == 0 or n_i == 0 or n_j == 0:
            continue
        prior = alpha_0 * total[s] / sizes[s]
        y_i, y_j = count[s] + prior, total[s] - count[s] + prior
        other_i, other_j = n_i + alpha_0 - y_i, n_j + alpha_0 - y_j
        if total[s] == sizes[s]:  # the only word of its stratum
            continue
        weight = y_i * y_j / (y_i + y_j)
        weighted += weight * math.log(y_i * other_j / (other_i * y_j))
        weights += weight
    if weights == 0:
        return 0.0, 0.0
    return weighted / weights, weighted / math.sqrt(weights)


@njit(nogil=True)
def _insert(words, odds, zs, word, delta, z):
    """Keep the largest z, of equal ones the first word: the order of the memes must not matter."""
    place = len(zs)
    while place > 0 and (words[place - 1] < 0 or z > zs[place - 1] or (z == zs[place - 1] and word < words[place - 1])):
        place -= 1
    for j in range(len(zs) - 1, place, -1):
        words[j], odds[j], zs[j] = words[j - 1], odds[j - 1], zs[j - 1]
    if place < len(zs):
        words[place], odds[place], zs[place] = word, delta, z


@njit(nogil=True)
def counts_in_both(starts, rows, flag_starts, flag_rows, chosen, strata):
    """Sum of the weights of the memes that are in the column of the latent and in that of its statement."""
    out = np.zeros((len(chosen), strata.shape[1]))
    for i in range(len(chosen)):
        if chosen[i] < 0:
            continue
        j, k = starts[i], flag_starts[chosen[i]]
        while j < starts[i + 1] and k < flag_starts[chosen[i] + 1]:
            if rows[j] == flag_rows[k]:
                for s in range(strata.shape[1]):
                    out[i, s] += strata[rows[j], s]
                j += 1
                k += 1
            elif rows[j] < flag_rows[k]:
                j += 1
            else:
                k += 1
    return out

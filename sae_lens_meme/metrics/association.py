"""2 x 2 x strata tables of (latent fires) x (concept true), for all latents and concepts at once.

One pass over the activations that exist: O(non-zeros x concepts). Sizes of an association within strata follow from the
tables: odds ratios with intervals, differences in firing rate, F1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, UInt8
from scipy import sparse
from scipy.stats import norm

from sae_lens_meme.jit import njit

UNKNOWN, FALSE, TRUE = 0, 1, 2
"""Codes of a meme under a concept. Unknown memes are in no table."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Counts of latents x concepts x strata; the last axis is the stratum."""

    fires_true: Int[np.ndarray, "latents concepts strata"]
    fires: Int[np.ndarray, "latents concepts strata"]
    true: Int[np.ndarray, "concepts strata"]
    n: Int[np.ndarray, "concepts strata"]

    @cached_property
    def abcd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """fires & true, fires & false, silent & true, silent & false, by stratum: each [latents concepts strata]."""
        a, b, c = self.fires_true, self.fires - self.fires_true, self.true - self.fires_true
        return a, b, c, self.n - self.true - b

    @cached_property
    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same summed over strata: each [latents concepts]."""
        a, b, c, d = (count.sum(axis=-1) for count in self.abcd)
        return a, b, c, d


class Counter:
    """Counts tables again and again for the same memes under different weights.

    Args:
        active: [n, latents] sparse, best CSR; a latent fires where its value is above 0.
        codes: UNKNOWN, FALSE or TRUE for each meme and concept.
        strata: the stratum of each meme, 0, 1, ...
    """

    def __init__(self, active: Any, codes: UInt8[np.ndarray, "n concepts"], strata: Int[np.ndarray, " n"]):
        active = sparse.csr_matrix(active)
        if not (active.data > 0).all():
            active = (active > 0).tocsr()
        self._starts, self._latents, self._n_latents = active.indptr, active.indices, active.shape[1]
        self._flags = np.hstack([codes == TRUE, codes != UNKNOWN]).astype(np.int32)
        self._strata, self._n_strata = strata.astype(np.int64), int(strata.max(initial=0)) + 1

    def count(self, weights: Real[np.ndarray, " n"] | None = None) -> Tables:
        """Tables in which each meme counts `weights` times (whole numbers, default once)."""
        weights = np.ones(len(self._flags)) if weights is None else weights
        counts = np.zeros((self._n_strata, self._n_latents + 1, self._flags.shape[1]), np.int32)
        _count(self._starts, self._latents, self._flags, self._strata, weights.astype(np.int32), counts)
        halves = np.split(counts, 2, axis=2)
        fires_true, fires = (np.ascontiguousarray(half.transpose(1, 2, 0), dtype=np.int64) for half in halves)
        return Tables(fires_true[:-1], fires[:-1], fires_true[-1], fires[-1])


@njit(nogil=True)
def _count(starts, latents, flags, strata, weights, counts):
    """counts[stratum, latent, flag]; the last latent fires on every meme: the margins."""
    always = counts.shape[1] - 1
    for row in range(len(flags)):
        weight, s = weights[row], strata[row]
        if weight == 0:
            continue
        for c in range(flags.shape[1]):
            counts[s, always, c] += weight * flags[row, c]
        for j in range(starts[row], starts[row + 1]):
            latent = latents[j]  # outside the innermost loop, which then runs eight at a time
            for c in range(flags.shape[1]):
                counts[s, latent, c] += weight * flags[row, c]


Matrix = Float[np.ndarray, "latents concepts"]
Counts = Real[np.ndarray, "..."]  # bootstrap means of counts are not whole
Scores = Float[np.ndarray, "..."]


class OddsRatio(NamedTuple):
    """NaN where undefined: no discordant pair of memes (ratio 0/0 or x/0), or a ratio of 0 for the interval."""

    value: Matrix
    low: Matrix
    high: Matrix


def common_odds_ratio(tables: Tables) -> OddsRatio:
    """Mantel and Haenszel's odds ratio with the interval of Robins, Breslow and Greenland (1986).

    Equals `statsmodels.stats.contingency_tables.StratifiedTable.oddsratio_pooled`; with one stratum it is
    the sample odds ratio a d / (b c) with Woolf's interval.
    """
    a, b, c, d = tables.abcd
    n = np.maximum(tables.n, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        right, wrong = a * d / n, b * c / n
        agree, disagree = (a + d) / n, (b + c) / n
        r, w = right.sum(axis=-1), wrong.sum(axis=-1)
        value = np.where(w > 0, r / w, np.nan)
        mixed = (agree * wrong + disagree * right).sum(axis=-1)
        variance = (agree * right).sum(axis=-1) / r**2 + mixed / (r * w) + (disagree * wrong).sum(axis=-1) / w**2
        half = norm.ppf(0.975) * np.sqrt(variance / 2)
        defined = (r > 0) & (w > 0)
        low, high = (np.where(defined, value * np.exp(sign * half), np.nan) for sign in (-1, 1))
    return OddsRatio(value, low, high)


def firing_rate_difference(tables: Tables) -> Matrix:
    """P(fires | true) - P(fires | false) within strata, with Mantel and Haenszel's weights; NaN without both classes."""
    a, b, _, _ = tables.abcd
    true, false = tables.true, tables.n - tables.true
    weight = true * false / np.maximum(tables.n, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = a / np.maximum(true, 1) - b / np.maximum(false, 1)
        return (difference * weight).sum(axis=-1) / np.broadcast_to(weight.sum(axis=-1), difference.shape[:-1])


def phi_within(n: Counts, a: Counts, b: Counts, both: Counts, *, strata: int = -1) -> Scores:
    """Pearson's correlation of two properties within strata, from how many memes have each and both.

    NaN where one of them is constant in every stratum.

    Args:
        strata: the axis of the strata.
    """
    n = np.maximum(n, 1)
    together = (both - a * b / n).sum(strata)
    spread = (a * (1 - a / n)).sum(strata) * (b * (1 - b / n)).sum(strata)
    return np.divide(together, np.sqrt(spread), out=np.full(together.shape, np.nan), where=spread > 1e-9)


def f1_score(true_fired: Counts, fired: Counts, true: Counts) -> Scores:
    """2 tp / (fired + true); NaN where no meme is true (F1 says nothing there)."""
    return _share(2 * true_fired, np.where(true > 0, fired + true, 0))


def f1_bounds_at_ends(true_fired: Counts, fired: Counts, true: Counts) -> tuple[Scores, Scores]:
    """Interval of an F1 of exactly 0 or 1, where every bootstrap resample gives the same; NaN of any other F1.

    F1 = 2 J / (1 + J), where J = tp / (tp + fp + fn) is a binomial share of the memes that are true or fire (Lam,
    Gopal and Qian 2023, "Confidence intervals for the F1 score"). The bounds are Clopper and Pearson's, which at 0 and
    1 are those of the modified Jeffreys interval (Brown, Cai and DasGupta 2001).
    """
    either = np.asarray(fired) + true - true_fired
    tail = 0.025 ** (1 / np.maximum(either, 1))
    at_0, at_1 = ((np.asarray(true) > 0) & (true_fired == end) for end in (0, either))
    low = np.where(at_0, 0.0, np.where(at_1, 2 * tail / (1 + tail), np.nan))
    high = np.where(at_0, 2 * (1 - tail) / (2 - tail), np.where(at_1, 1.0, np.nan))
    return low, high


def precision(true_fired: Counts, fired: Counts) -> Scores:
    """NaN where nothing fires."""
    return _share(true_fired, fired)


def recall(true_fired: Counts, true: Counts) -> Scores:
    """NaN where nothing is true."""
    return _share(true_fired, true)


def f1_always_on(true: Counts, n: Counts) -> Scores:
    """F1 of a latent that fires on every meme: 2p / (1 + p) at prevalence p."""
    return f1_score(true, n, true)


def f1_ceiling(fired: Counts, true: Counts) -> Scores:
    """The largest F1 at this firing rate r and prevalence p: 2 min(r, p) / (r + p)."""
    return f1_score(np.minimum(fired, true), fired, true)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

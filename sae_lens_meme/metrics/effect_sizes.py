"""Sizes of an association, within strata: odds ratios with intervals, and differences in firing rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from scipy.stats import norm

from sae_lens_meme.metrics.contingency import Tables

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

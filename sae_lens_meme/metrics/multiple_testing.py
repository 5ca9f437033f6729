"""Benjamini-Hochberg over families in which some tests could not be done; and one p from several of the same hypothesis."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control


def benjamini_hochberg(log_p: Float[np.ndarray, "*tests"]) -> Float[np.ndarray, "*tests"]:
    """q-values with all tests as one family; NaN (not tested) stays NaN and is not counted.

    Args:
        log_p: natural logs of p.
    """
    q = np.full(log_p.shape, np.nan)
    tested = ~np.isnan(log_p)
    if tested.any():
        q[tested] = false_discovery_control(np.exp(log_p[tested]))
    return q


def benjamini_hochberg_by_concept(
    log_p: Float[np.ndarray, "latents concepts"],
) -> Float[np.ndarray, "latents concepts"]:
    """q-values with the tests of each concept as a family of their own."""
    return np.stack([benjamini_hochberg(column) for column in log_p.T], axis=1) if log_p.shape[1] else log_p.copy()


def rejected(log_p: Float[np.ndarray, "*tests"], alpha: float) -> Bool[np.ndarray, "*tests"]:
    """Whether q < alpha, all tests as one family; the same as comparing `benjamini_hochberg`, without the q.

    Only the p below alpha are looked at: the others may be given as 1.
    """
    tested = np.count_nonzero(~np.isnan(log_p))
    small = np.sort(log_p[log_p < np.log(alpha) + 1e-9])
    below = np.flatnonzero(np.exp(small) < alpha * np.arange(1, len(small) + 1) / max(tested, 1))
    return log_p <= (small[below[-1]] if len(below) else -np.inf)


def median_p(log_p: Float[np.ndarray, "draws *tests"]) -> Float[np.ndarray, "*tests"]:
    """Natural log of one p from several of the same hypothesis, however these depend on each other.

    K / k times the k-th smallest of K is a valid p (Rueger 1978; Vovk and Wang 2020, Combining p-values via averaging);
    here the median, so that one lucky draw decides nothing. A draw in which nothing could be tested has p = 1; NaN where
    nothing could be tested in any.
    """
    draws, k = len(log_p), len(log_p) // 2
    ordered = np.sort(np.where(np.isnan(log_p), 0.0, log_p), axis=0)
    return np.where(np.isnan(log_p).all(axis=0), np.nan, np.minimum(ordered[k] + np.log(draws / (k + 1)), 0.0))

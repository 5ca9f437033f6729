"""Benjamini-Hochberg over families of tests of which some could not be done."""

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
    """Whether q < alpha, all tests as one family; the same as comparing `benjamini_hochberg`, without the q."""
    flat = np.sort(log_p[~np.isnan(log_p)])
    steps = alpha * np.arange(1, len(flat) + 1) / len(flat) if len(flat) else flat
    below = np.flatnonzero(np.exp(flat) < steps)
    return log_p <= (flat[below[-1]] if len(below) else -np.inf)

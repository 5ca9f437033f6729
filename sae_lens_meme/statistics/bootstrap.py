"""Resampling memes: bootstrap weights for means and scores, random halves for counts of significant tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int


def bootstrap_weights(strata: Int[np.ndarray, " n"], replicates: int, seed: int) -> Iterator[Int[np.ndarray, " n"]]:
    """How often each meme is drawn when as many memes are drawn, with replacement, within each stratum."""

    def draw(n: int, generator: np.random.Generator) -> np.ndarray:
        return np.bincount(generator.integers(0, n, n), minlength=n)

    return _within_strata(draw, strata, replicates, seed)


def half_weights(strata: Int[np.ndarray, " n"], replicates: int, seed: int) -> Iterator[Int[np.ndarray, " n"]]:
    """1 for a random half of the memes of each stratum (an odd one falls to either), 0 for the others."""

    def draw(n: int, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(n) < (n + int(generator.integers(2))) // 2

    return _within_strata(draw, strata, replicates, seed)


def percentile_interval(replicates: Float[np.ndarray, "replicates *values"], confidence: float = 0.95) -> np.ndarray:
    """Low and high, `[2, *values]`; NaN replicates are left out (all NaN gives NaN)."""
    tail = (1 - confidence) / 2
    undefined = np.isnan(replicates).all(axis=0)
    filled = np.where(undefined, 0.0, replicates)
    return np.where(undefined, np.nan, np.nanquantile(filled, [tail, 1 - tail], axis=0))


def count_interval(
    count: Callable[[Int[np.ndarray, " n"]], np.ndarray],
    estimate: np.ndarray,
    strata: Int[np.ndarray, " n"],
    replicates: int = 200,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of counts of significant tests, by the delete-half jackknife (Shao and Wu 1989).

    A bootstrap resample is wrong here: a meme drawn twice passes for independent evidence, and
    labels without any association give many significant tests. The spread of the counts over random halves
    of the memes (which needs no rescaling at exactly one half) is laid around the estimate instead.

    Args:
        count: from weights of memes to counts [values]; called from two threads.

    Returns:
        low and high, `[2, *values]`, at least 0, and the median count at half the memes.
    """
    with ThreadPoolExecutor(2) as threads:
        counts = np.array(list(threads.map(count, half_weights(strata, replicates, seed))), dtype=np.float64)
    median = np.median(counts, axis=0)
    return np.maximum(estimate + percentile_interval(counts - median), 0.0), median


def _within_strata(
    draw: Callable[[int, np.random.Generator], np.ndarray], strata: Int[np.ndarray, " n"], replicates: int, seed: int
) -> Iterator[Int[np.ndarray, " n"]]:
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    for _ in range(replicates):
        weights = np.zeros(len(strata), np.int64)
        for rows in groups:
            weights[rows] = draw(len(rows), generator)
        yield weights

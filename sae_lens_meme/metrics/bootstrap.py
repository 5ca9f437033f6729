"""Resampling memes: bootstrap weights for means and scores, random subsets for counts of significant tests.

Memes of one group (copies of a picture, a template, a pair that differs in one thing) are not independent evidence: they
are drawn together. A group that lies in several strata is drawn in that of its first meme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

KEPT = 0.8
"""Share of the groups in a subset of `count_interval`."""
Groups = Int[np.ndarray, " n"] | None
"""The group of each meme; None: each is its own."""


def bootstrap_weights(
    strata: Int[np.ndarray, " n"], replicates: int, seed: int, groups: Groups = None
) -> Iterator[Int[np.ndarray, " n"]]:
    """How often each meme is drawn when as many groups are drawn, with replacement, within each stratum."""

    def draw(n: int, generator: np.random.Generator) -> np.ndarray:
        return np.bincount(generator.integers(0, n, n), minlength=n)

    return _within_strata(draw, strata, replicates, seed, groups)


def subset_weights(
    strata: Int[np.ndarray, " n"], replicates: int, seed: int, share: float = 0.5, groups: Groups = None
) -> Iterator[Int[np.ndarray, " n"]]:
    """1 for the memes of a random share of the groups of each stratum (rounded at random), 0 for the others."""

    def draw(n: int, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(n) < int(share * n + generator.random())

    return _within_strata(draw, strata, replicates, seed, groups)


def percentile_interval(replicates: Float[np.ndarray, "replicates *values"], confidence: float = 0.95) -> np.ndarray:
    """Low and high, `[2, *values]`; NaN replicates are left out (all NaN gives NaN).

    As numpy's nanquantile, 40 times faster: numpy's works value by value.
    """
    ordered = np.sort(np.asarray(replicates), axis=0)  # NaN goes last
    last = np.maximum(len(ordered) - np.isnan(ordered).sum(axis=0) - 1, 0)
    place = np.array([(1 - confidence) / 2, (1 + confidence) / 2]).reshape(-1, *[1] * last.ndim) * last
    below = np.floor(place).astype(np.int64)
    low = np.take_along_axis(ordered, below, axis=0)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=0)
    return low + (place - below) * (high - low)


def count_interval(
    count: Callable[[Int[np.ndarray, " n"]], np.ndarray],
    estimate: np.ndarray,
    strata: Int[np.ndarray, " n"],
    replicates: int = 200,
    seed: int = 0,
    groups: Groups = None,
) -> np.ndarray:
    """95 % interval of counts of significant tests, by the delete-d jackknife (Shao and Wu 1989), d a fifth of the groups.

    A bootstrap resample is wrong here: a meme drawn twice passes for independent evidence, and
    labels without any association give many significant tests. The spread of the counts over random subsets
    of four fifths of the groups, times sqrt(4 / 1), is laid around the estimate instead. (Halves would need no
    factor, but tests lose so much power there that the spread is that of another count.)

    Args:
        count: from weights of memes to counts [values]; called from two threads.

    Returns:
        low and high, `[2, *values]`, at least 0.
    """
    subsets = subset_weights(strata, replicates, seed, KEPT, groups)
    with ThreadPoolExecutor(2) as threads:
        counts = np.array(list(threads.map(count, subsets)), dtype=np.float64)
    deviations = (counts - np.median(counts, axis=0)) * np.sqrt(KEPT / (1 - KEPT))
    return np.maximum(estimate + percentile_interval(deviations), 0.0)


def one_each(groups: Int[np.ndarray, " n"], draws: int, seed: int) -> Iterator[Int[np.ndarray, " n"]]:
    """1 for one random meme of each group, 0 for the others."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        order = generator.permutation(len(groups))
        weights = np.zeros(len(groups), np.int64)
        weights[order[np.unique(groups[order], return_index=True)[1]]] = 1
        yield weights


def _within_strata(
    draw: Callable[[int, np.random.Generator], np.ndarray],
    strata: Int[np.ndarray, " n"],
    replicates: int,
    seed: int,
    groups: Groups,
) -> Iterator[Int[np.ndarray, " n"]]:
    generator = np.random.default_rng(seed)
    # groups in the order of their first memes: where each meme is its own, units are memes
    unit, _ = pd.factorize(np.arange(len(strata)) if groups is None else groups)
    stratum = np.asarray(strata)[np.unique(unit, return_index=True)[1]]
    units = [np.flatnonzero(stratum == s) for s in np.unique(strata)]
    for _ in range(replicates):
        weights = np.zeros(len(stratum), np.int64)
        for mine in units:
            weights[mine] = draw(len(mine), generator)
        yield weights[unit]

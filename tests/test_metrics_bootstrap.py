from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.fisher import fisher_greater
from sae_lens_meme.metrics.multiple_testing import rejected
from sae_lens_meme.metrics.resampling import (
    bootstrap_weights,
    count_interval,
    percentile_interval,
    subset_weights,
)

STRATA = np.repeat([0, 1, 2], [70, 20, 11])


def test_weights_keep_the_size_of_each_stratum():
    for weights in bootstrap_weights(STRATA, 20, seed=0):
        np.testing.assert_array_equal(np.bincount(STRATA, weights), [70, 20, 11])
    halves = np.array(list(subset_weights(STRATA, 200, seed=0)))
    assert set(np.unique(halves)) == {0, 1}
    np.testing.assert_array_equal(np.unique(halves[:, STRATA == 2].sum(axis=1)), [5, 6])
    np.testing.assert_allclose(halves.mean(axis=0), 0.5, atol=0.15)


def test_the_same_seed_draws_the_same_memes():
    first, again = (np.array(list(bootstrap_weights(STRATA, 5, seed=3))) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_interval_of_a_mean_is_the_normal_one_on_many_memes():
    x = np.random.default_rng(0).exponential(2.0, (4000, 2))
    means = [weights @ x / 4000 for weights in bootstrap_weights(np.zeros(4000, np.int64), 2000, seed=0)]
    low, high = percentile_interval(np.array(means))
    half = stats.norm.ppf(0.975) * x.std(axis=0) / np.sqrt(4000)
    np.testing.assert_allclose(low, x.mean(axis=0) - half, rtol=0.005)
    np.testing.assert_allclose(high, x.mean(axis=0) + half, rtol=0.005)


def test_undefined_replicates_are_left_out():
    replicates = np.array([[1.0, np.nan, np.nan], [2.0, 4.0, np.nan], [3.0, 4.0, np.nan]])
    low, high = percentile_interval(replicates, confidence=0.5)
    np.testing.assert_array_equal(low, [1.5, 4.0, np.nan])
    np.testing.assert_array_equal(high, [2.5, 4.0, np.nan])


@pytest.fixture(scope="module")
def noise() -> Counter:
    rng = np.random.default_rng(0)
    z = sparse.csr_matrix((rng.random((2000, 300)) < 0.1).astype(np.float32))
    return Counter(z, rng.integers(1, 3, (2000, 8)).astype(np.uint8), np.zeros(2000, np.int64))


def test_why_counts_are_not_bootstrapped(noise):
    """Labels and latents know nothing of each other; a meme drawn twice counts as evidence twice."""
    strata = np.zeros(2000, np.int64)

    def count(weights: np.ndarray | None = None) -> np.ndarray:
        return np.array([rejected(fisher_greater(noise.count(weights)), 0.05).sum()])

    assert count() <= 1
    assert np.median([count(weights) for weights in bootstrap_weights(strata, 11, seed=0)]) > 20
    low, high = count_interval(count, count(), strata, replicates=40)
    assert low == 0
    assert high <= 3


@pytest.mark.parametrize("shift", [2.5, 3.3, 4.0, 5.0])
def test_the_interval_of_a_count_covers_it_as_often_as_it_says(shift):
    """200 z tests, significant above 4, whose power falls with the memes: 95 of 100 intervals hold the expected count."""
    n, tests = 400, 200
    expected = tests * stats.norm.sf(4 - shift)
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(shift / np.sqrt(n), 1, (n, tests))

        def count(weights: np.ndarray, x: np.ndarray = x) -> np.ndarray:
            return np.array([(weights @ x / np.sqrt(weights.sum()) > 4).sum()])

        low, high = count_interval(count, count(np.ones(n)), np.zeros(n, np.int64), replicates=100, seed=seed)
        covered += low[0] <= expected <= high[0]
    assert covered >= 53

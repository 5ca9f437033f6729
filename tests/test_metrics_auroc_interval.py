"""Intervals of AUROCs: they hold the truth as often as they say, also with few memes of a kind."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from sae_lens_meme.metrics.auroc_interval import Kinds, auroc_interval, delong_interval

FIRES = 0.1
"""Share of the false memes on which a latent fires: the others are one tie at the bottom."""


def draws(n_true: int, n_false: int, auroc: float, ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """AUROCs of 1,500 samples with DeLong's errors, and the true AUROC."""
    rng = np.random.default_rng(seed)
    shift, silent = norm.ppf(auroc) * np.sqrt(2), norm.ppf(1 - FIRES) if ties else -np.inf

    def kernel(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        true, false = (np.maximum(x, silent) for x in (true, false))
        return (true[..., :, None] > false[..., None, :]) + 0.5 * (true[..., :, None] == false[..., None, :])

    won = kernel(rng.normal(size=(1500, n_true)) + shift, rng.normal(size=(1500, n_false)))
    of_true, of_false = won.mean(axis=2).var(axis=1, ddof=1), won.mean(axis=1).var(axis=1, ddof=1)
    error = np.sqrt(of_true / n_true + of_false / n_false)
    truth = kernel(rng.normal(size=(400, 300)) + shift, rng.normal(size=(400, 300))).mean()
    return won.mean(axis=(1, 2)), np.where(error > 1e-9, error, np.nan), float(truth)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("auroc", [0.5, 0.7, 0.85, 0.95])
@pytest.mark.parametrize(("n_true", "n_false"), [(2, 60), (8, 60), (8, 150), (19, 19)])
def test_with_few_memes_of_a_kind_the_interval_holds_the_truth(n_true, n_false, auroc, ties):
    value, error, truth = draws(n_true, n_false, auroc, ties)
    low, high = auroc_interval(value, error, Kinds(np.array([n_true]), np.array([n_false])))
    assert ((low <= truth) & (truth <= high)).mean() >= 0.92 - 2 * np.sqrt(0.92 * 0.08 / 1500)


def test_delongs_does_not():
    value, error, truth = draws(8, 150, 0.85, ties=False)
    low, high = delong_interval(value, error)
    assert ((low <= truth) & (truth <= high)).mean() < 0.88


def test_with_many_of_both_kinds_it_is_delongs():
    value, error, _ = draws(40, 60, 0.8, ties=False)
    kinds = Kinds(np.array([40]), np.array([60]))
    np.testing.assert_array_equal(auroc_interval(value, error, kinds), delong_interval(value, error))
    assert not kinds.few


@pytest.mark.parametrize(("m", "n", "value"), [(8, 50, 0.8), (5, 5, 1.0), (3, 90, 0.0), (12, 15, 0.5)])
def test_the_bounds_are_newcombes(m, n, value):
    """Roots of |value - t| = z sqrt(V(t)), his equation, found by scipy."""

    def apart(t: float, sign: int) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        return sign * (value - t) - norm.ppf(0.975) * np.sqrt(t * (1 - t) * spread / (m * n))

    low, high = auroc_interval(np.array([value]), np.array([0.1]), Kinds(np.array([[m]]), np.array([[n]])))
    inner = min(max(value, 1e-12), 1 - 1e-12)
    assert low[0] == pytest.approx(brentq(apart, 1e-12, inner, args=(1,)) if value > 0 else 0, abs=1e-8)
    assert high[0] == pytest.approx(brentq(apart, inner, 1 - 1e-12, args=(-1,)) if value < 1 else 1, abs=1e-8)


def test_kinds_that_are_apart_have_an_interval_and_one_meme_has_none():
    value, error = np.array([1.0, 1.0, np.nan]), np.full(3, np.nan)
    low, high = auroc_interval(value, error, Kinds(np.array([[30], [1], [30]]), np.array([[40], [40], [0]])))
    assert 0.85 < low[0] < 1 == high[0]
    assert np.isnan([low[1], high[1], low[2], high[2]]).all()


def test_memes_of_one_group_count_once_and_strata_without_both_kinds_not_at_all():
    codes = np.array([2, 2, 2, 1, 1, 2, 0, 1], dtype=np.uint8)[:, None]
    strata, groups = np.array([0, 0, 0, 0, 0, 1, 1, 0]), np.array([7, 7, 3, 4, 4, 5, 6, 9])
    kinds = Kinds.of(codes, strata, groups)
    np.testing.assert_array_equal(kinds.true, [[2, 1]])
    np.testing.assert_array_equal(kinds.false, [[2, 0]])
    assert (kinds.least, kinds.few) == (2, True)
    np.testing.assert_array_equal(Kinds.of(codes, strata).true, [[3, 1]])

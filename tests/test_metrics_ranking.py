"""AUROC, best F1 and thresholds against sklearn and naive loops, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import f1_score, roc_auc_score

from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1, confusion


def draw(seed: int, n: int = 80, latents: int = 7, concepts: int = 5, levels: int = 0, unknown: float = 0.2):
    """Activations (rounded to `levels` values: ties), codes and strata."""
    rng = np.random.default_rng(seed)
    z = rng.random((n, latents)) * (rng.random((n, latents)) < rng.random(latents))
    z = np.ceil(z * levels) / levels if levels else z
    codes = np.where(rng.random((n, concepts)) < unknown, 0, rng.integers(1, 3, (n, concepts))).astype(np.uint8)
    return z.astype(np.float32), codes, rng.integers(0, 3, n)


def ranked(z: np.ndarray) -> Ranked:
    return Ranked.of(sparse.csc_matrix(z))


CASES = [(0, 0), (1, 3), (2, 1), (3, 8)]


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_best_f1_equals_sklearn_at_every_threshold(seed, levels):
    z, codes, _ = draw(seed, n=40, latents=4, concepts=3, levels=levels)
    best = best_f1(ranked(z), codes)
    for i, c in np.ndindex(best.f1.shape):
        known = codes[:, c] > 0
        x, y = z[known, i], codes[known, c] == 2
        scores = {t: f1_score(y, x >= t, zero_division=0.0) for t in np.unique(x[x > 0])}
        assert best.f1[i, c] == pytest.approx(max(scores.values(), default=0.0), abs=1e-15)
        if scores:
            assert scores[np.float32(best.threshold[i, c])] == pytest.approx(best.f1[i, c])
        else:
            assert np.isnan(best.threshold[i, c])


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_pooled_auroc_equals_sklearn(seed, levels):
    z, codes, _ = draw(seed, levels=levels)
    value = auroc(ranked(z), codes, np.zeros(len(z), np.int64)).value
    for i, c in np.ndindex(value.shape):
        known = codes[:, c] > 0
        assert value[i, c] == pytest.approx(roc_auc_score(codes[known, c] == 2, z[known, i]), abs=1e-14)


@pytest.mark.parametrize(("seed", "levels"), CASES)
def test_auroc_within_strata_and_its_error_equal_a_loop_over_pairs(seed, levels):
    z, codes, strata = draw(seed, n=50, levels=levels)
    got = auroc(ranked(z), codes, strata)
    for i, c in np.ndindex(got.value.shape):
        pairs = wins = variance = 0.0
        known = False
        for s in range(3):
            true, false = z[(codes[:, c] == 2) & (strata == s), i], z[(codes[:, c] == 1) & (strata == s), i]
            kernel = (true[:, None] > false) + 0.5 * (true[:, None] == false)
            pairs, wins = pairs + kernel.size, wins + kernel.sum()
            if kernel.size:  # DeLong: the variance of the two sets of placements
                of_true = kernel.mean(axis=1).var(ddof=1) / len(true) if len(true) > 1 else 0.0
                of_false = kernel.mean(axis=0).var(ddof=1) / len(false) if len(false) > 1 else 0.0
                variance += kernel.size**2 * (of_true + of_false)
                known = known or min(kernel.shape) > 1
        assert got.value[i, c] == pytest.approx(wins / pairs, abs=1e-14)
        error = variance**0.5 / pairs if known and variance > 1e-6 else np.nan
        assert got.standard_error[i, c] == pytest.approx(error, abs=1e-9, nan_ok=True)


def test_no_error_is_claimed_where_delong_has_none():
    """One true meme above all others, and two kinds that are apart: the formula says 0, which nobody knows."""
    z = np.arange(1, 51, dtype=np.float32)[:, None]
    for n_true in (1, 25):
        codes = np.where(np.arange(50) >= 50 - n_true, 2, 1).astype(np.uint8)[:, None]
        found = auroc(ranked(z), codes, np.zeros(50, np.int64))
        assert found.value[0, 0] == 1
        assert np.isnan(found.standard_error[0, 0])


def test_auroc_of_one_class_is_undefined():
    z, codes, strata = draw(0)
    codes[:, 0] = np.minimum(codes[:, 0], 1)
    got = auroc(ranked(z), codes, strata)
    assert np.isnan(got.value[:, 0]).all()
    assert not np.isnan(got.value[:, 1]).any()


def test_confusion_equals_a_loop():
    z, codes, _ = draw(4, levels=5)
    threshold = np.random.default_rng(0).random((7, 5))
    threshold[2, 3] = np.nan
    true, fired = confusion(ranked(z), codes, threshold)
    for i, c in np.ndindex(threshold.shape):
        fires = (z[:, i] >= threshold[i, c]) & (codes[:, c] > 0) & (z[:, i] > 0)
        assert (true[i, c], fired[i, c]) == ((fires & (codes[:, c] == 2)).sum(), fires.sum())


def test_a_latent_that_always_has_the_same_activation_is_one_tie():
    """A quadratic loop over ties would take minutes here."""
    n = 200_000
    codes = np.random.default_rng(0).integers(1, 3, (n, 1)).astype(np.uint8)
    got = auroc(ranked(np.ones((n, 1), np.float32)), codes, np.zeros(n, np.int64))
    assert got.value[0, 0] == 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 2, 6]))
def test_invariances(seed, levels):
    z, codes, strata = draw(seed, levels=levels)
    codes[0], codes[1] = 1, 2
    base_f1, base_auc = best_f1(ranked(z), codes), auroc(ranked(z), codes, strata)

    order = np.random.default_rng(seed).permutation(len(z))
    np.testing.assert_array_equal(best_f1(ranked(z[order]), codes[order]).f1, base_f1.f1)
    np.testing.assert_allclose(auroc(ranked(z[order]), codes[order], strata[order]).value, base_auc.value, rtol=1e-13)

    twice = best_f1(ranked(np.vstack([z, z])), np.vstack([codes, codes]))
    np.testing.assert_allclose(twice.f1, base_f1.f1, rtol=1e-14)
    np.testing.assert_array_equal(twice.threshold, base_f1.threshold)
    doubled = auroc(ranked(np.vstack([z, z])), np.vstack([codes, codes]), np.concatenate([strata, strata]))
    np.testing.assert_allclose(doubled.value, base_auc.value, rtol=1e-13)

    scaled = z * np.float32(4)  # a power of two, so that ties stay ties
    np.testing.assert_array_equal(best_f1(ranked(scaled), codes).f1, base_f1.f1)
    np.testing.assert_array_equal(auroc(ranked(scaled), codes, strata).value, base_auc.value)

"""The logistic regression against scikit-learn's, on dense, sparse, separable and badly scaled rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from sae_lens_meme.metrics import logistic
from sae_lens_meme.metrics.logistic import fit_logistic


def draw(n: int, d: int, classes: int, seed: int, density: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) + rng.standard_normal((n, 3)) @ rng.standard_normal((3, d))) * 0.5
    scores = x @ rng.standard_normal((d, classes)) + rng.gumbel(size=(n, classes)) + np.arange(classes)
    return x * (rng.random((n, d)) < density), scores.argmax(axis=1) * 2 - 3


def scikit_learn(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it cannot reach this tolerance: as near as float64 comes
        return LogisticRegression(C=1, solver="newton-cholesky", tol=1e-14).fit(x, y)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_it_is_scikit_learns(kind, classes, seed):
    x, y = draw(300, 20, classes, seed, density=0.3 if kind == "sparse" else 1.0)
    (fit,) = fit_logistic(sparse.csr_matrix(x) if kind == "sparse" else x, [y], np.unique(y))
    expected = scikit_learn(x, y)
    np.testing.assert_allclose(fit.coef, expected.coef_, atol=1e-8)
    np.testing.assert_allclose(fit.intercept, expected.intercept_, atol=1e-8)
    assert fit.gradient_norm <= logistic.TOLERANCE


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, y = draw(300, 20, 3, 7)
    (whole,) = fit_logistic(x, [y], np.unique(y))
    monkeypatch.setattr(logistic, "BLOCK_VALUES", 20 * 7)
    (blocked,) = fit_logistic(x, [y], np.unique(y))
    np.testing.assert_allclose(blocked.coef, whole.coef, atol=1e-10)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_several_labels_at_once_are_the_same_as_one_by_one(kind):
    x, y = draw(400, 15, 3, 1)
    x = sparse.csr_matrix(x) if kind == "sparse" else x
    rng = np.random.default_rng(0)
    labels = [y, *(rng.permutation(y) for _ in range(3)), np.roll(y, 1)]
    together = fit_logistic(x, labels, np.unique(y))
    for fit, label in zip(together, labels, strict=True):
        (alone,) = fit_logistic(x, [label], np.unique(y))
        np.testing.assert_allclose(fit.coef, alone.coef, atol=1e-8)
        np.testing.assert_allclose(fit.intercept, alone.intercept, atol=1e-8)


def test_the_gradient_norm_is_that_of_the_objective():
    x, y = draw(200, 10, 4, 3)
    (fit,) = fit_logistic(x, [y], np.unique(y))
    residual = softmax(x @ fit.coef.T + fit.intercept, axis=1) - (y[:, None] == np.unique(y))
    gradient = np.column_stack([residual.T @ x + fit.coef, residual.sum(axis=0)])
    assert np.linalg.norm(gradient) == pytest.approx(fit.gradient_norm, rel=0.5, abs=1e-11)


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_and_large_and_more_columns_than_rows(classes):
    rng = np.random.default_rng(classes)
    x = 1e3 * rng.standard_normal((40, 90))
    x[:, 3], x[:, 4] = 0, x[:, 5]
    y = rng.integers(0, classes, 40)
    (fit,) = fit_logistic(x, [y], np.unique(y))
    assert fit.gradient_norm < 1e-4
    assert (np.argmax(x @ fit.coef.T + fit.intercept, axis=1) == y).all() if classes > 2 else True
    np.testing.assert_allclose(fit.coef, scikit_learn(x, y).coef_, atol=1e-5)


def test_a_very_rare_class_and_a_small_penalty_share():
    x, y = draw(4000, 6, 2, 5)
    y = np.where(np.arange(4000) < 3, 1, 0)
    (fit,) = fit_logistic(x, [y], np.array([0, 1]))
    np.testing.assert_allclose(fit.coef, scikit_learn(x, y).coef_, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_several_penalties_at_once_are_scikit_learns(kind, classes):
    x, y = draw(300, 20, classes, 2, density=0.3 if kind == "sparse" else 1.0)
    penalties = (0.01, 1.0, 20.0)
    rows = sparse.csr_matrix(x) if kind == "sparse" else x
    fits = fit_logistic(rows, [y] * 3, np.unique(y), penalties)
    for fit, C in zip(fits, penalties, strict=True):
        expected = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(x, y)
        np.testing.assert_allclose(fit.coef, expected.coef_, atol=1e-6)
        np.testing.assert_allclose(fit.intercept, expected.intercept_, atol=1e-6)
        assert fit.gradient_norm <= logistic.TOLERANCE

"""Mean and std of the training rows against numpy, and of dimensions that do not vary."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from hypothesis import given
from hypothesis import strategies as st

from sae_lens_meme.errors import DataError
from sae_lens_meme.standardize import moments, train_moments


def in_batches(x: np.ndarray, size: int = 4096) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e15])
@pytest.mark.parametrize("shift", [0, 1000])  # a mean that swamps the spread
def test_equal_to_numpy_at_every_scale(scale: float, shift: float):
    x = (anisotropic(9000, 12, np.random.default_rng(0)).astype(np.float64) + shift) * scale
    mean, std, dead = moments(in_batches(x))
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, x.std(0, ddof=1), rtol=1e-9)
    assert not dead.any()


@given(n=st.integers(2, 50), size=st.integers(1, 60))
def test_batches_do_not_matter(n: int, size: int):
    x = anisotropic(50, 6, np.random.default_rng(1))[:n]
    whole, parts = moments([x]), moments(in_batches(x, size))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-12)


@pytest.mark.parametrize("noise", [0, 1e-45, 1e-33, 1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("n_dead", [1, 20])  # one, and most of them
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_dimension_of_noise_is_dead(noise: float, n_dead: int, scale: float):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 24)).astype(np.float32)
    x[:, :n_dead] = 0.1 * (noise == 0) + noise * rng.standard_normal((500, n_dead))
    mean, std, dead = moments(in_batches(x * np.float32(scale), 100))
    assert dead.nonzero()[0].tolist() == list(range(n_dead))
    z = (x * np.float32(scale) - mean) / std
    np.testing.assert_allclose(z[:, n_dead:].std(0, ddof=1), 1, rtol=1e-6)
    assert np.abs(z[:, :n_dead]).max() < 0.01
    weights = moments([x]).zscore_weights
    np.testing.assert_allclose(weights, np.where(dead, 0, 1 / x.astype(float).var(0, ddof=1).clip(1e-9)), rtol=1e-6)


def test_small_dimensions_beside_large_ones_live():
    """Real vectors have a few dimensions with most of the variance."""
    x = np.random.default_rng(0).standard_normal((500, 256)) * np.where(np.arange(256) < 3, 1000, 1)
    assert not moments([x]).dead.any()


@pytest.mark.parametrize("n", [1, 7])
def test_rows_that_are_all_alike_have_std_1(n: int):
    mean, std, dead = moments([np.full((n, 3), 0.1, dtype=np.float32)])
    assert mean.tolist() == [np.float32(0.1)] * 3
    assert std.tolist() == [1, 1, 1]
    assert dead.all()


def test_only_train_rows_count():
    x = anisotropic(40, 5, np.random.default_rng(0))
    embeddings = make_embeddings({"hook_fused": x}, splits=["train", "test"] * 20)
    np.testing.assert_allclose(train_moments(embeddings, "hook_fused").std, x[::2].astype(float).std(0, ddof=1))
    with pytest.raises(DataError, match="no rows of split 'train'"):
        train_moments(make_embeddings({"hook_fused": x}, splits=["test"] * 40), "hook_fused")

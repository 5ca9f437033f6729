"""Memory of the evaluators grows with the latents that fire, once: not with copies of them, nor with memes x d_sae."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from sae_lens import StandardSAE, StandardSAEConfig
from scipy import sparse
from tiny_sae import tiny_sae

from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.classifiers import fit_latent_probes
from sae_lens_meme.evaluators.decoding import reconstructed
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.rows import resampled
from sae_lens_meme.metrics.by_column import count_by_column, sum_by_column
from sae_lens_meme.metrics.ranking import Ranked

N, D_SAE, K = 20_000, 400, 16


@pytest.fixture(scope="module")
def latents():
    """As many latents on every meme, as of a TopK SAE."""
    rng = np.random.default_rng(0)
    indices = np.sort(rng.random((N, D_SAE), np.float32).argpartition(K, axis=1)[:, :K].astype(np.int32), axis=1)
    return Latents(indices, rng.random((N, K), np.float32) + 0.1, D_SAE)


def peak_of(function: Callable[[], Any]) -> tuple[Any, int]:
    """What it returns, and the bytes that it needed at once beyond those that were there; compiled before."""
    function()
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_matrix_of_unpadded_latents_is_no_copy(latents):
    matrix = Latents(latents.indices, latents.values, D_SAE).csr()
    assert np.shares_memory(matrix.data, latents.values)
    assert np.shares_memory(matrix.indices, latents.indices)
    padded = Latents(latents.indices, np.where(np.arange(K) < 3, latents.values, 0), D_SAE).csr()
    np.testing.assert_array_equal(padded.toarray(), sparse.csr_matrix(padded.toarray()).toarray())
    assert padded.nnz == 3 * N


def test_sums_over_some_rows_copy_none_of_them(latents):
    matrix, rows, weights = latents.csr(), np.arange(0, N, 3), np.zeros(N)
    weights[rows] = np.random.default_rng(1).standard_normal(len(rows))
    counted, peak = peak_of(lambda: count_by_column(matrix, rows))
    np.testing.assert_array_equal(counted, np.bincount(matrix[rows].indices, minlength=D_SAE))
    summed, peak_of_sum = peak_of(lambda: sum_by_column(matrix, weights))
    np.testing.assert_array_equal(summed, matrix.T @ weights)
    assert max(peak, peak_of_sum) < matrix.nnz


def test_ranked_memes_of_a_split_need_their_own_size(latents):
    ranked = Ranked.of(latents.csr())
    columns = ranked.columns(np.array([7, -1, 3]), N)
    np.testing.assert_array_equal(columns[:, [0, 2]], latents.csc()[:, [7, 3]].toarray())
    assert not columns[:, 1].any()
    codes = (np.arange(N) % 10 == 0).astype(np.uint8)[:, None]
    kept, peak = peak_of(lambda: ranked.known_in(codes))
    of_split = sparse.csr_matrix(latents.csr().multiply(codes), dtype=np.float32)
    of_split.eliminate_zeros()
    for mine, expected in zip(kept, Ranked.of(of_split), strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert peak < 2 * latents.csr().nnz  # 16 bytes a latent that fires for running sums of which are kept


def test_units_to_compare_with_are_counted_one_set_after_the_other():
    x = anisotropic(2_000, 16, np.random.default_rng(0))
    embeddings = make_embeddings({"hook_fused": x}, labels={"hate": (x[:, 5] > np.median(x[:, 5])).astype(int)})
    sae = tiny_sae(x, d_sae=512, k=64)

    def peak(n_others: int) -> int:
        others = {f"other {i}": sae for i in range(n_others)}
        baselines = Baselines(embeddings, others=others, raw=(), n_permutations=1)
        return peak_of(lambda: baselines.evaluate(sae))[1]

    assert peak(5) < 1.15 * peak(1)


def test_a_probe_on_latents_makes_one_copy_of_them(latents):
    label = (latents.csr()[:, 0].toarray().ravel() > 0).astype(int)
    _, peak = peak_of(lambda: fit_latent_probes("hate", latents.csr(), [label]))
    assert peak < 20 * latents.csr().nnz


def test_resamples_are_of_the_measured_memes():
    n, draws = 5_000, 300
    embeddings = make_embeddings({"hook_fused": np.ones((n, 1))})
    rows = embeddings.rows("test")[:50]
    _ = embeddings.by_id, embeddings.strata, embeddings.groups
    weights, peak = peak_of(lambda: resampled(embeddings, rows, draws, seed=0))
    assert weights.shape == (50, draws + 1)
    assert peak < draws * n / 2


def test_a_wide_sae_is_decoded_from_what_fires():
    n, d_in, d_sae = 2_100, 4, 17_000
    embeddings = make_embeddings({"hook_fused": np.ones((n, d_in))})
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        sae.b_dec.normal_()
    latents = Latents(np.sort(rng.integers(0, d_sae, (n, 3), np.int32)), rng.random((n, 3), np.float32) + 0.1, d_sae)

    def decoded(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([x_hat for *_, x_hat in reconstructed(sae, embeddings, latents, "hook_fused", rows)])

    sparsely, peak = peak_of(lambda: decoded(np.arange(n)))
    assert peak < 2_048 * d_sae
    np.testing.assert_allclose(sparsely[:30], decoded(np.arange(30)), rtol=1e-5, atol=1e-6)

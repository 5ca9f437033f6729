from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors import safe_open
from scipy import sparse
from tiny_sae import tiny_sae

from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError, StorageError
from sae_lens_meme.evaluators.base import unscaled
from sae_lens_meme.evaluators.latents import Latents, encode

D, D_SAE = 32, 80


@pytest.fixture(scope="module")
def x():
    return anisotropic(300, D, np.random.default_rng(0))


@pytest.fixture(scope="module")
def embeddings(x):
    return make_embeddings({"hook_fused": x, "hook_image_embed": x[:, :8]})


ARCHITECTURES = {
    "standard": lambda: StandardSAE(StandardSAEConfig(d_in=D, d_sae=D_SAE)),
    "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=D_SAE)),
    "topk training": lambda: TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=5)),
    "topk training, dense": lambda: TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=5, use_sparse_activations=False)
    ),
    "batchtopk": lambda: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=5)),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_are_what_the_sae_encodes(x, embeddings, architecture):
    torch.manual_seed(0)
    sae = ARCHITECTURES[architecture]()
    with torch.no_grad():
        sae.W_enc.normal_()
        dense = sae.eval().encode(torch.from_numpy(x))
        dense = (dense.to_dense() if dense.is_sparse else dense).numpy()
    latents = encode(sae, embeddings, "hook_fused", batch_size=len(x))
    np.testing.assert_array_equal(latents.csr().toarray(), dense)
    np.testing.assert_array_equal(latents.csc().toarray(), dense)
    assert latents.indices.shape[1] == (dense != 0).sum(1).max()
    np.testing.assert_array_equal(latents.l0, (dense != 0).sum(1))


def test_rows_batches_and_scaler(x, embeddings):
    sae, rows = tiny_sae(x), np.array([7, 250, 3])
    everything = encode(sae, embeddings).csr().toarray()
    chosen = encode(sae, embeddings, rows=rows, batch_size=2).csr().toarray()
    np.testing.assert_allclose(chosen, everything[rows], rtol=1e-4, atol=1e-5)  # BLAS rounds by batch size
    np.testing.assert_array_equal(encode(sae, embeddings).rows(rows).csr().toarray(), everything[rows])
    scaled = encode(unscaled(sae, ActivationScaler(scaling_factor=2.0)), embeddings).csr().toarray()
    with torch.no_grad():
        np.testing.assert_allclose(scaled, sae.encode(2 * torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_the_embeddings_of_an_sae_without_a_hook_name(x, embeddings):
    sae = tiny_sae(x)
    sae.cfg.metadata.hook_name = None
    with pytest.raises(ConfigError, match="give hook=, one of hook_fused, hook_image_embed"):
        encode(sae, embeddings)
    assert encode(sae, make_embeddings({"hook_fused": x})).n_samples == 300


def test_a_foreign_width_names_both_numbers(x, embeddings):
    with pytest.raises(DataError, match="hook_image_embed has 8 dimensions, the SAE has d_in 32"):
        encode(tiny_sae(x), embeddings, "hook_image_embed")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_embedding_is_named(x, bad):
    broken = x.copy()
    broken[211, 5] = bad
    with pytest.raises(NonFiniteError, match=re.escape("hook_fused, row 211 (id 'meme-211'): holds")):
        encode(tiny_sae(x), make_embeddings({"hook_fused": broken}), batch_size=100)


def test_an_overflowing_sum_is_not_a_bad_embedding(x):
    sae, large = tiny_sae(x), np.full_like(x, 1e36)
    with torch.no_grad():
        sae.W_enc.mul_(1e-9)
    assert encode(sae, make_embeddings({"hook_fused": large}), batch_size=300).n_samples == 300


def test_damaged_weights_are_named_as_such(x, embeddings):
    sae = tiny_sae(x)
    sae.b_enc.data[3] = float("inf")
    with pytest.raises(NonFiniteError, match=re.escape("row 0 (id 'meme-0'): the SAE gives NaN or infinity")):
        encode(sae, embeddings)


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([[0, 9]], [[1, 1]], "index 9 is outside 0..8"),
        ([[-1, 2]], [[1, 1]], "index -1 is outside 0..8"),
        ([[0, 1]], [[1, -1]], "activation -1.0 is negative"),
        ([[0, 1]], [[1, np.nan]], "activation nan is negative or NaN"),
        ([[0]], [[1, 1]], r"indices \(1, 1\) and values \(1, 2\)"),
    ],
)
def test_impossible_latents_are_refused(indices, values, message):
    with pytest.raises(DataError, match=message):
        Latents(np.array(indices, np.int32), np.array(values, np.float32), 9)


@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 9), st.floats(0, 1))
def test_round_trip_through_csr(seed, n, d_sae, density):
    rng = np.random.default_rng(seed)
    dense = (rng.random((n, d_sae)) * (rng.random((n, d_sae)) < density)).astype(np.float32)
    latents = Latents.from_csr(sparse.csr_matrix(dense))
    np.testing.assert_array_equal(latents.csr().toarray(), dense)
    assert latents.csr().has_sorted_indices
    assert latents.csr().nnz == np.count_nonzero(dense)


def test_round_trip_through_a_file(x, embeddings, tmp_path):
    latents = encode(tiny_sae(x), embeddings)
    latents.save(tmp_path / "latents.safetensors")
    loaded = Latents.load(tmp_path / "latents.safetensors")
    np.testing.assert_array_equal(loaded.indices, latents.indices)
    np.testing.assert_array_equal(loaded.values, latents.values)
    assert loaded.d_sae == latents.d_sae
    with safe_open(str(tmp_path / "latents.safetensors"), framework="numpy") as file:
        assert set(file.keys()) == {"indices", "values"}


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\xff" * 100])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "latents.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is not a file of latents"):
        Latents.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StorageError, match="nothing"):
        Latents.load(tmp_path / "nothing.safetensors")

# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.training.activation_scaler import ActivationScaler
from tiny_sae import tiny_sae

from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators import Reconstruction
from sae_lens_meme.evaluators.decoding import reconstructed
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.evaluators.reconstruction import Reference, Sums, _verdict, density_histogram
from sae_lens_meme.standardize import moments

D = 64


@pytest.fixture(scope="module")
def data():
    x = anisotropic(400, D, np.random.default_rng(0))
    return x, make_embeddings({"hook_fused": x}), tiny_sae(x)


def reconstructions(sae, x):
    with torch.no_grad():
        return sae(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("held_out", "test")])
def test_numbers_agree_with_saelens_and_with_their_definitions(data, name, split):
    x_all, embeddings, sae = data
    numbers = Reconstruction(embeddings).evaluate(sae).numbers
    train, x = x_all[embeddings.rows("train")].astype(np.float64), x_all[embeddings.rows(split)]
    x_hat = reconstructions(sae, x)
    calculator = ExplainedVarianceCalculator()
    for start in range(0, len(x), 17):
        calculator.add_batch(torch.from_numpy(x_hat[start : start + 17]), torch.from_numpy(x[start : start + 17]))
    acts = sae.encode(torch.from_numpy(x)).detach().numpy()
    x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)
    error = ((x - x_hat) ** 2).sum(1)
    share = train.var(0) / train.var(0).sum()
    inliers = ~((share > 0.01) & (share > 10 / D))
    z, z_hat = (x - train.mean(0)) / train.std(0), (x_hat - train.mean(0)) / train.std(0)
    cosine = (x * x_hat).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(x_hat, axis=1)

    def explained(a, b):
        return 1 - ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum()

    expected = {
        "n": len(x),
        "mse": error.mean(),
        "explained_variance": explained(x, x_hat),
        "explained_variance_zscored": explained(z, z_hat),
        "explained_variance_without_outliers": explained(x[:, inliers], x_hat[:, inliers]),
        "explained_variance_mean_predictor": explained(x, np.broadcast_to(train.mean(0), x.shape)),
        "fvu": 1 - explained(x, x_hat),
        "fvu_per_sample": (error / ((x - train.mean(0)) ** 2).sum(1)).mean(),
        "cosine": cosine.mean(),
        "cosine_mean_predictor": (x @ train.mean(0) / np.linalg.norm(x, axis=1)).mean() / np.linalg.norm(train.mean(0)),
        "l0": (acts != 0).sum(1).mean(),
        "dead_latents": ((acts != 0).sum(0) == 0).sum(),
    }
    assert numbers[f"{name}/explained_variance"] == pytest.approx(calculator.compute(), abs=1e-5)
    for key, value in expected.items():
        assert numbers[f"{name}/{key}"] == pytest.approx(value, rel=1e-6, abs=1e-9), key


def test_outlier_dimensions_are_those_that_were_made_and_inflate_raw_explained_variance(data):
    x, embeddings, _ = data
    reference = Reference(moments([x[embeddings.rows("train")]]))
    np.testing.assert_array_equal(
        np.flatnonzero(reference.outlier), [0, 1]
    )  # the third has less than 10 mean shares at d 64
    only_outliers = Sums(reference, 4)
    x_hat = np.where(reference.outlier, x, reference.moments.mean).astype(np.float32)
    only_outliers.add(x, x_hat, Latents.from_csr(np.zeros((len(x), 4))))
    numbers = only_outliers.numbers()
    assert numbers["explained_variance"] > 0.55
    assert numbers["explained_variance_without_outliers"] == pytest.approx(0, abs=0.05)


def test_mean_predictor_explains_nothing_on_train_rows(data):
    numbers = Reconstruction(data[1]).evaluate(data[2]).numbers
    for suffix in ("", "_zscored", "_without_outliers"):
        assert numbers[f"train/explained_variance{suffix}_mean_predictor"] == pytest.approx(0, abs=1e-12)


@given(cut=st.integers(0, 60), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_parts_in_any_order_equal_the_whole(cut, seed):
    rng = np.random.default_rng(seed)
    x = anisotropic(60, 8, rng) + 3
    x_hat = x + 0.01 * rng.standard_normal(x.shape).astype(np.float32)
    z = Latents.from_csr(rng.random((60, 9)) * (rng.random((60, 9)) < 0.2))
    reference = Reference(moments([x[:30], x[30:]]))
    whole, parts = Sums(reference, 9), Sums(reference, 9)
    whole.add(x, x_hat, z)
    for rows in (np.arange(cut, 60), np.arange(cut)):
        parts.add(x[rows], x_hat[rows], z.rows(rows))
    assert parts.numbers() == pytest.approx(whole.numbers(), rel=1e-9, abs=1e-12)


def test_constant_embeddings_have_no_explained_variance_but_a_reason():
    x = np.full((20, 5), 0.3, dtype=np.float32)
    embeddings = make_embeddings({"hook_fused": x})
    sae = tiny_sae(x + np.random.default_rng(0).standard_normal(x.shape).astype(np.float32), d_sae=8, k=2)
    result = Reconstruction(embeddings).evaluate(sae)
    for key in ("explained_variance", "explained_variance_zscored", "fvu", "explained_variance_mean_predictor"):
        assert result.numbers[f"train/{key}"] is None
        assert "do not vary" in result.reasons[f"train/{key}"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_no_held_out_rows_gives_none_with_a_reason(data):
    x, _, sae = data
    result = Reconstruction(make_embeddings({"hook_fused": x}, splits=["train"] * len(x))).evaluate(sae)
    assert result.numbers["held_out/explained_variance"] is None
    assert result.reasons["held_out/explained_variance"] == "there are no such rows"
    assert result.numbers["train/explained_variance"] is not None


def test_no_train_rows_is_refused(data):
    x, _, sae = data
    with pytest.raises(DataError, match="no rows of split 'train'"):
        Reconstruction(make_embeddings({"hook_fused": x}, splits=["test"] * len(x))).evaluate(sae)


def test_density_histogram_holds_every_latent_that_fires():
    fired = np.array([0, 1, 5, 100, 100, 37])
    table = density_histogram(fired, 100, "train")
    assert table["n_latents"].sum() == 5
    assert len(table) == 50
    assert table["n_latents"].iloc[-1] == 2
    assert table["n_latents"].iloc[0] == 0


def test_normalising_sae_is_run_again_because_decode_needs_its_encode(data):
    x, embeddings, _ = data
    sae = tiny_sae(x, normalize_activations="layer_norm")
    latents = encode(sae, embeddings)
    parts = [x_hat for _, _, x_hat in reconstructed(sae, embeddings, latents, "hook_fused", np.arange(50), 16)]
    np.testing.assert_allclose(np.concatenate(parts), reconstructions(sae, x[:50]), atol=1e-6)


def test_as_saelens_evaluator_the_scale_of_training_does_not_show(data):
    _, embeddings, sae = data
    factor = 7.0
    scaled = tiny_sae(data[0])
    with torch.no_grad():
        scaled.W_enc.div_(factor)  # the same SAE in scaled space
        scaled.W_dec.mul_(factor)
        scaled.b_dec.mul_(factor)
    evaluator = Reconstruction(embeddings)
    log = evaluator(scaled, iter(()), ActivationScaler(scaling_factor=factor))
    numbers = evaluator.evaluate(sae).numbers
    assert log["metrics/explained_variance"] == pytest.approx(numbers["held_out/explained_variance"], abs=1e-5)
    assert log["metrics/l0"] == numbers["held_out/l0"]
    assert log["sparsity/dead_features"] == numbers["train/dead_latents"]
    assert log["meme/reconstruction/train/mse"] == pytest.approx(numbers["train/mse"], rel=1e-4)
    assert all(key.startswith(("metrics/", "sparsity/", "meme/")) for key in log)


@pytest.mark.parametrize("value", [0.25, 0, 4e-33])
def test_a_dimension_that_does_not_vary_counts_in_nothing_zscored(data, value):
    """Divided by its own deviation, the rounding of such a dimension is larger than all that the SAE gives back."""
    x = data[0].copy()
    x[:, 7] = value * (1 + 1e-3 * np.random.default_rng(0).standard_normal(len(x)) * (value == 4e-33))
    sae, others = tiny_sae(data[0]), np.arange(D) != 7
    with torch.no_grad():
        sae.b_enc += float(data[0][:, 7].mean()) * sae.W_enc[7]
        sae.W_enc[7] = 0
        sae.W_dec[:, 7] = 1e-8  # what float32 leaves of a constant
        sae.b_dec[7] = value
    found = Reconstruction(make_embeddings({"hook_fused": x})).evaluate(sae).numbers
    alone = tiny_sae(data[0][:, others])
    with torch.no_grad():
        for name, weight in (
            ("W_enc", sae.W_enc[others]),
            ("W_dec", sae.W_dec[:, others]),
            ("b_dec", sae.b_dec[others]),
        ):
            getattr(alone, name).copy_(weight)
        alone.b_enc.copy_(sae.b_enc)
    without = Reconstruction(make_embeddings({"hook_fused": x[:, others]})).evaluate(alone).numbers
    for split in ("train", "held_out"):
        for key in ("explained_variance_zscored", "explained_variance_zscored_mean_predictor"):
            assert found[f"{split}/{key}"] == pytest.approx(without[f"{split}/{key}"], abs=1e-6)
    assert found["train/explained_variance_zscored"] > 0.1


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_no_number_depends_on_the_size_of_the_embeddings(data, scale):
    """In float32 the squares of these are infinity and 0."""
    x = data[0] * np.float32(scale)
    sae = tiny_sae(data[0])
    with torch.no_grad():
        for weight, factor in ((sae.W_enc, 1 / scale), (sae.W_dec, scale), (sae.b_dec, scale)):
            weight.mul_(factor)
    numbers = Reconstruction(make_embeddings({"hook_fused": x})).evaluate(sae).numbers
    for key, value in Reconstruction(data[1]).evaluate(data[2]).numbers.items():
        if not key.endswith("mse"):
            assert numbers[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(Reconstruction, case)


def test_the_verdict_says_how_much_and_where(data):
    x, embeddings, sae = data
    verdict = Reconstruction(embeddings).evaluate(sae).verdict
    assert "of held-out memes" in verdict
    only = make_embeddings({"hook_fused": x}, splits=["train", "validation"] * (len(x) // 2))
    assert "of validation memes (none are test memes)" in Reconstruction(only).evaluate(sae).verdict
    with torch.no_grad():
        worse = tiny_sae(x)
        worse.W_dec.mul_(-3)
    assert "explains less of held-out memes than their mean" in Reconstruction(embeddings).evaluate(worse).verdict


@pytest.mark.parametrize(("mean", "said"), [(-1.03, "the mean -103%"), (-0.001, "the mean 0%")])
def test_the_verdict_has_what_the_mean_of_the_train_memes_explains(mean, said):
    """It is no mean of the memes that are measured, and explains less than nothing where they differ."""
    sae, plain = (SimpleNamespace(value=value) for value in (0.99, mean))
    numbers: Any = {"explained_variance_zscored": sae, "explained_variance_zscored_mean_predictor": plain}
    assert f"99% of train memes, {said})." in (
        _verdict({"held_out": numbers, "train": numbers}, "held-out memes") or ""
    )


def test_rows_stand_beside_train_memes_and_the_mean(data):
    result = Reconstruction(data[1]).evaluate(data[2])
    shown = {row["measure"]: row for row in result.rows()}
    zscored = shown["explained variance, z-scored"]
    assert zscored["value"] == result.numbers["held_out/explained_variance_zscored"]
    assert zscored["controls"] == {
        "train memes": result.numbers["train/explained_variance_zscored"],
        "mean": result.numbers["held_out/explained_variance_zscored_mean_predictor"],
    }
    assert shown["L0"]["controls"] == {"train memes": result.numbers["train/l0"]}


def test_a_damaged_decoder_is_no_variance_of_zero(data):
    x, embeddings, _ = data
    sae = tiny_sae(x)
    with torch.no_grad():
        sae.W_dec[5, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the reconstruction of hook_fused, row 0 \(id 'meme-0'\): holds nan"):
        Reconstruction(embeddings).evaluate(sae)

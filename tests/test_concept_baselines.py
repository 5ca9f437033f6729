from __future__ import annotations

import json

import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from source_corpus import CONCEPTS, source_corpus
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import Latents
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.controls import directions, fit_directions


@pytest.fixture(scope="module")
def corpus():
    embeddings, latents = source_corpus()
    return tiny_sae(embeddings.take("hook_fused", np.arange(len(embeddings))), d_sae=24, k=4), embeddings, latents


def test_the_contrast_of_the_two_protocols(corpus):
    """The corrected test finds the planted pairs and next to nothing on permuted labels; the published one finds many on both."""
    sae, embeddings, latents = corpus
    result = Baselines(embeddings, concepts=CONCEPTS).evaluate(sae, latents=latents)
    found = {key: result.numbers[key] for key in result.numbers if key.endswith("n_significant_concept")}
    corrected, on_noise = (result.numbers[f"corrected/{b}/n_significant_global"] for b in ("sae", "permuted_labels"))
    assert corrected >= 10
    assert corrected >= 20 * max(on_noise, 0.3)
    assert found["published/permuted_labels/n_significant_concept"] > 100
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_counts_are_those_of_the_evaluator(corpus):
    sae, embeddings, latents = corpus
    result = Baselines(embeddings, concepts=CONCEPTS, others={"copy": latents, "other": sae}).evaluate(
        sae, latents=latents
    )
    numbers = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0).measure_latents(embeddings, latents).numbers
    for protocol in ("corrected", "published"):
        for count in (
            "n_significant_global",
            "n_significant_concept",
            "n_latents_global",
            "n_pairs_tested",
            "n_f1_above_0.35",
            "n_pairs_above_always_on",
        ):
            assert result.numbers[f"{protocol}/sae/{count}"] == numbers[f"{protocol}/{count}"]
            assert result.numbers[f"{protocol}/copy/{count}"] == numbers[f"{protocol}/{count}"]
        both = (result.numbers[f"{protocol}/sae/{c}"] for c in ("n_latents_concept", "n_latents"))
        assert result.numbers[f"{protocol}/sae/share_of_latents_concept"] == next(both) / next(both)
    assert result.numbers["published/other/n_latents"] == 24
    assert result.table is not None
    untrained, permuted = (
        {"neurons", "pca", "ica", "random_topk"},
        {"permuted_labels", "permuted_labels_q95", "permuted_labels_max"},
    )
    assert set(result.table.baseline) == {"sae", "copy", "other"} | untrained | permuted
    widths = {name: result.numbers[f"published/{name}/n_latents"] for name in untrained}
    assert widths == {"neurons": 16, "pca": 16, "ica": 16, "random_topk": latents.d_sae}
    assert result.numbers["ica/steps"] >= 1
    assert result.numbers["ica/converged"] in (0, 1)


def test_a_latent_that_fires_on_256_test_memes_is_counted():
    """256 is 0 in a byte, and a latent that never fires passes no bar."""
    n = 1_800
    embeddings = make_embeddings(
        {"hook_fused": np.ones((n, 2))}, labels={"hate": [int(i // 20 < 86 and i % 20 >= 14) for i in range(n)]}
    )
    true, test = embeddings.label("hate").values == 1, embeddings.splits == "test"
    fires = true & ~(test & (np.cumsum(true & test) > 256))
    latents = Latents.from_csr(np.stack([fires, ~fires], axis=1))
    assert (fires & test).sum() == 256
    sae, concepts = tiny_sae(np.eye(2, dtype=np.float32), d_sae=2, k=1), ["hate=1"]
    found = Baselines(embeddings, concepts, raw=(), n_permutations=1).evaluate(sae, latents=latents).numbers
    alone = ConceptAlignment(embeddings, concepts, n_bootstrap=0).measure_latents(embeddings, latents).numbers
    assert found["corrected/sae/n_f1_above_0.35"] == alone["corrected/n_f1_above_0.35"] == 1


def test_a_count_stands_beside_that_of_every_control(corpus):
    sae, embeddings, latents = corpus
    result = Baselines(embeddings, CONCEPTS, others={"shuffled_data": sae, "mine": latents}).evaluate(
        sae, latents=latents
    )
    headings = {
        "permuted_labels": "permuted",
        "permuted_labels_q95": "permuted, 95 %",
        "shuffled_data": "shuffled",
        "neurons": "neurons",
        "pca": "PCA",
        "ica": "ICA",
        "random_topk": "random TopK",
        "mine": "mine",
    }
    row = result.rows()[0]
    assert row["measure"] == f"corrected protocol (SAE: of {result.numbers['corrected/sae/n_pairs_tested']} pairs)"
    assert row["value"] == result.numbers["corrected/sae/n_significant_global"]
    assert row["controls"] == {h: result.numbers[f"corrected/{n}/n_significant_global"] for n, h in headings.items()}
    assert list(row["controls"]) == list(headings.values())
    share = next(row for row in result.rows() if "latents)" in row["measure"])
    assert share["measure"] == "corrected protocol (SAE: of 120 latents)"
    pairs, units = result.sections()
    assert (pairs["axis"], units["axis"]) == ("latent x concept pairs", None)
    assert "neurons: raw dimensions of the embedding (16 units)" in pairs["note"]
    assert "is no measure of quality" in pairs["note"]
    without = Baselines(embeddings, CONCEPTS, raw=()).evaluate(sae, latents=latents)
    assert not any(name in without.sections()[0]["note"] for name in ("neurons:", "PCA:", "shuffled:"))


def test_the_verdict_compares_shares_of_tests(corpus):
    sae, embeddings, latents = corpus
    result = Baselines(embeddings, CONCEPTS, raw=(), others={"mine": latents}).evaluate(sae, latents=latents)
    share = result.numbers["corrected/sae/share_of_tests_global"]
    assert share is not None
    n = result.numbers["corrected/permuted_labels/n_draws_with_pairs_global"]
    assert result.verdict == (
        f"{share:.1%} of the SAE's pairs are significant; {n} of 100 draws of permuted labels have any, mine has {share:.1%}: no control has a "
        "larger share."
    )
    less = Latents.from_csr(latents.csr()[:, :60])
    result = Baselines(embeddings, CONCEPTS, raw=(), others={"mine": latents}).evaluate(sae, latents=less)
    assert (result.verdict or "").endswith(f"mine has {share:.1%}: such counts are no measure of quality.")


@pytest.fixture(scope="module")
def x():
    return anisotropic(200, 12, np.random.default_rng(0))


def test_neurons_are_the_largest_standardised_dimensions_of_both_signs(x):
    embeddings, l0 = make_embeddings({"hook_fused": x}), np.random.default_rng(1).integers(0, 15, 200)
    train = x[embeddings.rows("train")].astype(np.float64)
    z = (x - train.mean(0)) / train.std(0)
    got = directions(embeddings, "hook_fused", l0).csr().toarray()
    assert got.shape == (200, 24)
    for row in range(200):
        kept = np.argsort(-np.abs(z[row]))[: l0[row]]
        expected = np.zeros(24)
        for j in kept:
            expected[j if z[row, j] > 0 else 12 + j] = abs(z[row, j])
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pca", "ica"])
def test_components_are_orthogonal_directions_of_unit_variance(x, kind):
    embeddings = make_embeddings({"hook_fused": x})
    dense = directions(embeddings, "hook_fused", np.full(200, 12), kind).csr().toarray()
    signed = (dense[:, :12] - dense[:, 12:])[embeddings.rows("train")]
    np.testing.assert_allclose(np.cov(signed.T), np.eye(12), atol=0.02)


def test_random_topk_is_a_topk_of_random_projections_of_zscored_embeddings(x):
    embeddings, l0 = make_embeddings({"hook_fused": x}), np.random.default_rng(1).integers(0, 9, 200)
    got = directions(embeddings, "hook_fused", l0, "random_topk", seed=3, width=40)
    assert (got.n_samples, got.d_sae) == (200, 40)
    train = x[embeddings.rows("train")].astype(np.float64)
    encoder = np.random.default_rng(3).standard_normal((12, 40), np.float32).astype(np.float64)
    pre = (x - train.mean(0)) / train.std(0) @ (encoder / np.linalg.norm(encoder, axis=0))
    expected = np.zeros_like(pre)
    for row in range(200):
        top = np.argsort(-pre[row])[: l0[row]]
        expected[row, top] = np.maximum(pre[row, top], 0)
    np.testing.assert_allclose(got.csr().toarray(), expected, rtol=1e-4, atol=1e-5)
    other = directions(embeddings, "hook_fused", l0, "random_topk", seed=4, width=40)
    assert not np.array_equal(got.csr().toarray(), other.csr().toarray())


def test_no_more_units_fire_than_are_above_zero(x):
    dense = directions(make_embeddings({"hook_fused": x}), "hook_fused", np.full(200, 24), "random_topk", width=24)
    fires = dense.csr().toarray() > 0
    assert 0.4 < fires.mean() < 0.6


def test_ica_finds_the_sources_that_pca_mixes():
    """Independent sparse sources under a random mixing: ICA's directions are the sources, PCA's are not."""
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(2000, 6)) ** 3
    x = (sources @ rng.standard_normal((6, 6))).astype(np.float32)
    embeddings = make_embeddings({"hook_fused": x})
    agreement = {}
    for kind in ("pca", "ica"):
        dense = directions(embeddings, "hook_fused", np.full(2000, 6), kind).csr().toarray()
        signed = dense[:, :6] - dense[:, 6:]
        agreement[kind] = np.abs(np.corrcoef(signed.T, sources.T)[:6, 6:]).max(axis=0).min()
    assert agreement["ica"] > 0.99
    assert agreement["pca"] < 0.9


@pytest.mark.parametrize("kind", ["neurons", "pca", "ica", "random_topk"])
def test_the_order_of_the_memes_changes_no_direction(kind):
    x = anisotropic(900, 16, np.random.default_rng(0))
    embeddings, order = make_embeddings({"hook_fused": x}), np.random.default_rng(1).permutation(900)
    shuffled = Embeddings.from_dataset(embeddings.dataset.select(order))
    fits = [fit_directions(memes, "hook_fused", kind).transform(x) for memes in (embeddings, shuffled)]
    np.testing.assert_allclose(fits[0], fits[1], rtol=0, atol=1e-9)


def test_principal_components_are_those_of_float64():
    """A dimension that is large and hardly varies costs float32 its digits."""
    x = anisotropic(900, 16, np.random.default_rng(0))
    x[:, 3] += np.float32(40.0)
    embeddings = make_embeddings({"hook_fused": x})
    train = x[embeddings.rows("train")].astype(np.float64)
    _, scale, axes = np.linalg.svd(train - train.mean(0), full_matrices=False)
    expected = (x - train.mean(0)) @ axes.T / scale * np.sqrt(len(train) - 1)
    found = np.asarray(fit_directions(embeddings, "hook_fused", "pca").transform(x), np.float64)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-5)


def test_directions_are_fitted_once_for_contest_and_baselines(corpus, monkeypatch):
    from sae_lens_meme.evaluators import controls
    from sae_lens_meme.evaluators.contest import Contest

    sae, embeddings, _ = corpus
    asked, fit = [], controls.fit_directions
    monkeypatch.setattr(
        controls, "fit_directions", lambda e, hook, kind, *a: asked.append(kind) or fit(e, hook, kind, *a)
    )
    shared = controls.SharedDirections()
    few = {"ks": (1,), "ns": (1,), "n_bootstrap": 0, "n_permutations": 1}
    Contest(embeddings, concepts=CONCEPTS, fitted=shared, controls=("neurons", "pca"), **few).evaluate(sae)
    Baselines(embeddings, CONCEPTS, fitted=shared, raw=("neurons", "pca"), n_permutations=1).evaluate(sae)
    assert asked == ["neurons", "pca"]


def test_ica_that_has_not_converged_says_so_on_the_page(corpus, monkeypatch):
    sae, embeddings, latents = corpus
    monkeypatch.setattr("sae_lens_meme.evaluators.controls.ICA_WORK", 2 * 8**2)
    result = Baselines(embeddings, CONCEPTS, raw=("ica",), n_permutations=1).evaluate(sae, latents=latents)
    assert result.numbers["ica/converged"] == 0
    assert "ICA did not converge in 2 steps" in result.sections()[0]["note"]


def test_ica_is_bounded(monkeypatch):
    """Wide embeddings: the leading principal components, few rows, few steps; still of unit variance and uncorrelated."""
    for name, value in {"ICA_COMPONENTS": 5, "ICA_ROWS": 100, "ICA_WORK": 3 * 5**2}.items():
        monkeypatch.setattr(f"sae_lens_meme.evaluators.controls.{name}", value)
    x = anisotropic(400, 12, np.random.default_rng(2))
    fitted = fit_directions(make_embeddings({"hook_fused": x}), "hook_fused", "ica")
    assert (fitted.steps, fitted.converged) == (3, False)
    np.testing.assert_allclose(np.cov(fitted.transform(x).T), np.eye(5), atol=0.4)


def test_errors(corpus, x):
    sae, embeddings, latents = corpus
    with pytest.raises(ConfigError, match="'tsne' is not one of neurons, pca, ica, random_topk"):
        directions(embeddings, "hook_fused", latents.l0, "tsne")
    with pytest.raises(ConfigError, match=r"baselines\.n_permutations is 0"):
        Baselines(embeddings, n_permutations=0).evaluate(sae, latents=latents)
    with pytest.raises(DataError, match="the latents are of 10 memes, the embeddings of 3000"):
        Baselines(embeddings, others={"short": latents.rows(np.arange(10))}).evaluate(sae, latents=latents)
    with pytest.raises(ConfigError, match=r"baselines: 'sae' in others is the name of a baseline"):
        Baselines(embeddings, others={"sae": latents})
    with pytest.raises(ConfigError, match=r"baselines\.raw.* is 'tsne'"):
        Baselines(embeddings, raw=["tsne"])

"""What an SAE recovers of planted vectors, beside the true dictionary, every rival, and SAELens' own scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_lens.synthetic import compute_classification_metrics, feature_uniqueness, mean_correlation_coefficient

from sae_lens_meme.config import read_yaml
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators import encode
from sae_lens_meme.evaluators.contest import Contest, Rows, Targets, Units, correlation_of, one_to_one
from sae_lens_meme.metrics.association import FALSE, TRUE, f1_score
from sae_lens_meme.metrics.ranking import Ranked, confusion
from sae_lens_meme.planted import PlantedVectors, planted_vectors, true_dictionary, true_matching_pursuit
from sae_lens_meme.standardize import train_moments
from sae_lens_meme.train import train

NOT_SPARSE = ("neurons", "pca", "random", "neurons_k", "pca_k", "random_k", "shuffled_data")
"""Rivals that were fitted to nothing sparse; ICA was, and finds as many factors as there are dimensions."""
SMALL: dict[str, Any] = {"n_samples": 3_000, "d_in": 48, "n_factors": 96, "active": 3.0, "zipf": 0.2, "n_labels": 2}


@pytest.fixture(scope="module")
def vectors() -> PlantedVectors:
    return planted_vectors(**SMALL)


def trained(vectors: PlantedVectors, out: Path, k: int, **given: Any) -> SAE[Any]:
    sae = {"d_sae": vectors.options.n_factors, "k": k, "init": "tied"}
    section = {"epochs": 40, "lr": 4.0e-3, "sae": sae}
    return train(section, out=out, embeddings=vectors.embeddings, progress=False, **given)  # type: ignore[return-value]


def contest_of(vectors: PlantedVectors, sae: Any, **given: Any) -> dict[str, Any]:
    options = {"ks": [1], "ns": [5], "n_permutations": 1, "n_bootstrap": 0, **given}
    return Contest(vectors.embeddings, key=vectors.answer_key, **options).evaluate(sae).numbers


@pytest.fixture(scope="module")
def sae(vectors: PlantedVectors, tmp_path_factory: pytest.TempPathFactory) -> SAE[Any]:
    return trained(vectors, tmp_path_factory.mktemp("sae") / "S", k=3)


@pytest.fixture(scope="module")
def found(vectors: PlantedVectors, sae: SAE[Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    shuffled = trained(vectors, tmp_path_factory.mktemp("shuffled") / "S", k=3, shuffled=True)
    return contest_of(vectors, sae, shuffled=shuffled)


def check_recovery(vectors: PlantedVectors, found: dict[str, Any], k: int) -> None:
    mcc = {name: found[f"planted/mcc/{name}"] for name in ("sae", "ica", "ica_k", *NOT_SPARSE)}
    oracle = contest_of(vectors, true_dictionary(vectors, k), controls=())["planted/mcc/sae"]
    assert mcc["sae"] > oracle - 0.05
    assert all(mcc["sae"] >= 3 * mcc[name] for name in NOT_SPARSE), mcc
    assert max(mcc["ica"], mcc["ica_k"]) < mcc["sae"], mcc
    assert found["planted/mcc/permuted_labels"] == pytest.approx(0, abs=0.03)


@pytest.mark.whole
def test_the_sae_recovers_what_the_true_dictionary_does_and_no_control_does(
    vectors: PlantedVectors, found: dict[str, Any]
):
    check_recovery(vectors, found, k=3)


@pytest.mark.slow
def test_256_factors_in_128_dimensions_are_recovered(tmp_path: Path):
    vectors = planted_vectors()
    shuffled = trained(vectors, tmp_path / "C", k=8, shuffled=True)
    found = contest_of(vectors, trained(vectors, tmp_path / "S", k=8), shuffled=shuffled, n_bootstrap=50)
    check_recovery(vectors, found, k=8)
    rivals = [key for key in found if key.startswith("planted/mcc/sae_minus_") and key.endswith("_low")]
    assert len(rivals) == 9
    assert all(found[key] > 0 for key in rivals)


@pytest.mark.slow
def test_the_shipped_recipe_recovers_three_times_what_any_control_does(tmp_path: Path):
    """ICA included: its components are as many as there are dimensions, and there are six times as many factors."""
    recipe = read_yaml("vectors.yaml")
    vectors, section = planted_vectors(**recipe["embed"]["planted"]), recipe["train"]
    made = {
        name: train(section, out=tmp_path / name, embeddings=vectors.embeddings, progress=False, shuffled=name == "C")
        for name in ("S", "C")
    }
    found = contest_of(vectors, made["S"], shuffled=made["C"])
    mcc = {name: found[f"planted/mcc/{name}"] for name in ("sae", "ica", "ica_k", *NOT_SPARSE)}
    assert all(mcc["sae"] >= 3 * mcc[name] for name in mcc if name != "sae"), mcc
    oracle = contest_of(vectors, true_dictionary(vectors, section["sae"]["k"]), controls=())["planted/mcc/sae"]
    assert mcc["sae"] > oracle - 0.05


def test_what_topk_misses_matching_pursuit_reads_from_the_same_directions(vectors: PlantedVectors):
    moments = train_moments(vectors.embeddings, "hook_fused")
    x = vectors.embeddings.take("hook_fused", np.arange(len(vectors.truth)))
    pursued = true_matching_pursuit(vectors, 3).encode(torch.from_numpy((x - moments.mean) / moments.std).float())
    by_topk = true_dictionary(vectors, 3).encode(torch.from_numpy(x))
    right = [(acts.detach().numpy() > 0.2)[vectors.truth].mean() for acts in (by_topk, pursued)]
    assert right[1] > right[0] > 0.6


# SAELens' own scores


@pytest.fixture(scope="module")
def held_out(vectors: PlantedVectors) -> np.ndarray:
    return vectors.embeddings.rows("test")


def test_one_to_one_recovery_is_saelens_mean_correlation_coefficient(
    vectors: PlantedVectors, sae: SAE[Any], held_out: np.ndarray
):
    acts = encode(sae, vectors.embeddings, "hook_fused").csc()[held_out]
    codes = np.where(vectors.truth[held_out], TRUE, FALSE).astype(np.uint8)
    names = tuple(vectors.kinds)
    every = np.arange(len(held_out))
    rows = Rows(every, every[:0], every, "test", np.zeros(len(every), np.int64))
    targets = Targets(names, codes, np.full(len(names), "planted"), np.array(names))
    units = Units("sae", acts, None)
    columns = one_to_one(units, targets, rows).columns(units)
    ours = correlation_of(columns, targets, rows, np.ones((len(every), 1), np.uint8))[0].mean()
    centred = [torch.from_numpy(x - x.mean(axis=0)).T for x in (acts.toarray().astype(float), vectors.truth[held_out])]
    assert ours == pytest.approx(mean_correlation_coefficient(*centred), abs=1e-6)


def test_f1_of_latents_matched_by_direction_is_saelens(vectors: PlantedVectors, sae: SAE[Any], held_out: np.ndarray):
    std = train_moments(vectors.embeddings, "hook_fused").std
    decoder = torch.from_numpy(sae.W_dec.detach().numpy() / std).float()
    true = torch.from_numpy(vectors.directions / std).float()
    latents = encode(sae, vectors.embeddings, "hook_fused")
    acts = latents.csc()[held_out]
    theirs = compute_classification_metrics(
        torch.from_numpy(acts.toarray()), torch.from_numpy(vectors.activations[held_out]).float(), decoder, true
    )
    cosine = np.abs(torch.nn.functional.normalize(decoder).numpy() @ torch.nn.functional.normalize(true).numpy().T)
    match = cosine.argmax(axis=1)
    assert feature_uniqueness(decoder, true) == pytest.approx(len(np.unique(match)) / len(match), abs=1e-6)
    codes = np.where(vectors.truth[held_out], TRUE, FALSE).astype(np.uint8)
    threshold = np.full((latents.d_sae, codes.shape[1]), np.finfo(np.float32).tiny)
    true_fired, fired = confusion(Ranked.of(acts), codes, threshold)
    each = np.arange(latents.d_sae)
    ours = f1_score(true_fired[each, match], fired[each, match], (codes == TRUE).sum(axis=0)[match])
    assert np.nanmean(np.nan_to_num(ours)) == pytest.approx(theirs.f1_score, abs=1e-6)


@pytest.mark.whole
def test_every_rival_has_its_recovery(found: dict[str, Any]):
    rivals = {key.split("/")[-1] for key in found if key.startswith("planted/mcc/")} - {"sae", "seeds_sd"}
    assert {*NOT_SPARSE, "ica", "ica_k", "permuted_labels"} <= rivals
    assert all(found[f"planted/mcc/{name}"] is not None for name in (*NOT_SPARSE, "ica", "ica_k"))


def test_the_sae_is_trained_on_vectors_as_on_any_embeddings(vectors: PlantedVectors, sae: SAE[Any]):
    assert isinstance(vectors.embeddings, Embeddings)
    assert sae.cfg.metadata.hook_name == "hook_fused"
    assert sae.cfg.d_in == 48

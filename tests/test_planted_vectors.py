"""Planted vectors: what is drawn agrees with the options, and there is something to recover that nothing else has."""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from sae_lens.synthetic import FeatureDictionary, compute_superposition_stats
from safetensors.numpy import load_file
from scipy.stats import multivariate_normal, norm

from sae_lens_meme.cli import main
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators import EvaluateOptions
from sae_lens_meme.pipeline import run
from sae_lens_meme.planted import (
    PlantedVectors,
    answer_key_of,
    planted_vectors,
    read_answer_key,
    write_planted_vectors,
)
from sae_lens_meme.planted import vectors as vectors_module

pytestmark = pytest.mark.whole
SMALL: dict[str, Any] = {"n_samples": 2_000, "d_in": 32, "n_factors": 64, "active": 3.0}


def fused(vectors: PlantedVectors, hook: str = "hook_fused") -> np.ndarray:
    return vectors.embeddings.take(hook, np.arange(len(vectors.truth))).astype(np.float64)


@pytest.fixture(scope="module")
def vectors() -> PlantedVectors:
    return planted_vectors()


# what is drawn


def test_rates_fall_as_zipf_says_and_sum_to_the_active_ones(vectors: PlantedVectors):
    rates = vectors.truth.mean(axis=0)
    expected = (np.arange(256) + 1.0) ** -0.5
    np.testing.assert_allclose(rates, 8 * expected / expected.sum(), atol=1 / 6000)
    assert vectors.truth.sum(axis=1).mean() == pytest.approx(8, abs=0.02)
    alike = planted_vectors(**SMALL, zipf=0.0).truth.mean(axis=0)
    np.testing.assert_allclose(alike, 3 / 64, atol=1 / 2000)


def test_a_factor_that_is_not_true_is_not_there(vectors: PlantedVectors):
    assert ((vectors.activations > 0) == vectors.truth).all()
    assert vectors.activations[vectors.truth].mean() == pytest.approx(1, abs=0.01)
    assert vectors.activations[vectors.truth].std() == pytest.approx(0.5, abs=0.01)


def test_children_are_true_of_half_of_the_memes_of_their_parent_and_active_stays():
    found = planted_vectors(**(SMALL | {"n_samples": 20_000, "children": 0.5}))
    child = np.flatnonzero(found.parents >= 0)
    assert len(child) == 32
    assert (found.parents[found.parents[child]] == -1).all()
    parents = found.truth[:, found.parents[child]]
    assert not (found.truth[:, child] & ~parents).any()
    halves = found.truth[:, child].sum(axis=0) / parents.sum(axis=0)
    assert halves.mean() == pytest.approx(0.5, abs=0.01)
    assert halves.min() > 0.4
    assert found.truth.sum(axis=1).mean() == pytest.approx(3, abs=0.03)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_neighbours_are_correlated_within_their_block_alone(correlation: float):
    found = planted_vectors(n_samples=20_000, d_in=16, n_factors=16, active=3.0, zipf=0.0, correlated=correlation)
    together = (found.truth.T.astype(float) @ found.truth) / len(found.truth)
    block = np.arange(16) // 8
    neighbours = (block[:, None] == block) & ~np.eye(16, dtype=bool)
    cut = norm.ppf(3 / 16)
    drawn_from: Any = multivariate_normal
    expected = drawn_from.cdf([cut, cut], cov=[[1, correlation], [correlation, 1]])
    assert together[neighbours].mean() == pytest.approx(expected, rel=0.04)
    assert together[block[:, None] != block].mean() == pytest.approx((3 / 16) ** 2, rel=0.04)


@pytest.mark.parametrize("share", [0.07, 0.27, 0.64])
def test_three_dimensions_hold_the_share_of_the_variance(share: float):
    found = planted_vectors(**SMALL, outlier_share=share)
    variance = np.sort(fused(found).var(axis=0))[::-1]
    if share > 3 / 32:  # else they hold less than the others do
        assert variance[:3].sum() / variance.sum() == pytest.approx(share, abs=1e-3)
    outlier = np.flatnonzero(found.origin)
    assert len(outlier) == 3
    x = fused(found)
    assert x[:, outlier].var(axis=0).sum() / x.var(axis=0).sum() == pytest.approx(share, abs=1e-3)
    for hook in ("hook_image_embed", "hook_text_embed"):
        part = fused(found, hook)
        assert part[:, outlier].var(axis=0).sum() / part.var(axis=0).sum() == pytest.approx(share, abs=0.1)


def test_without_outliers_all_directions_have_norm_one():
    found = planted_vectors(**SMALL, outlier_share=0.0)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1)
    assert not found.origin.any()


def test_a_vector_is_the_sum_of_its_directions_and_noise():
    found = planted_vectors(**SMALL, noise=0.05)
    rest = fused(found) - found.activations @ found.directions - found.origin
    plain = np.setdiff1d(np.arange(32), np.flatnonzero(found.origin))
    assert rest[:, plain].std() == pytest.approx(0.05, rel=0.02)
    exact = planted_vectors(**SMALL, noise=0.0)
    np.testing.assert_allclose(fused(exact), exact.activations @ exact.directions + exact.origin, atol=1e-4)


def test_each_side_has_its_own_factors_and_half_of_the_shared_ones():
    found = planted_vectors(**SMALL, noise=0.0)
    kinds = np.array(list(found.kinds.values()))
    assert {kind: int((kinds == kind).sum()) for kind in set(kinds)} == {"visual": 22, "textual": 21, "shared": 21}
    for hook, own in (("hook_image_embed", "visual"), ("hook_text_embed", "textual")):
        weight = np.where(kinds == own, 1.0, np.where(kinds == "shared", 0.5, 0.0))
        expected = (found.activations * weight) @ found.directions + found.origin / 2
        np.testing.assert_allclose(fused(found, hook), expected, atol=1e-4)
    both = fused(found, "hook_image_embed") + fused(found, "hook_text_embed")
    np.testing.assert_allclose(both, fused(found), atol=1e-4)


def test_labels_follow_from_three_factors_each():
    found = planted_vectors(**SMALL, n_labels=5, label_noise=0.1, missing=0.3)
    assert len(found.causes) == 5
    for name, causes in found.causes.items():
        label = found.embeddings.label(name)
        truth: Any = found.answer_key.factors[causes].to_numpy().any(axis=1)
        assert len(set(causes)) == 3
        assert label.known.mean() == pytest.approx(0.7, abs=0.04)
        assert (label.values[label.known] != truth[label.known]).mean() == pytest.approx(0.1, abs=0.03)
    sure = planted_vectors(**SMALL, label_noise=0.0, missing=0.0)
    assert all(sure.embeddings.label(name).known.all() for name in sure.causes)
    truths = sure.answer_key.factors[[f"true_{name}" for name in sure.causes]].to_numpy()
    np.testing.assert_array_equal(
        truths, np.stack([sure.embeddings.label(name).values for name in sure.causes], axis=1)
    )


def test_memes_of_a_group_differ_by_noise_alone():
    found = planted_vectors(**SMALL, group_size=4, noise=0.0)
    memes = found.embeddings
    assert np.bincount(memes.groups).tolist() == [4] * 500
    for values in (found.truth, fused(found), memes.splits, memes.sources):
        by_group = values.reshape(500, 4, *values.shape[1:])
        assert (by_group == by_group[:, :1]).all()
    noisy = fused(planted_vectors(**SMALL, group_size=4, noise=0.05, outlier_share=0.0)).reshape(500, 4, 32)
    assert (noisy - noisy.mean(axis=1, keepdims=True)).std() == pytest.approx(0.05 * np.sqrt(3 / 4), rel=0.03)
    assert np.bincount(planted_vectors(**SMALL, group_size=3).embeddings.groups)[-1] == 2


def test_splits_have_their_shares(vectors: PlantedVectors):
    shares = [(vectors.embeddings.splits == split).mean() for split in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.02)


# there is something to recover


def test_there_are_more_factors_than_dimensions_and_they_overlap(vectors: PlantedVectors):
    dictionary = FeatureDictionary(256, 128, bias=False, initializer=None)
    dictionary.feature_vectors.data = torch.from_numpy(vectors.directions / fused(vectors).std(axis=0)).float()
    found = compute_superposition_stats(dictionary)
    assert found.mean_abs_cos_sim == pytest.approx(np.sqrt(2 / (np.pi * 128)), rel=0.03)
    assert found.mean_max_abs_cos_sim > 0.2


def test_no_dimension_reads_a_factor_and_the_true_direction_does(vectors: PlantedVectors):
    z = (fused(vectors) - fused(vectors).mean(axis=0)) / fused(vectors).std(axis=0)
    truth = (vectors.truth - vectors.truth.mean(axis=0)) / vectors.truth.std(axis=0)
    by_dimension = np.abs(z.T @ truth) / len(z)
    assert by_dimension.max() < 0.45
    along = z @ (vectors.directions / fused(vectors).std(axis=0)).T
    own = np.einsum("nf,nf->f", (along - along.mean(axis=0)) / along.std(axis=0), truth) / len(z)
    assert own.mean() > 3 * by_dimension.max(axis=0).mean()


@pytest.mark.parametrize("name", ["n_samples", "n_factors", "d_in", "n_labels"])
def test_what_cannot_fit_is_refused_before_it_is_drawn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(np.random, "default_rng", lambda seed: pytest.fail("it was drawn"))
    monkeypatch.setattr(vectors_module, "memory", lambda: 64e9)
    with pytest.raises(ConfigError, match=rf"GB of memory, of which this machine has 64; lower {name}"):
        write_planted_vectors(tmp_path / "V", **{name: 2_000_000_000})
    assert not (tmp_path / "V").exists()


def test_what_is_refused_would_have_needed_more(monkeypatch: pytest.MonkeyPatch):
    for sizes in ({"n_factors": 512}, {"d_in": 256}, {"n_samples": 20, "n_factors": 1000, "d_in": 200}):
        tracemalloc.start()
        planted_vectors(**(SMALL | sizes))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        monkeypatch.setattr(vectors_module, "memory", lambda peak=peak: peak / 2)
        with pytest.raises(ConfigError, match="memory"):
            planted_vectors(**(SMALL | sizes))
        monkeypatch.setattr(vectors_module, "memory", lambda peak=peak: peak)
        planted_vectors(**(SMALL | sizes))


# on disk


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "V"
    write_planted_vectors(out, **SMALL, children=0.25)
    return out


def test_the_same_options_give_the_same_bytes(written: Path, tmp_path: Path):
    write_planted_vectors(tmp_path / "again", **SMALL, children=0.25)
    assert hashes(tmp_path / "again") == hashes(written)
    write_planted_vectors(tmp_path / "other", **SMALL, children=0.25, seed=1)
    same = {name for name, found in hashes(tmp_path / "other").items() if found == hashes(written)[name]}
    assert same <= {"_SUCCESS", "dataset_info.json"}


def test_a_damaged_file_is_written_again(written: Path, tmp_path: Path):
    out = tmp_path / "V"
    write_planted_vectors(out, **SMALL, children=0.25)
    (out / "answer_key" / "factors.parquet").write_bytes(b"")
    write_planted_vectors(out, **SMALL, children=0.25)
    assert hashes(out) == hashes(written)
    with pytest.raises(StorageError, match="another"):
        write_planted_vectors(out, **SMALL)


def test_the_folder_is_embeddings_with_an_answer_key_and_true_directions(written: Path):
    memes, drawn = Embeddings.load(written), planted_vectors(**SMALL, children=0.25)
    assert memes.facts["fusion"] == "sum"
    np.testing.assert_array_equal(memes.take("hook_fused", np.arange(2_000)), fused(drawn).astype(np.float32))
    opened: Any = load_from_disk(str(written))
    assert opened.column_names[:4] == ["id", "source", "split", "group"]
    key = read_answer_key(answer_key_of(written))
    assert key.kinds == drawn.kinds
    np.testing.assert_array_equal(key.factors[list(key.kinds)].to_numpy(), drawn.truth)
    assert key.factors["id"].tolist() == memes.ids.tolist()
    assert key.causes["label_0"]["factors"] == drawn.causes["label_0"]
    kept = load_file(answer_key_of(written) / "directions.safetensors")
    np.testing.assert_allclose(kept["directions"], drawn.directions, rtol=1e-6)
    np.testing.assert_allclose(kept["origin"], drawn.origin, rtol=1e-6)
    told = json.loads((answer_key_of(written) / "causes.json").read_text())
    assert len(told["parents"]) == 16


# from a recipe


def recipe(tmp_path: Path, **sections: Any) -> Path:
    train = {"epochs": 2, "sae": {"d_sae": 64, "k": 3}}
    evaluate = {"only": ["contest", "answer_key"], "bootstrap": 5, "contest": {"controls": ["neurons"], "ks": [1]}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"embed": {"planted": SMALL}, "train": train, "evaluate": evaluate, **sections}))
    return path


@pytest.mark.slow
def test_a_recipe_draws_trains_and_scores_one_to_one_recovery(tmp_path: Path):
    run(recipe(tmp_path), out=tmp_path / "out")
    numbers = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())["results"]["contest"][
        "numbers"
    ]
    assert 0 < numbers["planted/mcc/sae"] < 1
    assert 0 < numbers["planted/mcc/neurons_k"] < 1


def test_the_command_writes_what_the_options_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "V"
    flags = [
        "--n-samples",
        "100",
        "--d-in",
        "16",
        "--n-factors",
        "24",
        "--active",
        "2",
        "--missing",
        "0",
        "--seed",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["sae-lens-meme", "planted-vectors", "--out", str(out), *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "100 planted vectors, hook_image_embed 16" in capsys.readouterr().out
    drawn = planted_vectors(n_samples=100, d_in=16, n_factors=24, active=2.0, missing=0.0, seed=3)
    np.testing.assert_array_equal(
        Embeddings.load(out).take("hook_fused", np.arange(100)), fused(drawn).astype(np.float32)
    )
    assert len(read_answer_key(answer_key_of(out)).kinds) == 24


def test_the_shipped_recipe_asks_only_what_vectors_can_answer():
    from sae_lens_meme.config import read_yaml

    shipped = read_yaml("vectors.yaml")
    options = EvaluateOptions.from_mapping({**shipped["evaluate"], "answer_key": "key"})
    assert options.names()[0] == "contest"
    assert planted_vectors(**shipped["embed"]["planted"]).options.n_factors > shipped["embed"]["planted"]["d_in"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"embed": {"planted": {"n_factor": 4}}}, "embed.planted: unknown key 'n_factor'; did you mean 'n_factors'"),
        ({"embed": {"planted": {}, "model": "x"}}, "embed: unknown key 'model'"),
        (
            {"corpus": {"pridemm": "P"}},
            "embed.planted draws vectors, which need no memes; leave out the section corpus",
        ),
        ({"embed": {"planted": {"d_in": 4}}}, "embed.planted.d_in is 4, it must be 8 or more"),
        ({"embed": {"planted": 3}}, "embed.planted: is int, not a mapping of options"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, sections: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        run(recipe(tmp_path, **sections), out=tmp_path / "out")


@pytest.mark.parametrize("options", [{"active": 40.0}, {"n_factors": 1, "active": 1.0}, {"zipf": 3.0}])
def test_a_factor_of_more_than_half_of_the_memes_is_refused(options: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"embed\.planted: a factor would be true of \d+% of the memes"):
        planted_vectors(**SMALL | options)

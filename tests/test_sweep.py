"""Sweeps: settings chosen on validation memes, told on test memes, resumed, and a sentence that cannot flatter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import run_here
from sae_lens import SAE
from scipy.optimize import linear_sum_assignment

from sae_lens_meme import measure
from sae_lens_meme.embed import as_embeddings
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, StorageError
from sae_lens_meme.planted import write_planted_vectors
from sae_lens_meme.sweep import Sweep, step, sweep
from sae_lens_meme.sweep.figure import pareto
from sae_lens_meme.sweep.grid import settings_of
from sae_lens_meme.sweep.report import short
from sae_lens_meme.sweep.scores import Yardstick, without_test

pytestmark = pytest.mark.whole
RECIPE = {"epochs": 8, "train_batch_size_tokens": 128, "lr": 4.0e-3, "n_checkpoints": 0, "sae": {"d_sae": 48, "k": 1}}
GRID = ["sae.k=1,4"]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors") / "v"
    write_planted_vectors(folder, n_samples=1500, n_factors=24, d_in=16, active=3)
    return folder


@pytest.fixture(scope="module")
def found(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    out, key = tmp_path_factory.mktemp("sweep") / "s", vectors / "answer_key"
    return sweep(
        *(RECIPE,), embeddings=vectors, out=out, grid=GRID, seeds=2, answer_key=key, bootstrap=30, progress=False
    )


def test_every_run_is_an_ordinary_train_folder(found: Sweep):
    folders = sorted(path.parent.relative_to(found.folder) for path in found.folder.rglob("cfg.json"))
    assert [str(path) for path in folders] == [f"runs/sae.k={k}/seed_{seed}" for k in (1, 4) for seed in (42, 43)]
    assert {SAE.load_from_disk(found.folder / path).cfg.k for path in folders[2:]} == {4}


def test_the_numbers_are_those_of_the_contest(found: Sweep, vectors: Path):
    """On test memes, by the path of `evaluate`, which knows nothing of sweeps."""
    sae = found.folder / "runs/sae.k=4/seed_43"
    contest = measure(
        *(sae, vectors),
        only=["contest", "reconstruction"],
        answer_key=vectors / "answer_key",
        evaluators={
            "contest": {"controls": ["neurons"], "n_permutations": 1, "ks": [1], "ns": [1]},
            "stability": {"n_bootstrap": 0},
        },
        bootstrap=0,
        progress=False,
    )
    row = found.runs[(found.runs["sae.k"] == 4) & (found.runs["seed"] == 43)].iloc[0]
    assert row["test_headline"] == pytest.approx(contest["contest"].numbers["planted/mcc/sae"])
    assert row["test_l0"] == contest["reconstruction"].numbers["held_out/l0"]
    setting = found.settings[found.settings["sae.k"] == 4].iloc[0]
    assert setting["test_neurons"] == pytest.approx(contest["contest"].numbers["planted/mcc/neurons"])
    assert setting["test_headline"] == pytest.approx(found.runs["test_headline"][2:].mean())


def test_stable_latents_are_those_that_a_plain_matching_finds(found: Sweep, vectors: Path):
    memes = Embeddings.load(vectors)
    x = torch.from_numpy(memes.take("hook_fused", np.arange(len(memes))))
    std = x[memes.rows("train")].double().std(0)
    rows = []
    for seed in (42, 43):
        sae = SAE.load_from_disk(found.folder / f"runs/sae.k=4/seed_{seed}")
        alive = (sae.encode(x) > 0).any(0)
        rows.append(torch.nn.functional.normalize(sae.W_dec.detach().double()[alive] / std, dim=1).numpy())
    cosines = rows[0] @ rows[1].T
    share = (cosines[linear_sum_assignment(cosines, maximize=True)] >= 0.7).sum() / len(cosines)
    assert found.settings.set_index("sae.k").loc[4, "stable"] == pytest.approx(share)


def test_the_choice_is_made_on_validation_memes(found: Sweep, vectors: Path):
    memes = Embeddings.load(vectors)
    view = without_test(memes)
    yardstick = Yardstick.of(view, None, 0)
    assert yardstick.rows.split == "validation"
    assert yardstick.rows.test.tolist() == memes.rows("validation").tolist()
    assert not set(yardstick.rows.selection) & set(memes.rows("test"))
    best = found.settings["validation_headline"].idxmax()
    assert found.settings["chosen"].tolist() == [i == best for i in range(2)]
    assert found.settings.loc[best, "sae.k"] == 4
    assert "take k=4" in found.content["recommendation"]


def test_the_sentence_has_interval_seeds_and_controls(found: Sweep):
    said = found.content["recommendation"]
    row = found.settings[found.settings["chosen"]].iloc[0]
    for number in ("test_headline", "test_headline_low", "test_headline_seeds_sd", "test_neurons", "test_random"):
        assert f"{row[number]:.3f}".lstrip("0") in said, number
    assert row["test_headline_low"] < row["test_headline"] < row["test_headline_high"]
    assert "2 resampled seeds" in found.content["caution"]
    numbers = set(found.settings.columns) | set(found.runs.columns)
    assert numbers - {"sae.k"} <= found.content["columns"].keys()


def test_a_finished_run_is_not_repeated(found: Sweep, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []
    train = step.train

    def watched(config: Any, **given: Any) -> Any:
        if not (given["out"] / "_SUCCESS").exists():
            trained.append(given["out"].name)
            if len(trained) == 2:
                raise KeyboardInterrupt
        return train(config, **given)

    monkeypatch.setattr(step, "train", watched)
    asked: dict[str, Any] = {
        "embeddings": vectors,
        "out": tmp_path / "s",
        "seeds": 2,
        "bootstrap": 5,
        "progress": False,
    }
    key = vectors / "answer_key"
    with pytest.raises(KeyboardInterrupt):
        sweep(RECIPE, grid=GRID, answer_key=key, **asked)
    with pytest.raises(StorageError, match="the sweep step was interrupted"):
        Sweep.load(tmp_path / "s")
    again = sweep(RECIPE, grid=GRID, answer_key=key, **asked)
    assert trained == ["seed_42", "seed_43", "seed_43", "seed_42", "seed_43"]
    pd.testing.assert_series_equal(again.runs["test_headline"], found.runs["test_headline"])
    with pytest.raises(StorageError, match="holds a different result"):
        sweep(RECIPE, grid=["sae.k=1,4,8"], answer_key=key, **asked)
    kept = tmp_path / "s/runs/sae.k=1/seed_42/sae_weights.safetensors"
    before = kept.stat().st_mtime_ns
    larger = sweep(RECIPE, grid=["sae.k=1,4,8"], answer_key=key, overwrite=True, **asked)
    assert trained[5:] == ["seed_42", "seed_43"], "of k=8 alone"
    assert larger.settings["test_headline"][:2].tolist() == again.settings["test_headline"].tolist()
    assert kept.stat().st_mtime_ns == before


def test_what_is_not_better_than_neurons_is_said_to_be_so(tmp_path: Path):
    """Labels that one dimension holds: an SAE cannot beat it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 12)).astype(np.float32)
    memes = as_embeddings({"hate": (x[:, 3] > 0).astype(int)}, fused=x)
    recipe = {**RECIPE, "epochs": 1, "sae": {"d_sae": 16, "k": 2}}
    one = sweep(recipe, embeddings=memes, out=tmp_path / "s", grid=["sae.k=2"], seeds=1, bootstrap=30, progress=False)
    said = one.content["recommendation"]
    assert "it trails dense neurons" in said
    assert "one-latent probes of" in said
    assert "they do not include what another seed would change" in one.content["caution"]
    assert "is a weak guide to what an SAE recovers" in one.content["caution"]
    assert np.isnan(one.settings["stable"][0])
    again: dict[str, Any] = {"seeds": 1, "bootstrap": 0, "overwrite": True, "progress": False}
    bare = sweep(recipe, embeddings=memes, out=tmp_path / "s", grid=["sae.k=2"], **again)
    assert bare.content["caution"].startswith("Without intervals (--bootstrap) the larger number counts as ahead")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["sae.k"], "'sae.k' is not KEY=VALUE,VALUE; e.g. --grid sae.k=16,32,64"),
        (["sae.k="], "'sae.k=' has no values"),
        (["sae.k=4,4"], "is given twice; every setting is trained once"),
        (["sae.k=4", "sae.k=8"], "sae.k is given twice; write all its values in one"),
        (["sae.k=[4"], "the values are not plain YAML"),
        (["seed=1,2"], "give their number with --seeds"),
        (["sae.kk=4"], r"train.sae \(meme_topk\): unknown key 'kk'; did you mean 'k'"),
        (["sae.k=4,400"], "train.sae.k is 400, it must lie between 1 and d_sae 48"),
        (["hook_name=hook_fused,hook_image_embed"], "the SAEs of a sweep read one hook"),
        ([], "sweep.grid is"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_trained(
    vectors: Path, tmp_path: Path, grid: list[str], message: str
):
    with pytest.raises(ConfigError, match=message):
        sweep(RECIPE, embeddings=vectors, out=tmp_path / "s", grid=grid, progress=False)
    assert not (tmp_path / "s").exists()


def test_without_test_memes_nothing_could_be_told(tmp_path: Path):
    x = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    memes = as_embeddings({"hate": [i % 2 for i in range(100)], "split": ["train", "validation"] * 50}, fused=x)
    with pytest.raises(DataError, match="no test memes, on which settings are reported"):
        sweep(RECIPE, embeddings=memes, out=tmp_path, grid=GRID, progress=False)


def test_settings_are_every_combination_with_names_that_folders_can_have():
    names = [setting.folder for setting in settings_of(["sae.architecture=topk", "lr=1.0e-3,2.0e-3", "sae.d_sae=8"])]
    assert names == [f"sae.architecture=topk,lr={lr},sae.d_sae=8" for lr in ("0.001", "0.002")]
    assert "/" not in settings_of(["logger.run_name=a/../b"])[0].folder


def test_the_front_is_what_nothing_beats_in_both():
    assert pareto([(4, 0.5), (8, 0.4), (8, 0.7), (16, 0.7), (2, 0.1), (32, np.nan)]) == [(2, 0.1), (4, 0.5), (8, 0.7)]


def test_the_command_prints_the_table_and_the_sentence(found: Sweep, vectors: Path, tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"train": RECIPE}))
    asked = ("--grid", "sae.k=1,4", "--seeds", 2, "--bootstrap", 30, "--answer-key", vectors / "answer_key")
    done = run_here("sweep", recipe, "--embeddings", vectors, *asked, "--out", found.folder)
    assert done.returncode == 0, done.stderr
    assert found.content["recommendation"][:60] in " ".join(done.stdout.split())
    assert "sweep.png" in done.stdout
    without = run_here("sweep", recipe, "--embeddings", vectors, "--out", tmp_path / "x")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "--grid is missing; give the values to compare, e.g. --grid sae.k=16,32,64" in without.stderr


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-10.25, "-10.250"), (0.5, ".500"), (-0.5, "-.500"), (-0.0004, ".000"), (1.0, "1.000"), (np.nan, "-")],
)
def test_numbers_of_the_table(value: float, shown: str):
    assert short(value) == shown

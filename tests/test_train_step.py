"""The whole step: its files, its numbers, live and cached, one hook and several."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sae_lens import SAE, LanguageModelSAERunnerConfig
from sae_lens.training.sae_trainer import SAETrainer
from test_train_data import embeddings_of

from sae_lens_meme.errors import ConfigError, NonFiniteError
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.pipeline import trained_saes
from sae_lens_meme.train import MemeSAETrainingRunner, load_sae, load_train_config, train

EMBEDDINGS = embeddings_of(n=640, d=24, hooks=("hook_fused", "hook_image_embed", "hook_text_embed"))
SECTION = {"epochs": 6, "train_batch_size_tokens": 64, "sae": {"d_sae": 64, "k": 6}}


def facts(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())["facts"]


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_files_log_and_facts(tmp_path):
    sae = train(SECTION, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    assert not isinstance(sae, dict)
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "runner_cfg.json"),
        *("training_log.jsonl", "manifest.json", "_SUCCESS"),
    }
    records = log(tmp_path)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["loss"] < records[0]["loss"]
    assert sae.cfg.metadata.hook_name == "hook_fused"
    runner_cfg = json.loads((tmp_path / "runner_cfg.json").read_text())
    assert LanguageModelSAERunnerConfig.from_dict({k: v for k, v in runner_cfg.items() if k != "sae_lens_meme"})


@pytest.mark.parametrize(
    "architecture", ["meme_topk", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "standard", "gated"]
)
def test_the_saved_sae_does_what_the_trained_one_did(tmp_path, architecture: str):
    """Facts come from the saved SAE on raw rows, the last log line from the SAE in standardised space."""
    sae = {"architecture": architecture, "d_sae": 64}
    sae |= {} if architecture in ("jumprelu", "standard", "gated") else {"k": 6}
    sae |= {"matryoshka_widths": [16, 64]} if architecture == "matryoshka_batchtopk" else {}
    train(SECTION | {"sae": sae}, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    saved, trained = facts(tmp_path), log(tmp_path)[-1]
    for key in ("explained_variance", "explained_variance_zscored", "l0"):
        assert saved[f"validation_{key}"] == pytest.approx(trained[f"validation_{key}"], rel=2e-3, abs=1e-3)


def test_facts_equal_a_plain_computation(tmp_path):
    sae = train(SECTION, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    assert not isinstance(sae, dict)
    train_x = EMBEDDINGS.take("hook_fused", EMBEDDINGS.rows("train")).astype(np.float64)
    x = EMBEDDINGS.take("hook_fused", EMBEDDINGS.rows("validation"))
    with torch.no_grad():
        acts = sae.encode(torch.from_numpy(x))
        error = (sae.decode(acts).double().numpy() - x.astype(np.float64)) ** 2
    spread = (x.astype(np.float64) - x.mean(0, dtype=np.float64)) ** 2
    std = train_x.std(0, ddof=1)
    result = facts(tmp_path)
    assert result["validation_explained_variance"] == pytest.approx(1 - error.sum() / spread.sum(), rel=1e-6)
    zscored = 1 - (error / std**2).sum() / (spread / std**2).sum()
    assert result["validation_explained_variance_zscored"] == pytest.approx(zscored, rel=1e-6)
    assert result["validation_never_fired"] == int((acts <= 0).all(0).sum())
    assert result["validation_n"] == len(x)


def test_live_training_equals_cached_training(tmp_path):
    cached = train(SECTION, out=tmp_path / "cached", embeddings=EMBEDDINGS, progress=False)
    model = HookedMemeCLIP.from_embeddings(EMBEDDINGS, fit_head=False)
    live = train(
        SECTION | {"hook_name": "hook_image_embed"},
        out=tmp_path / "live",
        embeddings=EMBEDDINGS,
        model=model,
        progress=False,
    )
    cached = train(
        SECTION | {"hook_name": "hook_image_embed"}, out=tmp_path / "image", embeddings=EMBEDDINGS, progress=False
    )
    assert not isinstance(live, dict)
    assert not isinstance(cached, dict)
    for name, value in cached.state_dict().items():
        torch.testing.assert_close(live.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for key, value in facts(tmp_path / "image").items():
        assert facts(tmp_path / "live")[key] == pytest.approx(value, rel=1e-3), key


def test_hooks_in_one_run_equal_hooks_one_by_one(tmp_path):
    hooks = {"image": "hook_image_embed", "fused": "hook_fused"}
    together = train(SECTION | {"hook_names": hooks}, out=tmp_path / "multi", embeddings=EMBEDDINGS, progress=False)
    assert isinstance(together, dict)
    assert {name: sae.cfg.metadata.hook_name for name, sae in together.items()} == hooks
    assert {record["sae"] for record in log(tmp_path / "multi")} == set(hooks)
    alone = train(
        SECTION | {"hook_name": "hook_image_embed"}, out=tmp_path / "image", embeddings=EMBEDDINGS, progress=False
    )
    assert not isinstance(alone, dict)
    # the first SAE of a run draws the same initial weights as a single one
    torch.testing.assert_close(together["image"].W_dec, alone.W_dec, rtol=1e-5, atol=1e-8)
    loaded = load_sae(tmp_path / "multi")
    assert isinstance(loaded, dict)
    assert set(loaded) == set(hooks)


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    section = SECTION | {"epochs": 60, "lr": 0.02, "early_stopping_epochs": 3}
    train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    records, result = log(tmp_path), facts(tmp_path)
    curve = [record["validation_explained_variance_zscored"] for record in records]
    best = int(np.argmax(curve))
    assert len(records) == best + 1 + 3 < 60
    assert result["best_epoch"] == best + 1
    assert result["validation_explained_variance_zscored"] == pytest.approx(max(curve), rel=1e-3)


def test_early_stopping_never_looks_at_test_rows(tmp_path):
    with pytest.raises(ConfigError, match="needs rows of split 'validation'"):
        train(
            SECTION | {"early_stopping_epochs": 3}, out=tmp_path, embeddings=embeddings_of(splits="tte"), progress=False
        )


@pytest.mark.parametrize("splits", ["t", "te"])
def test_without_validation_rows_the_numbers_are_null_with_a_reason(tmp_path, splits: str):
    train(SECTION, out=tmp_path, embeddings=embeddings_of(splits=splits), progress=False)
    result = facts(tmp_path)
    assert result["validation_explained_variance"] is None
    assert result["validation_reason"] == "no rows of this split"
    assert log(tmp_path)[-1]["validation_explained_variance"] is None
    assert trained_saes(tmp_path) == {tmp_path: "no validation numbers (no rows of this split)"}


def test_the_shuffled_control_explains_less(tmp_path):
    """The control meets the same marginals; only structure between dimensions can be compressed."""
    train(SECTION | {"epochs": 30}, out=tmp_path / "real", embeddings=EMBEDDINGS, progress=False)
    train(SECTION | {"epochs": 30}, out=tmp_path / "control", embeddings=EMBEDDINGS, shuffled=True, progress=False)
    real, control = facts(tmp_path / "real"), facts(tmp_path / "control")
    assert control["shuffled"] is True
    assert control["validation_explained_variance_zscored"] < real["validation_explained_variance_zscored"]
    assert SAE.load_from_disk(tmp_path / "control").cfg.metadata.shuffled_control is True


def test_a_bad_row_stops_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(SAETrainer, "step", lambda self, batch: pytest.fail("trained"))
    with pytest.raises(NonFiniteError, match=r'row 3 .*id "meme-3"'):
        train(SECTION, out=tmp_path, embeddings=embeddings_of(bad=(3, np.nan)), progress=False)


def test_wandb_goes_through_saelens(tmp_path, monkeypatch):
    import wandb

    logged: dict[str, float] = {}
    monkeypatch.setattr(wandb, "init", lambda **_: None)
    monkeypatch.setattr(wandb, "finish", lambda: None)
    monkeypatch.setattr(wandb, "log", lambda values, step: logged.update(values))
    section = SECTION | {"logger": {"log_to_wandb": True, "wandb_log_frequency": 5, "log_weights_to_wandb": False}}
    train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    assert {"losses/mse_loss", "metrics/l0", "epochs/validation_explained_variance"} <= logged.keys()


def test_the_runner_works_as_a_stock_one(tmp_path):
    cfg = load_train_config(SECTION).runner_config(24, len(EMBEDDINGS.rows("train")))
    cfg.output_path = str(tmp_path)
    MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    assert SAE.load_from_disk(tmp_path).cfg.architecture() == "topk"

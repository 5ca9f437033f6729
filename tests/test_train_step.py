"""The whole step: its files, its numbers, live and cached, one hook and several."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from arrays import make_embeddings
from sae_lens import SAE, LanguageModelSAERunnerConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from test_train_data import embeddings_of

from sae_lens_meme import measure
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError, StorageError
from sae_lens_meme.evaluators.opened import load_others
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.provenance import training_rows_known
from sae_lens_meme.steps import trained_saes
from sae_lens_meme.train import MemeSAETrainingRunner, load_train_config, train

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


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    section = SECTION | {"epochs": 60, "lr": 0.02, "early_stopping_epochs": 3}
    train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    records, result = log(tmp_path), facts(tmp_path)
    curve = [record["validation_explained_variance_zscored"] for record in records]
    best = int(np.argmax(curve))
    assert len(records) == best + 1 + 3 < 60
    assert result["best_epoch"] == best + 1
    assert result["validation_explained_variance_zscored"] == pytest.approx(max(curve), rel=1e-3)


@pytest.mark.parametrize("multi", [False, True])
def test_sparsity_and_dead_latents_are_of_the_saved_weights(tmp_path, multi: bool):
    """Early stopping brings back weights that are older than SAELens' windows of firing."""
    hooks = {"hook_names": {"a": "hook_fused"}} if multi else {}
    section = SECTION | hooks | {"epochs": 60, "lr": 0.02, "early_stopping_epochs": 3, "dead_feature_window": 3}
    train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    folder = tmp_path / "a" if multi else tmp_path
    sae = SAE.load_from_disk(folder)
    x = torch.from_numpy(EMBEDDINGS.take("hook_fused", EMBEDDINGS.rows("train")))
    fires = (sae.encode(x) > 0).double().mean(0)
    sparsity = load_file(folder / "sparsity.safetensors")["sparsity"]
    torch.testing.assert_close(sparsity.double(), torch.log10(fires + 1e-10), atol=1e-4, rtol=0)
    assert 0 < sae.cfg.metadata.num_dead_features == int((fires == 0).sum())
    assert sae.cfg.metadata.l0 == pytest.approx(float(fires.sum()))
    result = facts(tmp_path)["a"] if multi else facts(tmp_path)
    assert result["train_never_fired"] == int((fires == 0).sum())


def test_a_negative_latent_of_abstopk_has_fired(tmp_path):
    train(
        SECTION | {"sae": {"architecture": "abstopk", "d_sae": 16, "k": 4}},
        out=tmp_path,
        embeddings=EMBEDDINGS,
        progress=False,
    )
    assert facts(tmp_path)["train_l0"] == pytest.approx(4)


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


@pytest.mark.parametrize("architecture", sorted(SAE_TRAINING_CLASS_REGISTRY))
def test_every_architecture_of_saelens_by_one_line_trains_and_is_evaluated(tmp_path, architecture: str):
    lines = [f"sae.architecture={architecture}", "train_batch_size_tokens=64", "epochs=1"]
    train("demo.yaml", overrides=lines, out=tmp_path / "sae", embeddings=EMBEDDINGS, progress=False)
    assert facts(tmp_path / "sae")["train_explained_variance"] is not None
    found = measure(
        tmp_path / "sae", EMBEDDINGS, only=["reconstruction", "monosemanticity"], bootstrap=0, progress=False
    )
    assert found["reconstruction"].numbers["held_out/explained_variance"] is not None
    assert not found.content["skipped"]


def test_what_the_one_line_leaves_open_is_said(capsys: pytest.CaptureFixture[str]):
    config = load_train_config("demo.yaml", ["sae.architecture=matching_pursuit"])
    assert config.recipe.standardize is False
    assert (
        "note: train.standardize: false, as matching_pursuit cannot take standardised input" in capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match="matching_pursuit cannot take standardised input; add standardize: false"):
        load_train_config("demo.yaml", ["sae.architecture=matching_pursuit", "standardize=true"])
    config = load_train_config("demo.yaml", ["sae.architecture=matryoshka_batchtopk"])
    assert config.section["sae"]["matryoshka_widths"] == [8, 32, 128]
    assert "matryoshka_widths: [8, 32, 128], as none are given" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"train.sae.architecture is 'temporal', SAELens knows abstopk, batchtopk"):
        load_train_config("demo.yaml", ["sae.architecture=temporal"])


def test_abstopk_is_saved_as_the_topk_sae_that_computes_the_same(tmp_path):
    section = SECTION | {"sae": {"architecture": "abstopk", "d_sae": 16, "k": 4}}
    cfg = load_train_config(section).runner_config(24, len(EMBEDDINGS.rows("train")))
    signed = MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    saved: Any = train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    x = torch.from_numpy(EMBEDDINGS.take("hook_fused", EMBEDDINGS.rows("validation")))
    acts = saved.encode(x)
    assert (saved.cfg.architecture(), saved.cfg.d_sae) == ("topk", 32)
    assert acts.min() >= 0
    torch.testing.assert_close(acts[:, :16] - acts[:, 16:], signed.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(saved(x), signed(x), rtol=1e-4, atol=1e-6)
    fired = saved.encode(torch.from_numpy(EMBEDDINGS.take("hook_fused", EMBEDDINGS.rows("train")))) > 0
    assert saved.cfg.metadata.num_dead_features == int((~fired.any(0)).sum())
    sparsity = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    torch.testing.assert_close(sparsity, (fired.double().mean(0) + 1e-10).log10().float(), rtol=1e-4, atol=1e-4, check_dtype=False)  # fmt: skip
    assert training_rows_known(saved, EMBEDDINGS) is None
    signed.save_inference_model(tmp_path / "stock")
    assert SAE.load_from_disk(tmp_path / "stock").cfg.architecture() == "abstopk"
    with pytest.raises(StorageError, match="is an AbsTopK SAE, whose latents have two signs; `sae-lens-meme import"):
        load_others([tmp_path / "stock"])
    found = measure(tmp_path / "stock", EMBEDDINGS, only=["reconstruction"], bootstrap=0, progress=False)
    in_memory = measure(
        SAE.load_from_disk(tmp_path / "stock"), EMBEDDINGS, only=["reconstruction"], bootstrap=0, progress=False
    )
    assert in_memory["reconstruction"].numbers == found["reconstruction"].numbers
    same = measure(saved, EMBEDDINGS, only=["reconstruction"], bootstrap=0, progress=False)
    assert found["reconstruction"].numbers["held_out/explained_variance"] == pytest.approx(same["reconstruction"].numbers["held_out/explained_variance"], abs=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sae.use_sparse_activations=true"], "SparseCPU"),
        (["standardize=false", "sae.normalize_activations=layer_norm"], "TopK auxiliary loss does not support"),
    ],
)
def test_what_fails_in_a_later_step_is_refused_before_the_first(lines: list[str], message: str):
    with pytest.raises(ConfigError, match=rf"train.sae \(topk\): SAELens refuses this config: .*{message}") as error:
        load_train_config("demo.yaml", ["sae.architecture=topk", *lines])
    assert "\n" not in str(error.value)


def test_matching_pursuit_trains_on_raw_input(tmp_path):
    section = SECTION | {"standardize": False, "sae": {"architecture": "matching_pursuit", "d_sae": 32}}
    train(section, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    assert facts(tmp_path)["validation_explained_variance"] > 0.5


def test_the_runner_refuses_what_cannot_be_folded():
    section = SECTION | {"standardize": False, "sae": {"architecture": "matching_pursuit", "d_sae": 32}}
    cfg = load_train_config(section).runner_config(24, len(EMBEDDINGS.rows("train")))
    with pytest.raises(ConfigError, match="cannot take standardised input"):
        MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False)


@pytest.mark.parametrize("noise", [0, 4e-33, 7e-9, 1e-7])
def test_a_dead_dimension_changes_nothing_of_the_others(tmp_path, noise: float):
    """Divided by its own std its noise would be as large as what is to be learned."""
    x = EMBEDDINGS.take("hook_fused", np.arange(len(EMBEDDINGS))) * 20
    x[:, 5] = noise * np.random.default_rng(0).standard_normal(len(x))
    embeddings = make_embeddings({"hook_fused": x})
    train(SECTION | {"epochs": 30}, out=tmp_path / "dead", embeddings=embeddings, progress=False)
    x[:, 5] = 0
    train(
        SECTION | {"epochs": 30}, out=tmp_path / "zero", embeddings=make_embeddings({"hook_fused": x}), progress=False
    )
    for key in ("validation_explained_variance", "validation_explained_variance_zscored"):
        assert facts(tmp_path / "dead")[key] == pytest.approx(facts(tmp_path / "zero")[key], abs=0.02)
        assert facts(tmp_path / "dead")[key] > 0.5


def test_one_side_alone_trains(tmp_path):
    x = EMBEDDINGS.take("hook_image_embed", np.arange(len(EMBEDDINGS)))
    train(
        *(SECTION | {"hook_name": "hook_image_embed"},),
        out=tmp_path,
        embeddings=make_embeddings({"hook_image_embed": x}),
        progress=False,
    )
    assert facts(tmp_path)["validation_explained_variance"] is not None


def degenerate(kind: str) -> np.ndarray:
    x = EMBEDDINGS.take("hook_fused", np.arange(len(EMBEDDINGS))).copy()
    if kind == "all rows alike":
        x[:] = x[0]
    elif kind == "1e30":
        x[7, 3] = 1e30
    elif kind == "all 1e30":
        x *= 1e30
    elif kind == "denormals":
        x *= 1e-39
    elif kind == "zeros":
        x *= 0
    return x


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("all rows alike", "hook_fused: the 448 training rows are all alike, so there is nothing to learn"),
        ("zeros", "are all alike"),
        ("1e30", r'row 7 \(id "meme-7"\), hook_fused holds 1e\+30, the square of which overflows float32'),
        ("all 1e30", "overflows float32; scale the embeddings down"),
        ("denormals", "vary by only .*e-4., the square of which is 0 in float32; scale the embeddings up"),
    ],
)
def test_degenerate_rows_end_with_one_line(tmp_path, kind: str, message: str, standardize: bool):
    embeddings = make_embeddings({"hook_fused": degenerate(kind)})
    with pytest.raises(DataError, match=message):
        train(SECTION | {"standardize": standardize}, out=tmp_path, embeddings=embeddings, progress=False)


@pytest.mark.parametrize(
    "section", [{}, {"standardize": False}, {"sae": {"d_sae": 8, "k": 2, "aux_loss_coefficient": 0.1}}]
)
@pytest.mark.parametrize("d", [1, 24])
def test_two_rows_again_and_again_train(tmp_path, d: int, section: dict):
    x = np.tile(EMBEDDINGS.take("hook_fused", [0, 1])[:, :d], (50, 1))
    settings = {"dead_feature_window": 1, "sae": {"d_sae": 8, "k": 2}} | section
    train(
        SECTION | {"train_batch_size_tokens": 10} | settings,
        out=tmp_path,
        embeddings=make_embeddings({"hook_fused": x}),
        progress=False,
    )
    assert facts(tmp_path)["validation_l0"] is not None


def test_validation_rows_that_are_alike_have_no_explained_variance(tmp_path):
    x = EMBEDDINGS.take("hook_fused", np.arange(len(EMBEDDINGS)))
    embeddings = make_embeddings({"hook_fused": x})
    x[embeddings.rows("validation")] = x[3]
    train(
        SECTION | {"early_stopping_epochs": 2},
        out=tmp_path,
        embeddings=make_embeddings({"hook_fused": x}),
        progress=False,
    )
    assert facts(tmp_path)["validation_explained_variance"] is None
    assert facts(tmp_path)["validation_reason"] == "these rows are all alike"
    assert "all alike" in trained_saes(tmp_path)[tmp_path]


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


@pytest.fixture
def wandb_offline(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """No account, no network; the folder of its runs."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "logs"))
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "wandb"


LOGGED = SECTION | {"logger": {"log_to_wandb": True, "wandb_log_frequency": 5}}


@pytest.mark.whole
def test_wandb_offline_needs_no_account_and_changes_nothing(tmp_path, wandb_offline):
    import wandb

    train(LOGGED, out=tmp_path / "logged", embeddings=EMBEDDINGS, progress=False)
    train(SECTION, out=tmp_path / "plain", embeddings=EMBEDDINGS, progress=False)
    (run,) = wandb_offline.glob("offline-run-*/*.wandb")
    assert b"validation_explained_variance" in run.read_bytes()
    assert wandb.run is None
    weights = [(tmp_path / name / "sae_weights.safetensors").read_bytes() for name in ("logged", "plain")]
    assert weights[0] == weights[1]


def test_a_training_that_stops_closes_its_wandb_run(tmp_path, wandb_offline, monkeypatch: pytest.MonkeyPatch):
    import wandb

    monkeypatch.setattr(SAETrainer, "step", lambda self, batch: 1 / 0)
    monkeypatch.setattr(SAETrainer, "train_step", lambda self, **_: 1 / 0, raising=False)
    with pytest.raises(ConfigError, match="division by zero"):
        train(LOGGED, out=tmp_path / "sae", embeddings=EMBEDDINGS, progress=False)
    assert wandb.run is None


def test_without_an_account_one_line_says_what_to_do(tmp_path, monkeypatch: pytest.MonkeyPatch):
    import wandb
    from wandb.errors import UsageError

    def refuse(**_):
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        ConfigError, match=r"wandb refuses this config: .*log in; without an account set WANDB_MODE=offline"
    ):
        train(LOGGED, out=tmp_path, embeddings=EMBEDDINGS, progress=False)
    with pytest.raises(ConfigError, match=r"log_to_wandb belongs to the logger; write logger: \{log_to_wandb: ...\}"):
        load_train_config(SECTION | {"log_to_wandb": True})


def test_the_runner_works_as_a_stock_one(tmp_path):
    cfg = load_train_config(SECTION).runner_config(24, len(EMBEDDINGS.rows("train")))
    cfg.output_path = str(tmp_path)
    MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    assert SAE.load_from_disk(tmp_path).cfg.architecture() == "topk"


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_notebook_that_turned_gradients_off_trains_the_same(off: Any):
    how: Any = {"overrides": ["epochs=1"], "progress": False}
    expected: Any = train(SECTION, embeddings=EMBEDDINGS, **how)
    with off():
        found: Any = train(SECTION, embeddings=EMBEDDINGS, **how)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.W_enc, expected.W_enc)


def test_no_bar_of_saelens_is_drawn_into_a_log(capsys: pytest.CaptureFixture[str]):
    section = SECTION | {"epochs": 1, "standardize": False}
    train(section, embeddings=EMBEDDINGS, overrides=["sae.normalize_activations=expected_average_only_in"])
    assert "%|" not in capsys.readouterr().err

"""The `train:` section: what is accepted, what is refused and what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.train import load_train_config

SAE = {"d_sae": 64, "k": 8}


def resolve(section: dict, overrides: tuple[str, ...] = (), d_in: int = 16, n_rows: int = 1000):
    return load_train_config(section, overrides).runner_config(d_in, n_rows)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sae": SAE | {"d_sea": 1}}, r"train.sae \(meme_topk\): unknown key 'd_sea'; did you mean 'd_sae'\?"),
        ({"sae": SAE | {"expansion": 8}}, "train.sae .* unknown key 'expansion'"),
        ({"sae": SAE, "lr_warmup_steps": 3}, "train: unknown key 'lr_warmup_steps'; did you mean 'lr_warm_up_steps'"),
        ({"sae": SAE, "epoch": 3}, "train: unknown key 'epoch'; did you mean 'epochs'"),
        (
            {"sae": SAE, "logger": {"log_wandb": True}},
            "train.logger: unknown key 'log_wandb'; did you mean 'log_to_wandb'",
        ),
        ({"sae": SAE | {"architecture": "topkk"}}, "train.sae.architecture is 'topkk', SAELens knows .*meme_topk"),
        (
            {"sae": SAE, "lr": "1e-3"},
            r"train.lr is '1e-3', it must be a number \(YAML reads 1e-3 as text: write 0.001 or 1.0e-3\)",
        ),
        ({"sae": SAE, "lr_end": "1e-4"}, "train.lr_end is '1e-4'.*write 0.0001 or 1.0e-4"),
        ({"sae": SAE, "epochs": "1e1"}, "train.epochs is '1e1'.*1.0e[+]1"),
        ({"sae": SAE, "standardize": "yes"}, "train.standardize is 'yes', it must be a boolean"),
        ({"sae": SAE, "seed": True}, "train.seed is True, it must be an integer"),
        ({"sae": SAE | {"decoder_norm": "clam"}}, "decoder_norm is 'clam', it must be one of clamp, unit, none"),
        ({"sae": SAE | {"k": 65}}, "train.sae.k is 65, it must lie between 1 and d_sae 64"),
        ({"sae": SAE | {"k": 0}}, "train.sae.k is 0"),
        ({"sae": {"d_sae": 0}}, "train.sae.d_sae is 0, it must be 1 or more"),
        ({"sae": {"architecture": "topk", "d_sae": 64}}, "train.sae.k is 100, it must lie between 1 and d_sae 64"),
        ({"sae": {"k": 3}}, "train.sae.d_sae is missing"),
        ({"sae": SAE | {"d_in": 17}}, "train.sae.d_in is 17, the activations at the hook have 16 dimensions"),
        ({"sae": SAE, "train_batch_size_tokens": 1001}, "train_batch_size_tokens is 1001, .* the 1,000 training rows"),
        ({"sae": SAE, "epochs": 3, "training_tokens": 5}, "either epochs or training_tokens"),
        ({"sae": SAE, "seed": -1}, "train.seed is -1, it must be 0 or more"),
        ({"sae": SAE, "lr_end": -1.0}, "train.lr_end is -1.0, it must be 0 or more"),
        ({"sae": SAE, "lr_warm_up_steps": -5}, "train.lr_warm_up_steps is -5, it must be 0 or more"),
        ({"sae": SAE | {"aux_loss_coefficient": -5.0}}, "train.sae.aux_loss_coefficient is -5.0, it must be 0 or more"),
        ({"sae": SAE | {"decoder_init_norm": -1.0}}, "train.sae.decoder_init_norm is -1.0, it must be 0 or more"),
        ({"sae": SAE, "device": "banana"}, "device 'banana' cannot be used here"),
        ({"train": None}, "train: is None, not a section"),
        ({"train": [1]}, r"train: is \[1\], not a section"),
        ({"sae": SAE, "epochs": 0}, "train.epochs is 0, it must be above 0"),
        ({"sae": SAE, "hook_names": {"../x": "hook_fused"}}, "'../x' cannot be the name of an SAE's folder"),
        ({"sae": SAE, "output_path": "x"}, "train.output_path is 'x', this step sets it to None"),
        ({"sae": SAE, "context_size": 128}, "train.context_size is 128, this step sets it to 1"),
        ({"sae": SAE | {"normalize_activations": "layer_norm"}}, "'layer_norm' would normalise standardised input"),
        ({"sae": SAE | {"device": "cuda"}, "device": "cpu"}, "train.sae.device is 'cuda' and train.device is 'cpu'"),
    ],
)
def test_refused(section: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        resolve(section)


@pytest.mark.parametrize("architecture", ["meme_topk", "topk", "batchtopk", "jumprelu", "standard", "gated"])
def test_every_architecture_by_one_line(architecture: str):
    sae = {"architecture": architecture, "d_sae": 128}
    cfg = resolve({"sae": sae})
    assert cfg.sae.architecture() == architecture
    assert cfg.sae.d_in == 16


@pytest.mark.parametrize(("architecture", "lacks"), [("batchtopk", ["init"]), ("standard", ["k", "init"])])
def test_a_shipped_recipe_takes_another_architecture_in_one_line(
    architecture: str, lacks: list[str], capsys: pytest.CaptureFixture[str]
):
    config = load_train_config("demo.yaml", [f"sae.architecture={architecture}"])
    assert not set(lacks) & set(config.section["sae"])
    notes = capsys.readouterr().err.splitlines()
    assert [f"train.sae.{key}" in note and "is left out" in note for key, note in zip(lacks, notes, strict=True)]


def test_overrides_are_relative_to_train_and_yaml():
    config = {"corpus": {"anything": 1}, "train": {"sae": dict(SAE), "epochs": 50}}
    cfg = resolve(config, ("sae.k=4", "epochs=2", "lr=1.0e-4", "logger.run_name=mine"))
    assert (cfg.sae.k, cfg.training_tokens, cfg.lr, cfg.logger.run_name) == (4, 2000, 1e-4, "mine")
    assert config["train"]["sae"]["k"] == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sae.k", "is not KEY=VALUE"),
        ("sae.k=[", "is not plain YAML"),
        ("sae.kk=3", "unknown key 'kk'"),
        ("lr=1e-3", "write 0.001 or 1.0e-3"),
        ("lr.x=3", "'lr' is the value 0.001, not a section"),
        ("sae.k=!!python/object/apply:os.system [ls]", "is not plain YAML"),
    ],
)
def test_overrides_are_checked(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        resolve({"sae": dict(SAE), "lr": 1.0e-3}, (override,))


def test_windows_and_epochs_become_steps_and_samples():
    cfg = resolve({"sae": SAE, "epochs": 3, "train_batch_size_tokens": 300})
    assert cfg.training_tokens == 3000
    assert (cfg.dead_feature_window, cfg.feature_sampling_window) == (17, 34)  # 5 and 10 epochs of 1000 / 300 steps
    cfg = resolve({"sae": SAE, "dead_feature_window": 9, "feature_sampling_window_epochs": 1})
    assert (cfg.dead_feature_window, cfg.feature_sampling_window) == (9, 4)


def test_a_yaml_file_with_or_without_a_train_section(tmp_path):
    whole, bare = tmp_path / "whole.yaml", tmp_path / "bare.yaml"
    whole.write_text(yaml.safe_dump({"embed": {}, "train": {"sae": SAE}}))
    bare.write_text(yaml.safe_dump({"sae": SAE}))
    assert load_train_config(whole) == load_train_config(bare)


def test_lr_end_and_no_wandb_by_default():
    cfg = resolve({"sae": SAE, "lr_scheduler_name": "cosineannealing"})
    assert cfg.lr_end == pytest.approx(1e-4)
    assert cfg.logger.log_to_wandb is False


def test_options_that_came_later_are_recorded_only_where_they_are_given():
    """So that what an earlier release trained is found again, and not refused as a different result."""
    plain = load_train_config({"sae": {"d_sae": 8, "k": 2}}).recipe.recorded()
    assert set(plain) == {
        *("epochs", "standardize", "early_stopping_epochs", "dead_feature_window_epochs"),
        *("feature_sampling_window_epochs", "hook_names"),
    }
    given = load_train_config({"shuffle_buffer": 99, "sae": {"d_sae": 8, "k": 2}}).recipe.recorded()
    assert given == plain | {"shuffle_buffer": 99}


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parent.parent / "configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_a_shipped_recipe_is_accepted_as_it_is(recipe: Path):
    if "train" in yaml.safe_load(recipe.read_text(encoding="utf-8")):
        load_train_config(recipe.name)

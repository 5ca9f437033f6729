"""Training that begins with given weights: they take raw activations, and standardisation changes nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from sae_lens import (
    SAE,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    TrainingSAE,
)

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.train import MemeMultiSAETrainingRunner, MemeSAETrainingRunner, load_train_config, train
from sae_lens_meme.train.runner import multi_config

X = anisotropic(400, 16, np.random.default_rng(0))
EMBEDDINGS = make_embeddings({"hook_fused": X})
OTHER = make_embeddings({"hook_fused": 30 * X + 0.2 * np.random.default_rng(1).standard_normal((400, 16))})
N_TRAIN = len(EMBEDDINGS.rows("train"))


def config(architecture: str = "meme_topk", **more: Any) -> LanguageModelSAERunnerConfig[Any]:
    k = {} if architecture in ("jumprelu", "standard", "gated") else {"k": 5}
    section = {
        "train_batch_size_tokens": 40,
        "epochs": 30,
        "lr": 0.01,
        "sae": {"architecture": architecture, "d_sae": 32},
    }
    section["sae"] |= k
    for key in ("decoder_norm", "apply_b_dec_to_input"):
        if key in more:
            section["sae"][key] = more.pop(key)
    cfg = load_train_config(section | {"standardize": architecture != "matching_pursuit"}).runner_config(16, N_TRAIN)
    for key, value in more.items():
        setattr(cfg, key, value)
    return cfg


def one_tiny_step(**more: Any) -> dict[str, Any]:
    return {"training_tokens": 40, "lr": 1e-9, "lr_end": 1e-9, **more}


@torch.no_grad()
def outputs(sae: SAE[Any] | TrainingSAE[Any], embeddings: Embeddings = EMBEDDINGS) -> torch.Tensor:
    return sae(torch.from_numpy(embeddings.take("hook_fused", np.arange(len(embeddings)))))


def error(sae: Any, embeddings: Embeddings) -> float:
    x = embeddings.take("hook_fused", embeddings.rows("test"))
    spread = ((x - x.mean(0)) ** 2).sum()
    return float(((x - outputs(sae, embeddings)[embeddings.rows("test")].numpy()) ** 2).sum() / spread)


@pytest.mark.parametrize("architecture", ["meme_topk", "topk", "abstopk", "jumprelu", "standard", "gated"])
@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
@pytest.mark.parametrize("embeddings", [EMBEDDINGS, OTHER], ids=["its own", "others"])
def test_one_tiny_step_changes_nothing(architecture: str, apply_b_dec_to_input: bool, embeddings: Embeddings):
    fields = {"apply_b_dec_to_input": apply_b_dec_to_input}
    if architecture == "meme_topk":
        fields["decoder_norm"] = "none"  # type: ignore[assignment]
    given = MemeSAETrainingRunner(config(architecture, **fields), EMBEDDINGS, progress=False).run()
    before = outputs(given, embeddings)
    again = MemeSAETrainingRunner(
        config(architecture, **one_tiny_step(**fields)), embeddings, override_sae=given, progress=False
    ).run()
    torch.testing.assert_close(outputs(again, embeddings), before, rtol=1e-3, atol=1e-4 * float(before.std()))


def test_a_run_of_the_same_runner_goes_on():
    runner = MemeSAETrainingRunner(config(), EMBEDDINGS, progress=False)
    before = outputs(runner.run())
    for key, value in one_tiny_step().items():
        setattr(runner.cfg, key, value)
    torch.testing.assert_close(outputs(runner.run()), before, rtol=1e-3, atol=1e-5)


def test_a_saved_sae_is_trained_further(tmp_path: Path):
    section = {"train_batch_size_tokens": 40, "epochs": 5, "lr": 0.01, "sae": {"d_sae": 32, "k": 5}}
    saved = train(section, out=tmp_path / "sae", embeddings=EMBEDDINGS, progress=False)
    same = MemeSAETrainingRunner(
        config(**one_tiny_step(from_pretrained_path=str(tmp_path / "sae"))), EMBEDDINGS, progress=False
    ).run()
    torch.testing.assert_close(outputs(same), outputs(saved), rtol=1e-3, atol=1e-5)  # type: ignore[arg-type]
    further = MemeSAETrainingRunner(
        config(from_pretrained_path=str(tmp_path / "sae")), EMBEDDINGS, progress=False
    ).run()
    assert error(further, EMBEDDINGS) < error(saved, EMBEDDINGS)


def test_several_saes_are_trained_further():
    hooks = {"one": "hook_fused", "two": "hook_fused"}

    def cfg(**more: Any) -> Any:
        return multi_config({name: config(**more) for name in hooks}, hooks)

    given = MemeMultiSAETrainingRunner(cfg(), EMBEDDINGS, progress=False).run()
    before = {name: outputs(sae) for name, sae in given.items()}
    again = MemeMultiSAETrainingRunner(cfg(**one_tiny_step()), EMBEDDINGS, override_saes=given, progress=False).run()
    for name, sae in again.items():
        torch.testing.assert_close(outputs(sae), before[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("standardize", [True, False])
def test_weights_that_decoder_norm_would_change_are_refused(standardize: bool):
    given = MemeSAETrainingRunner(config(decoder_norm="none"), EMBEDDINGS, progress=False).run()
    given.cfg.decoder_norm = "clamp"
    with torch.no_grad():
        given.W_dec *= 100
    runner = MemeSAETrainingRunner(config(), EMBEDDINGS, override_sae=given, standardize=standardize, progress=False)
    with pytest.raises(ConfigError, match=r"decoder_norm 'clamp' would change the weights .* decoder_norm='none'"):
        runner.run()


@pytest.fixture(scope="module")
def stock_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAELens' own runner on the raw train rows, half way."""
    folder = tmp_path_factory.mktemp("stock")
    model = HookedMemeCLIP.from_embeddings(EMBEDDINGS, fit_head=False)
    cfg = config("topk", n_checkpoints=1, checkpoint_path=str(folder), training_tokens=4000, n_batches_in_buffer=64)
    LanguageModelSAETrainingRunner(
        cfg, override_model=model, override_dataset=model.token_dataset("train", labelled=False)
    ).run()
    (checkpoint,) = folder.iterdir()
    return checkpoint


def test_a_stock_checkpoint_is_resumed_in_its_own_space(stock_checkpoint: Path):
    cfg = config("topk", resume_from_checkpoint=str(stock_checkpoint), training_tokens=8000)
    with pytest.raises(ConfigError, match="was trained on activations as they are; go on with standardize=False"):
        MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    halfway = TrainingSAE.load_from_disk(stock_checkpoint)
    runner = MemeSAETrainingRunner(cfg, EMBEDDINGS, standardize=False, progress=False)
    assert error(runner.run(), EMBEDDINGS) < error(halfway, EMBEDDINGS)
    assert runner.monitor.records[0]["epoch"] > 1


def test_a_checkpoint_of_standardised_training_is_resumed_in_that_space(tmp_path: Path):
    cfg = config(training_tokens=4000, checkpoint_path=str(tmp_path), n_checkpoints=1)
    MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    (checkpoint,) = tmp_path.iterdir()
    resumed = config(training_tokens=4000, resume_from_checkpoint=str(checkpoint / "sae"))
    straight = MemeSAETrainingRunner(config(training_tokens=4000), EMBEDDINGS, progress=False).run()
    again = MemeSAETrainingRunner(resumed, EMBEDDINGS, progress=False).run()
    torch.testing.assert_close(outputs(again), outputs(straight), rtol=1e-3, atol=1e-5)


class Malicious:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        import os

        return (os.mkdir, (self.path,))


def test_a_checkpoint_to_resume_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sae_lens_meme.errors import StorageError

    torch.save({"optimizer": Malicious(str(tmp_path / "pwned"))}, tmp_path / "trainer_state.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(StorageError, match=r"trainer_state.pt: cannot be read as tensors only"):
        MemeSAETrainingRunner(config(resume_from_checkpoint=str(tmp_path)), EMBEDDINGS, progress=False).run()
    assert not (tmp_path / "pwned").exists()


def test_from_the_command_line_given_weights_are_refused_with_the_way():
    section = {"sae": {"d_sae": 32, "k": 5}, "from_pretrained_path": "sae"}
    with pytest.raises(
        ConfigError, match=r"train.from_pretrained_path is 'sae'.* MemeSAETrainingRunner\(.*override_sae"
    ):
        load_train_config(section)

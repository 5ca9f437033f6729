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

pytestmark = pytest.mark.whole
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
    torch.manual_seed(1)  # SAELens' store shuffles by the state that earlier tests left; some of them train badly
    model = HookedMemeCLIP.from_embeddings(EMBEDDINGS, fit_head=False)
    cfg = config("topk", n_checkpoints=1, checkpoint_path=str(folder), training_tokens=4000, n_batches_in_buffer=64)
    LanguageModelSAETrainingRunner(
        cfg, override_model=model, override_dataset=model.token_dataset("train", labelled=False)
    ).run()
    (checkpoint,) = folder.iterdir()
    return checkpoint


def test_a_stock_checkpoint_is_resumed_in_its_own_space(stock_checkpoint: Path):
    cfg = config("topk", resume_from_checkpoint=str(stock_checkpoint), training_tokens=8000)
    with pytest.raises(ConfigError, match="was trained on raw activations; resume with standardize=False"):
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


SMALL = {"train_batch_size_tokens": 40, "epochs": 30, "lr": 0.01}
TINY: Any = {"training_tokens": 40, "lr": 1e-9, "lr_end": 1e-9, "train_batch_size_tokens": 40}


def trained(folder: Path, architecture: str = "meme_topk", **more: Any) -> Path:
    sae = {"architecture": architecture, "d_sae": 32, **({"k": 5} if "topk" in architecture else {})}
    train({**SMALL, "sae": sae, **more}, out=folder, embeddings=EMBEDDINGS, progress=False)
    return folder


def trained_from(given: Path, out: Path, **more: Any) -> SAE[Any]:
    section = {**TINY, "from_pretrained_path": str(given), **more}
    return train(section, out=out, embeddings=EMBEDDINGS, progress=False)  # type: ignore[return-value]


@pytest.mark.parametrize("architecture", ["meme_topk", "topk", "abstopk", "jumprelu", "standard", "gated", "batchtopk"])
def test_a_recipe_begins_with_an_sae_and_one_tiny_step_changes_nothing(tmp_path: Path, architecture: str):
    given = trained(tmp_path / "given", architecture)
    before = SAE.load_from_disk(given)
    again = trained_from(given, tmp_path / "again")
    assert (again.cfg.architecture(), again.cfg.d_sae) == (before.cfg.architecture(), before.cfg.d_sae)
    torch.testing.assert_close(outputs(again), outputs(before), rtol=1e-3, atol=1e-4 * float(outputs(before).std()))
    assert error(again, EMBEDDINGS) <= error(before, EMBEDDINGS) + 1e-3


def test_the_command_line_begins_with_an_sae(tmp_path: Path):
    from numpy import save

    from sae_lens_meme import embed_arrays
    from sae_lens_meme.steps import train_step

    save(tmp_path / "x.npy", X)
    rows = "".join(f"{i},{split}\n" for i, split in zip(EMBEDDINGS.ids, EMBEDDINGS.splits, strict=True))
    (tmp_path / "rows.csv").write_text("id,split\n" + rows)
    embed_arrays(tmp_path / "e", table=tmp_path / "rows.csv", fused_embeds=tmp_path / "x.npy")
    given = trained(tmp_path / "a given SAE")
    step: Any = {"overrides": ["sae.d_sae=32", "sae.k=5", "train_batch_size_tokens=40", "epochs=1", "lr=1.0e-9"]}
    train_step("intervlm.yaml", out=tmp_path / "sae", embeddings=tmp_path / "e", given=given, **step)
    assert (
        error(SAE.load_from_disk(tmp_path / "sae"), EMBEDDINGS) <= error(SAE.load_from_disk(given), EMBEDDINGS) + 1e-3
    )


def test_a_recipe_that_contradicts_the_given_sae_is_refused(tmp_path: Path):
    given = trained(tmp_path / "given")
    for sae, message in (
        ({"d_sae": 64, "k": 6}, r"has d_sae 32 and not 64, k 5 and not 6; .* write sae.d_sae=32 sae.k=5"),
        ({"architecture": "jumprelu"}, r"is 'topk' and cannot be trained as 'jumprelu'; write sae.architecture=topk"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_train_config({"sae": sae, "from_pretrained_path": str(given)})
    other = make_embeddings({"hook_fused": anisotropic(100, 12, np.random.default_rng(0))})
    with pytest.raises(ConfigError, match="takes 16 dimensions, the activations at hook_fused have 12"):
        train({**TINY, "from_pretrained_path": str(given)}, out=tmp_path / "out", embeddings=other, progress=False)
    with pytest.raises(ConfigError, match=r"not an SAE folder \(it has no cfg.json\); give what train"):
        load_train_config({"from_pretrained_path": str(tmp_path)})


def test_a_checkpoint_from_the_midst_of_standardised_training_is_no_sae_to_begin_with(tmp_path: Path):
    cfg = config(training_tokens=4000, checkpoint_path=str(tmp_path), n_checkpoints=1)
    MemeSAETrainingRunner(cfg, EMBEDDINGS, progress=False).run()
    (checkpoint,) = tmp_path.iterdir()
    with pytest.raises(ConfigError, match="is a checkpoint of a training on scaled activations"):
        load_train_config({"from_pretrained_path": str(checkpoint / "sae")})
    with pytest.raises(ConfigError, match="is a checkpoint of a training on scaled activations"):
        MemeSAETrainingRunner(config(from_pretrained_path=str(checkpoint / "sae")), EMBEDDINGS, progress=False)


def test_several_hooks_begin_with_their_saes(tmp_path: Path):
    hooks: Any = {"hook_names": {"one": "hook_fused", "two": "hook_fused"}}
    given = trained(tmp_path / "given", **hooks)
    again: Any = trained_from(given, tmp_path / "again", **hooks)
    for name, sae in again.items():
        torch.testing.assert_close(outputs(sae), outputs(SAE.load_from_disk(given / name)), rtol=1e-3, atol=1e-5)


def test_the_sae_that_was_given_is_part_of_the_result(tmp_path: Path):
    from sae_lens_meme.errors import StorageError
    from sae_lens_meme.evaluators.base import Unavailable
    from sae_lens_meme.evaluators.run import train_seed

    one, two = trained(tmp_path / "one"), trained(tmp_path / "two", seed=1)
    trained_from(one, tmp_path / "out")
    with pytest.raises(StorageError):
        trained_from(two, tmp_path / "out")
    with pytest.raises(Unavailable, match="was trained further from given weights"):
        train_seed(tmp_path / "out", EMBEDDINGS, tmp_path / "seed", 1)


def test_trained_further_is_as_well_known_as_what_it_began_with(tmp_path: Path):
    from sae_lens_meme.provenance import training_rows_known

    ours = trained_from(trained(tmp_path / "ours"), tmp_path / "further")
    assert training_rows_known(ours, EMBEDDINGS) is None
    stranger = SAE.load_from_disk(tmp_path / "ours")
    stranger.cfg.metadata.embeddings_fingerprint = None
    stranger.save_model(tmp_path / "stranger")
    further = trained_from(tmp_path / "stranger", tmp_path / "again")
    assert "from weights whose training rows are not known" in str(training_rows_known(further, EMBEDDINGS))

"""Every format that `import` reads: the same numbers as the original class, nothing of a file runs, and `evaluate` takes it."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from arrays import make_embeddings
from foreign_saes import ALL, D_IN, D_SAE, dictionary_learning, patchsae, saelens_v, saev, vit_gpt2, vit_prisma
from sae_lens import SAE
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sae_lens_meme import importers, measure
from sae_lens_meme.cli import build_app
from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.evaluators.monosemanticity import matryoshka_widths
from sae_lens_meme.importers import calibrate, converter_of, import_sae
from sae_lens_meme.importers.table import find
from sae_lens_meme.storage import read_finished, sha256_file
from sae_lens_meme.train import train

X = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(1)) + 0.2


@pytest.mark.parametrize("name", ALL)
def test_it_computes_what_the_original_class_computes(tmp_path: Path, name: str):
    given = ALL[name](tmp_path)
    latents, reconstruction = given.forward(X)
    assert 0 < (latents > 0).double().mean() < 0.9
    sae = import_sae(given.path, tmp_path / "out", converter=given.format, **given.options)
    loaded = SAE.load_from_disk(tmp_path / "out")
    converted = SAE.load_from_disk(given.path, converter=partial(find(given.format).load, **given.options))
    assert loaded.cfg.architecture() == given.architecture
    for read in (sae, loaded, converted):
        torch.testing.assert_close(read.encode(X), latents, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(read(X), reconstruction, rtol=1e-5, atol=1e-5)
        assert torch.equal(read.encode(X) > 0, latents > 0)
        assert read.cfg.metadata.hook_name == given.hook
    imported, facts = loaded.cfg.metadata.imported, read_finished(tmp_path / "out", "import")["facts"]
    file = next(file for file in tmp_path.rglob(imported["file"]) if file.parent != tmp_path / "out")
    assert (imported["format"], imported["sha256"]) == (given.format, sha256_file(file))
    assert facts == {"d_in": D_IN, "d_sae": D_SAE, "hook": given.hook, "imported": imported}


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("vit-gpt2", "saelens-v as it is")])
def test_the_files_tell_which_format_it_is(tmp_path: Path, name: str):
    given = ALL[name](tmp_path)
    assert converter_of(given.path) == given.format


def test_groups_of_a_matryoshka_sae_and_a_threshold_that_was_never_set(tmp_path: Path):
    given = dictionary_learning(tmp_path / "a", "MatroyshkaBatchTopKSAE")
    sae = import_sae(given.path, tmp_path / "out")
    assert sae.cfg.metadata.matryoshka_widths == matryoshka_widths(tmp_path / "out") == [10, 30, 60]
    assert sae.cfg.metadata.imported["class"] == "MatryoshkaBatchTopKSAE"
    given = dictionary_learning(tmp_path / "b", "never set")
    assert "this is a plain ReLU" in import_sae(given.path, tmp_path / "other").cfg.metadata.imported["notes"][0]


def test_config_two_folders_up_is_not_read(tmp_path: Path):
    path = dictionary_learning(tmp_path, "BatchTopKSAE").path
    deeper = path.parent / "deeper"
    deeper.mkdir()
    shutil.move(path, deeper)
    with pytest.raises(ModelError, match="is AutoEncoderTopK or BatchTopKSAE"):
        import_sae(deeper / path.name, tmp_path / "out")


FAR = 2 + 6 * (X > 1).float()
"""Activations of factors that are there or not, whose scale and mean matter."""


@pytest.mark.parametrize("state", ["final", "checkpoint", "as_is"])
def test_calibration_tells_the_state_of_a_folder_of_saelens_v(tmp_path: Path, state: str):
    s = D_IN**0.5 / FAR.norm(dim=1).mean().item()
    found = calibrate(trained_saelens_v(tmp_path, state, s), FAR)
    assert found[0].state == state
    assert found[0].explained_variance > 0.999 > 0.9 > found[1].explained_variance
    assert found[0].norm_scaling_factor == (None if state == "as_is" else pytest.approx(s))


def trained_saelens_v(folder: Path, state: str, s: float) -> Path:
    """An SAE without an error on these activations times s: a threshold half way to each factor, and what it takes back."""
    path = saelens_v(folder, state).path
    s = 1.0 if state == "as_is" else s
    w = {name: torch.zeros_like(value) for name, value in load_file(path / "sae_weights.safetensors").items()}
    w["W_enc"][:, :D_IN], w["W_dec"][:D_IN] = torch.eye(D_IN), 2 * torch.eye(D_IN)
    w["b_enc"][:D_IN], w["b_dec"][:] = -5 * s, 2 * s
    if state == "final":
        w["W_enc"], w["W_dec"] = w["W_enc"] * s, w["W_dec"] / s
    save_file(w, path / "sae_weights.safetensors")
    return path


def test_calibration_refuses_activations_that_tell_nothing(tmp_path: Path):
    path = saelens_v(tmp_path, "final").path
    for x, message in ((X[:, :5], r"takes \(n, 24\)"), (X[:1], "do not vary"), (X * float("nan"), "not finite")):
        with pytest.raises(DataError, match=message):
            calibrate(path, x)


def test_what_a_file_does_not_tell_is_asked_for(tmp_path: Path):
    path = saelens_v(tmp_path, "final").path
    with pytest.raises(ModelError, match=r"does not record the factor; pass norm_scaling_factor="):
        import_sae(path, tmp_path / "out")
    with pytest.raises(ModelError, match=r"its name does not say whether training had ended; pass state="):
        import_sae(saelens_v(tmp_path, "as_is").path, tmp_path / "out")
    with pytest.raises(ModelError, match=r"while saev wrote schema 2, .* pass b_dec_at_input= true"):
        import_sae(saev(tmp_path, 2, b_dec_at_input=True).path / "sae.pt", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"import: kind is an option of dictionary_learning, not of saelens-v"):
        import_sae(path, tmp_path / "out", kind="AutoEncoder")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_right_is_refused(tmp_path: Path):
    path = saelens_v(tmp_path, "final").path
    cfg = json.loads((path / "cfg.json").read_text())
    (path / "cfg.json").write_text(json.dumps(cfg | {"finetuning_scaling_factor": True}))
    with pytest.raises(ModelError, match="was fine-tuned with a factor for each latent"):
        import_sae(path, tmp_path / "out", norm_scaling_factor=2.0)
    (tmp_path / "prisma").mkdir()
    prisma = vit_prisma(tmp_path / "prisma", "tanh-relu", "none", beside=True).path
    with pytest.raises(ModelError, match="standard with activation 'tanh-relu', which SAELens does not have"):
        import_sae(prisma, tmp_path / "out")
    (tmp_path / "dump.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="is a dump of pictures with activations, not an SAE"):
        import_sae(tmp_path / "dump.pkl", tmp_path / "out", converter="vit-gpt2")
    (tmp_path / "saev").mkdir()
    (tmp_path / "saev" / "sae.pt").write_bytes(b'{"schema": 6}\nPK\x03\x04')
    with pytest.raises(ModelError, match="has schema 6, known here are 1, 2, 3, 4, 5"):
        import_sae(tmp_path / "saev", tmp_path / "out")


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def poisoned(folder: Path, name: str) -> Path:
    """A file of that format with code in its pickle; formats of safetensors alone have no pickle."""
    state = {"W_enc": Malicious(), "encoder.weight": Malicious()}
    file = folder / "sae.pt"
    if name == "saev":
        with open(file, "wb") as opened:
            opened.write(b'{"schema": 5, "cfg": {"activation": {"cls": "Relu", "params": {}}}}\n')
            torch.save(state, opened)
        return file
    if name in ("saelens-v", "vit-gpt2"):
        path = vit_gpt2(folder).path
        torch.save(state, path / "sae_weights.safetensors")
        return path
    if name == "sparsify":
        torch.save(state, folder / "sae.safetensors")
        return folder
    torch.save({"cfg": {"d_in": Malicious()}, "state_dict": state}, file)
    return file


@pytest.mark.parametrize("name", [name for name in importers.FORMATS if name not in ("abstopk", "saelens-checkpoint")])
def test_nothing_of_a_malicious_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelError, match=r"cannot be read as tensors only|is damaged"):
        import_sae(poisoned(tmp_path, name), tmp_path / "out", converter=name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("method", ["__setstate__", "__init__"])
def test_a_configuration_of_another_project_is_read_without_its_code(tmp_path: Path, method: str):
    """Its class stands for attributes: neither constructor arguments nor a class beside it get anywhere."""
    from foreign_saes import module_with

    with module_with("src.sae_training.config", "ViTSAERunnerConfig") as config:
        config.__reduce__ = lambda self: (
            (config, ("argument",)) if method == "__init__" else (config, (), {"a": Malicious()})
        )  # type: ignore[assignment]
        config.__init__ = lambda self, *_: None  # type: ignore[misc]
        torch.save({"cfg": config(), "state_dict": {}}, tmp_path / "sae.pt")
    with pytest.raises(ModelError, match="cannot be read as tensors only"):
        importers.patchsae_loader(tmp_path / "sae.pt")


def test_a_layer_that_counts_from_the_end_needs_a_known_tower(tmp_path: Path):
    assert importers.patchsae_loader(patchsae(tmp_path, 3).path)[0]["metadata"]["hook_name"] == "hook_image_resid.3"
    path = patchsae(tmp_path).path / "clip_imagenet.pt"
    path.write_bytes(path.read_bytes().replace(b"clip-vit-base", b"clip-vit-tiny"))
    assert "hook_name" not in importers.patchsae_loader(path)[0]["metadata"]


EVALUATED = [
    "dictionary_learning AutoEncoder",
    "dictionary_learning GatedAutoEncoder",
    "dictionary_learning MatroyshkaBatchTopKSAE",
    "saelens-v final",
    "vit-gpt2",
    "saev 5 TopK",
    "patchsae",
    "vit-prisma layer norm",
    "intervlm",
]


@pytest.fixture(scope="module")
def memes() -> Any:
    hate = (X[:, 0] > 0.5).long().tolist()
    hooks = {"hook_fused": X.numpy()}
    return make_embeddings(hooks, labels={"hate": hate}, sources=["a", "b"] * 150)


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluate_takes_it_with_our_controls(tmp_path: Path, memes: Any, name: str):
    given = ALL[name](tmp_path)
    import_sae(given.path, tmp_path / "out", converter=given.format, **given.options)
    asked = {"only": ["reconstruction", "baselines"], "bootstrap": 0, "hook": "hook_fused", "progress": False}
    few = {"baselines": {"raw": ["neurons", "random_topk"], "n_permutations": 1}}
    found = measure(tmp_path / "out", memes, evaluators=few, **asked)
    numbers, held_out = found["reconstruction"].numbers, X[memes.rows("test")]
    latents, reconstruction = given.forward(held_out)
    mse = (held_out - reconstruction).square().sum(1).mean().item()
    assert numbers["held_out/mse"] == pytest.approx(mse, rel=1e-4)
    assert numbers["held_out/l0"] == pytest.approx((latents > 0).sum(1).double().mean().item())
    assert not found.content["skipped"]
    notes = SAE.load_from_disk(tmp_path / "out").cfg.metadata.imported.get("notes", [])
    assert any(all(note in line for note in notes) for line in found.content["warnings"])  # what became of it is said
    beside = [set(row["controls"]) for row in found.content["table"]]
    assert {"permuted", "neurons", "random TopK"} in beside
    assert {"mean", "train memes"} in beside


def test_the_command_says_what_became_of_it(tmp_path: Path):
    given = dictionary_learning(tmp_path, "MatroyshkaBatchTopKSAE")
    asked = ["import", "dictionary_learning", str(given.path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(build_app(), asked)
    assert result.exit_code == 0, result.output
    assert "jumprelu, d_in 24, d_sae 60, reads hook_image_resid.22" in result.output
    assert "BatchTopK encodes with its trained threshold, 0.4" in result.output
    told = CliRunner().invoke(build_app(), ["import", "auto", *asked[2:], "--hook", "hook_fused", "--overwrite"])
    assert "reads hook_fused" in told.output
    wrong = CliRunner().invoke(build_app(), ["import", "sae", *asked[2:]])
    assert "converter is 'sae', it must be one of abstopk, dictionary_learning" in str(wrong.exception)


def test_it_can_be_trained_further(tmp_path: Path, memes: Any):
    """`train --from` takes the imported folder, and its weights are the ones that training begins with."""
    given = dictionary_learning(tmp_path, "BatchTopKSAE")
    import_sae(given.path, tmp_path / "out", hook="hook_fused")
    section = {"from_pretrained_path": str(tmp_path / "out"), "epochs": 1, "lr": 1e-9, "train_batch_size_tokens": 70}
    sae: Any = train(section, out=tmp_path / "further", embeddings=memes, progress=False)
    torch.testing.assert_close(sae(X), given.forward(X)[1], rtol=1e-3, atol=1e-3)
